// The front door: checks and adopts what callers give, answers size questions, dispatches. No arithmetic on elements,
// no codec, no vendor API.
#include "qlora.h"
#include "backends/backend.h"
#include "backends/check.h"
#include "backends/check_layers.h"
#include "backends/interchange/interchange.h"
#include "backends/optimizer_layout.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>

using namespace qlora;

// ---- context services -------------------------------------------------------------------------------------------

void *qlora_context::allocate(size_t bytes, const char *name, size_t alignment) {
    if (injected(name)) return nullptr;
    return host.allocate(host.allocator_user, bytes, alignment);
}

void qlora_context::release(void *memory, size_t bytes) {
    if (memory) host.release(host.allocator_user, memory, bytes);
}

int32_t qlora_context::fail(int32_t status, const char *format, ...) {
    va_list list;
    va_start(list, format);
    std::vsnprintf(message, sizeof message, format, list);
    va_end(list);
    log(message);
    return status;
}

namespace {

// What came of enqueuing, which an end of recording asks about.
int32_t enqueued(Context &context, int32_t status) {
    if (status != QLORA_OK && context.recording && context.recording_failure == QLORA_OK) context.recording_failure = status;
    return status;
}

// Refuses what a recording cannot hold.
int32_t not_recording(Context &context, const char *entry) {
    if (!context.recording) return QLORA_OK;
    return context.fail(QLORA_ERROR_UNSUPPORTED, "%s: a graph is being recorded, which cannot hold this call; make it before qlora_graph_begin or after qlora_graph_end", entry);
}

void *default_allocate(void *, size_t bytes, size_t alignment) {
    return ::operator new(bytes ? bytes : 1, std::align_val_t(alignment), std::nothrow);
}
// operator delete must be told the alignment that operator new was; all our requests use this one.
constexpr size_t default_alignment = 256;
void *default_allocate_fixed(void *user, size_t bytes, size_t) { return default_allocate(user, bytes, default_alignment); }
void default_release(void *, void *memory, size_t) { ::operator delete(memory, std::align_val_t(default_alignment)); }

const Backend *const built_backends[] = {
    &ref::backend,
    &cpu::backend,
#ifdef QLORA_WITH_CUDA
    &cuda::backend,
#endif
#ifdef QLORA_WITH_VULKAN
    &vulkan::backend,
#endif
};

const Backend *find_backend(int32_t kind) {
    for (const Backend *backend : built_backends)
        if (backend->kind == kind) return backend;
    return nullptr;
}

// The format that decides whether there is a kernel: the weight's, or none.
template <class Args> auto format_of(const Args &args, int) -> decltype(args.weight->format) { return args.weight->format; }
template <class Args> int32_t format_of(const Args &, long) { return 0; }

template <class Args>
int32_t dispatch(Context *context, uint32_t operation, const char *entry, const Args *caller, int32_t (*Backend::*run)(Context &, const Args &),
                 uint64_t (*Backend::*scratch)(Context &, const Args &)) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    Call call = {*context, entry, false, {}, false};
    Args args;
    if (!adopt(caller, &args)) return call.error(QLORA_ERROR_ARGUMENT, "args", "null, struct_size below 8, or fields set that this version does not know");
    const int32_t checked = check(call, args);
    if (checked == QLORA_ERROR_MEMORY) return enqueued(*context, checked); // no fault of the arguments
    QLORA_TRY(checked);
    if (call.nothing_to_do) return QLORA_OK;
    if (!context->backend->supports(*context, operation, format_of(args, 0), QLORA_FORMAT_F32)) // no backend chooses by type
        return context->fail(QLORA_ERROR_UNSUPPORTED, "%s: backend %s has no kernel for this operation on this format; do it on cpu and write the result (of quantizing: the planes) to the device", entry, context->backend->name);
    const uint64_t needed = (context->backend->*scratch)(*context, args);
    if (needed) {
        if (args.scratch.handle == 0 || args.scratch.size < needed)
            return context->fail(QLORA_ERROR_SCRATCH, "%s: scratch has %llu bytes, needed are %llu; ask qlora_operation_scratch", entry,
                                 (unsigned long long)(args.scratch.handle ? args.scratch.size : 0), (unsigned long long)needed);
        QLORA_TRY(call.span(args.scratch, "scratch", needed, 16));
    }
    return enqueued(*context, (context->backend->*run)(*context, args));
}

template <class Args>
int32_t scratch_of(Context *context, const void *caller, uint64_t *bytes, uint64_t (*Backend::*scratch)(Context &, const Args &)) {
    Call call = {*context, "qlora_operation_scratch", true, {}, false};
    Args args;
    if (!adopt(static_cast<const Args *>(caller), &args)) return call.error(QLORA_ERROR_ARGUMENT, "args", "null, struct_size below 8, or fields set that this version does not know");
    QLORA_TRY(check(call, args));
    *bytes = call.nothing_to_do ? 0 : (context->backend->*scratch)(*context, args);
    return QLORA_OK;
}

int32_t creation_failure(const qlora_context_args &args, int32_t status, const char *text) {
    if (args.message && args.message_bytes) std::snprintf(args.message, args.message_bytes, "%s", text);
    if (args.log) args.log(args.log_user, text);
    return status;
}

} // namespace

// ---- public functions -------------------------------------------------------------------------------------------

extern "C" {

uint32_t qlora_version(void) { return QLORA_VERSION_MAJOR * 1000000u + QLORA_VERSION_MINOR * 1000u + QLORA_VERSION_PATCH; }

int32_t qlora_format_query(int32_t format, qlora_format_info *info) {
    if (!info || info->struct_size < 8) return QLORA_ERROR_ARGUMENT;
    const FormatRow *row = format_row(format);
    if (!row) return QLORA_ERROR_FORMAT;
    const qlora_format_info own = {sizeof own, 0, format, row->bits, row->block, row->block_min, row->block_max, row->block_bytes, row->name};
    hand_back(own, info);
    return QLORA_OK;
}

int32_t qlora_format_find(const char *name, int32_t *format) {
    if (!name || !format) return QLORA_ERROR_ARGUMENT;
    for (const FormatRow &row : format_rows)
        if (std::strcmp(row.name, name) == 0) { *format = row.format; return QLORA_OK; }
    return QLORA_ERROR_FORMAT;
}

int32_t qlora_weight_layout(const qlora_weight *weight, qlora_weight_layout_info *layout) {
    qlora_weight own;
    qlora_weight_layout_info result = {};
    if (!layout || layout->struct_size < 8 || !adopt(weight, &own)) return QLORA_ERROR_ARGUMENT;
    const char *why;
    QLORA_TRY(layout_of(own, &result, &why));
    hand_back(result, layout);
    return QLORA_OK;
}

int32_t qlora_weight_place(qlora_weight *weight, qlora_span memory) {
    qlora_weight own;
    qlora_weight_layout_info layout = {};
    if (!adopt(weight, &own)) return QLORA_ERROR_ARGUMENT;
    const char *why;
    QLORA_TRY(layout_of(own, &layout, &why));
    if (memory.size < layout.total_bytes) return QLORA_ERROR_SCRATCH;
    for (int i = 0; i < QLORA_PLANE_COUNT; i++) {
        own.planes[i] = qlora_span{};
        if (layout.plane_bytes[i]) own.planes[i] = qlora_span{memory.handle, memory.offset + layout.plane_offset[i], layout.plane_bytes[i]};
    }
    hand_back(own, weight);
    return QLORA_OK;
}

int32_t qlora_state_layout(const qlora_parameter *parameter, qlora_state_layout_info *layout) {
    qlora_parameter own;
    qlora_state_layout_info result;
    if (!adopt(parameter, &own) || !adopt(layout, &result) || result.flags) return QLORA_ERROR_ARGUMENT;
    QLORA_TRY(state_layout_of(own, result));
    hand_back(result, layout);
    return QLORA_OK;
}

int32_t qlora_state_place(qlora_parameter *parameter, const qlora_state_layout_info *layout, qlora_span memory) {
    qlora_parameter own;
    qlora_state_layout_info asked;
    if (!adopt(parameter, &own) || !adopt(layout, &asked) || own.struct_size > parameter->struct_size) return QLORA_ERROR_ARGUMENT;
    QLORA_TRY(state_layout_of(own, asked));
    if (memory.size < asked.total_bytes) return QLORA_ERROR_SCRATCH;
    place_state(own, asked, memory);
    hand_back(own, parameter);
    return QLORA_OK;
}

int32_t qlora_schedule_rate(const qlora_schedule *schedule, uint64_t step, double *rate) {
    qlora_schedule own;
    if (!rate || !adopt(schedule, &own)) return QLORA_ERROR_ARGUMENT;
    return schedule_rate_of(own, step, *rate);
}

#define QLORA_PAGER_CALL(entry, run)                                                                          \
    int32_t entry(qlora_context *context, qlora_pager *caller) {                                              \
        if (!context) return QLORA_ERROR_ARGUMENT;                                                            \
        Call call = {*context, #entry, false, {}, false};                                                     \
        qlora_pager pager;                                                                                    \
        QLORA_TRY(pager_check(call, caller, pager));                                                          \
        QLORA_TRY(run(call, pager));                                                                          \
        hand_back(pager, caller);                                                                             \
        return QLORA_OK;                                                                                      \
    }
QLORA_PAGER_CALL(qlora_pager_plan, plan_pages)
QLORA_PAGER_CALL(qlora_pager_place, place_pages)
#undef QLORA_PAGER_CALL

int32_t qlora_device_count(int32_t backend, uint32_t *count) {
    if (!count) return QLORA_ERROR_ARGUMENT;
    *count = 0;
    const Backend *found = find_backend(backend);
    return found ? found->device_count(count) : QLORA_ERROR_UNAVAILABLE;
}

int32_t qlora_context_create(const qlora_context_args *caller, qlora_context **context) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    *context = nullptr;
    qlora_context_args args;
    if (!adopt(caller, &args)) return QLORA_ERROR_ARGUMENT;
    if (args.flags & ~QLORA_CONTEXT_LEAN) return creation_failure(args, QLORA_ERROR_ARGUMENT, "qlora_context_create: flags: only QLORA_CONTEXT_LEAN is defined");
    if (!args.allocate != !args.release)
        return creation_failure(args, QLORA_ERROR_ARGUMENT, "qlora_context_create: allocate and release: give both or neither");
    const Backend *backend = find_backend(args.backend);
    if (!backend) {
        const bool known = args.backend >= QLORA_BACKEND_REF && args.backend <= QLORA_BACKEND_VULKAN;
        return creation_failure(args, known ? QLORA_ERROR_UNAVAILABLE : QLORA_ERROR_ARGUMENT,
                                known ? "qlora_context_create: backend: not in this build of the library; configure it with QLORA_CUDA or QLORA_VULKAN ON"
                                      : "qlora_context_create: backend: none of QLORA_BACKEND_*");
    }
    Host host = {args.allocate ? args.allocate : default_allocate_fixed, args.release ? args.release : default_release, args.allocator_user, args.log, args.log_user, args.parallel_for,
                 args.parallel_user, args.inject_failure, args.inject_user};
    const bool injected = host.inject_failure && host.inject_failure(host.inject_user, "context");
    void *memory = injected ? nullptr : host.allocate(host.allocator_user, sizeof(qlora_context), 64);
    if (!memory) return creation_failure(args, QLORA_ERROR_MEMORY, "qlora_context_create: no host memory for the context");
    qlora_context *made = new (memory) qlora_context();
    made->backend = backend;
    made->host = host;
    const int32_t status = backend->create(*made, args);
    if (status != QLORA_OK) {
        if (args.message && args.message_bytes) std::snprintf(args.message, args.message_bytes, "%s", made->message);
        host.release(host.allocator_user, memory, sizeof(qlora_context));
        return status;
    }
    *context = made;
    return QLORA_OK;
}

void qlora_context_destroy(qlora_context *context) {
    if (!context) return;
    context->backend->destroy(*context);
    context->release(context->parameters, size_t(context->parameter_capacity) * sizeof(qlora_parameter));
    const Host host = context->host;
    host.release(host.allocator_user, context, sizeof(qlora_context));
}

const char *qlora_context_message(const qlora_context *context) { return context ? context->message : ""; }

int32_t qlora_context_synchronize(qlora_context *context) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    QLORA_TRY(not_recording(*context, "qlora_context_synchronize"));
    return context->backend->synchronize(*context);
}

int32_t qlora_context_query(qlora_context *context, qlora_context_info *info) {
    if (!context || !info || info->struct_size < 8) return QLORA_ERROR_ARGUMENT;
    qlora_context_info own = {};
    own.backend = context->backend->kind;
    QLORA_TRY(context->backend->query(*context, own));
    hand_back(own, info);
    return QLORA_OK;
}

} // extern "C"

namespace {

int32_t adopt_buffer(Call &call, const qlora_buffer_args *caller, qlora_buffer_args *args, bool dst, bool src, bool host, uint32_t flags = 0) {
    if (!adopt(caller, args)) return call.error(QLORA_ERROR_ARGUMENT, "args", "null, struct_size below 8, or fields set that this version does not know");
    QLORA_TRY(call.flags(args->flags, flags));
    if (args->bytes == 0) { call.nothing_to_do = true; return QLORA_OK; }
    if (dst) QLORA_TRY(call.span(args->dst, "dst", args->bytes, 1));
    if (src) QLORA_TRY(call.span(args->src, "src", args->bytes, 1));
    if (host && !args->host) return call.error(QLORA_ERROR_ARGUMENT, "host", "null; give host memory of at least bytes");
    return QLORA_OK;
}

int32_t adopt_graph(Call &call, const qlora_graph_args *caller, qlora_graph_args *args) {
    if (!adopt(caller, args)) return call.error(QLORA_ERROR_ARGUMENT, "args", "null, struct_size below 8, or fields set that this version does not know");
    return call.flags(args->flags, 0);
}

} // namespace

extern "C" {

int32_t qlora_buffer_create(qlora_context *context, qlora_buffer_args *caller) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    Call call = {*context, "qlora_buffer_create", false, {}, false};
    qlora_buffer_args args;
    QLORA_TRY(adopt_buffer(call, caller, &args, false, false, false, QLORA_BUFFER_HOST));
    if (call.nothing_to_do) return call.error(QLORA_ERROR_ARGUMENT, "bytes", "must be positive");
    QLORA_TRY(not_recording(*context, call.entry));
    QLORA_TRY(context->backend->buffer_create(*context, args));
    hand_back(args, caller);
    return QLORA_OK;
}

int32_t qlora_buffer_destroy(qlora_context *context, const qlora_buffer_args *caller) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    Call call = {*context, "qlora_buffer_destroy", false, {}, false};
    qlora_buffer_args args;
    QLORA_TRY(adopt_buffer(call, caller, &args, false, false, false, QLORA_BUFFER_HOST));
    if (args.dst.handle == 0) return QLORA_OK;
    QLORA_TRY(not_recording(*context, call.entry));
    return context->backend->buffer_destroy(*context, args);
}

#define QLORA_BUFFER_CALL(verb, dst, src, host)                                                               \
    int32_t qlora_buffer_##verb(qlora_context *context, const qlora_buffer_args *caller) {                    \
        if (!context) return QLORA_ERROR_ARGUMENT;                                                            \
        Call call = {*context, "qlora_buffer_" #verb, false, {}, false};                                      \
        qlora_buffer_args args;                                                                               \
        QLORA_TRY(adopt_buffer(call, caller, &args, dst, src, host));                                         \
        if (call.nothing_to_do) return QLORA_OK;                                                              \
        QLORA_TRY(not_recording(*context, call.entry));                                                       \
        return context->backend->buffer_##verb(*context, args);                                               \
    }
QLORA_BUFFER_CALL(write, true, false, true)
QLORA_BUFFER_CALL(read, false, true, true)
#undef QLORA_BUFFER_CALL

int32_t qlora_buffer_copy(qlora_context *context, const qlora_buffer_args *caller) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    Call call = {*context, "qlora_buffer_copy", false, {}, false};
    qlora_buffer_args args;
    QLORA_TRY(adopt_buffer(call, caller, &args, true, true, false, QLORA_BUFFER_HOST | QLORA_BUFFER_BESIDE));
    if (args.flags == QLORA_BUFFER_HOST) return call.error(QLORA_ERROR_ARGUMENT, "flags", "HOST tells the direction of a copy with BESIDE; others find it themselves");
    if (call.nothing_to_do) return QLORA_OK;
    return enqueued(*context, context->backend->buffer_copy(*context, args));
}

int32_t qlora_buffer_join(qlora_context *context, const qlora_buffer_args *caller) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    Call call = {*context, "qlora_buffer_join", false, {}, false};
    qlora_buffer_args args;
    QLORA_TRY(adopt_buffer(call, caller, &args, false, false, false, QLORA_BUFFER_HOST));
    return enqueued(*context, context->backend->buffer_join(*context, args));
}

int32_t qlora_buffer_fill(qlora_context *context, const qlora_buffer_args *caller) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    Call call = {*context, "qlora_buffer_fill", false, {}, false};
    qlora_buffer_args args;
    QLORA_TRY(adopt_buffer(call, caller, &args, true, false, false));
    if (call.nothing_to_do) return QLORA_OK;
    if (args.bytes % 4 || args.dst.offset % 4) return call.error(QLORA_ERROR_ARGUMENT, "bytes, dst", "must be multiples of 4");
    return enqueued(*context, context->backend->buffer_fill(*context, args));
}

int32_t qlora_graph_begin(qlora_context *context, const qlora_graph_args *caller) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    Call call = {*context, "qlora_graph_begin", false, {}, false};
    qlora_graph_args args;
    QLORA_TRY(adopt_graph(call, caller, &args));
    QLORA_TRY(not_recording(*context, call.entry));
    if (!context->backend->graph_begin)
        return context->fail(QLORA_ERROR_UNSUPPORTED, "qlora_graph_begin: backend %s records no graphs; make the calls one by one%s", context->backend->name,
                             context->backend->kind == QLORA_BACKEND_VULKAN ? ", or record them in a VkCommandBuffer of your own, given as their stream" : "");
    QLORA_TRY(context->backend->graph_begin(*context, args));
    context->recording = true;
    context->recording_failure = QLORA_OK;
    return QLORA_OK;
}

int32_t qlora_graph_end(qlora_context *context, qlora_graph_args *caller) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    Call call = {*context, "qlora_graph_end", false, {}, false};
    qlora_graph_args args;
    QLORA_TRY(adopt_graph(call, caller, &args));
    if (!context->recording) return call.error(QLORA_ERROR_ARGUMENT, "recording", "there is none; qlora_graph_begin begins one");
    const int32_t failure = context->recording_failure;
    context->recording = false;
    args.graph = args.nodes = args.device_bytes = 0;
    const int32_t status = context->backend->graph_end(*context, args, failure != QLORA_OK);
    if (failure != QLORA_OK)
        return context->fail(failure, "qlora_graph_end: a call that was to be recorded failed (%s), so there is no graph; make the calls one by one to see which", qlora_status_name(failure));
    QLORA_TRY(status);
    hand_back(args, caller);
    return QLORA_OK;
}

#define QLORA_GRAPH_CALL(verb, optional)                                                                             \
    int32_t qlora_graph_##verb(qlora_context *context, const qlora_graph_args *caller) {                      \
        if (!context) return QLORA_ERROR_ARGUMENT;                                                            \
        Call call = {*context, "qlora_graph_" #verb, false, {}, false};                                       \
        qlora_graph_args args;                                                                                \
        QLORA_TRY(adopt_graph(call, caller, &args));                                                          \
        if (!args.graph && optional) return QLORA_OK;                                                         \
        QLORA_TRY(not_recording(*context, call.entry));                                                       \
        if (!args.graph || !context->backend->graph_##verb)                                                   \
            return call.error(QLORA_ERROR_ARGUMENT, "graph", "none of this context; give what qlora_graph_end filled in"); \
        return context->backend->graph_##verb(*context, args);                                                \
    }
QLORA_GRAPH_CALL(launch, false)
QLORA_GRAPH_CALL(destroy, true)
#undef QLORA_GRAPH_CALL

int32_t qlora_operation_scratch(qlora_context *context, uint32_t operation, const void *args, uint64_t *bytes) {
    if (!context || !bytes) return QLORA_ERROR_ARGUMENT;
    *bytes = 0;
    switch (operation) {
#define QLORA_OPERATION(ID, name, entry, args_type, ...)                                                      \
    case QLORA_OP_##ID: return scratch_of<args_type>(context, args, bytes, &Backend::name##_scratch);
#include "backends/ops.def"
#undef QLORA_OPERATION
    }
    return context->fail(QLORA_ERROR_ARGUMENT, "qlora_operation_scratch: operation %u is none of QLORA_OP_*", operation);
}

int32_t qlora_operation_supports(qlora_context *context, uint32_t operation, int32_t format, int32_t type) {
    if (!context) return QLORA_ERROR_ARGUMENT;
    if (type != QLORA_FORMAT_F32 && type != QLORA_FORMAT_F16 && type != QLORA_FORMAT_BF16)
        return context->fail(QLORA_ERROR_FORMAT, "qlora_operation_supports: type must be F32, F16 or BF16");
    int weight_column = 0;
    bool known = false;
#define QLORA_OPERATION(ID, name, entry, args_type, weight, ...)                                              \
    if (operation == QLORA_OP_##ID) { known = true; weight_column = weight; }
#include "backends/ops.def"
#undef QLORA_OPERATION
    if (!known) return context->fail(QLORA_ERROR_ARGUMENT, "qlora_operation_supports: operation %u is none of QLORA_OP_*", operation);
    const FormatRow *row = format_row(format);
    if ((format != 0 && !row) || !operation_takes(weight_column, row))
        return context->fail(QLORA_ERROR_FORMAT, "qlora_operation_supports: format %d does not go with this operation", format);
    if (context->backend->supports(*context, operation, format, type)) return QLORA_OK;
    return context->fail(QLORA_ERROR_UNSUPPORTED, "qlora_operation_supports: backend %s has no kernel for operation %u, format %d, type %d",
                         context->backend->name, operation, format, type);
}

#define QLORA_OPERATION(ID, name, entry, args_type, ...)                                                      \
    int32_t entry(qlora_context *context, const args_type *args) {                                            \
        return dispatch<args_type>(context, QLORA_OP_##ID, #entry, args, &Backend::name, &Backend::name##_scratch);          \
    }
#include "backends/ops.def"
#undef QLORA_OPERATION

#define QLORA_INTERCHANGE_CALL(entry, type, run, ...)                                                         \
    int32_t entry(qlora_context *context, type *caller) {                                                     \
        if (!context) return QLORA_ERROR_ARGUMENT;                                                            \
        Call call = {*context, #entry, false, {}, false};                                                     \
        type args;                                                                                            \
        if (!adopt(caller, &args)) return call.error(QLORA_ERROR_ARGUMENT, "tensors", "null, struct_size below 8, or fields set that this version does not know"); \
        const qlora_weight *weight = args.weight;                                                             \
        QLORA_TRY(check(call, args __VA_ARGS__));                                                             \
        QLORA_TRY(interchange::run(*context, args));                                                          \
        args.weight = weight;                                                                                 \
        hand_back(args, caller);                                                                              \
        return QLORA_OK;                                                                                      \
    }
QLORA_INTERCHANGE_CALL(qlora_gptq_import, qlora_gptq_tensors, import_gptq, , true)
QLORA_INTERCHANGE_CALL(qlora_gptq_export, qlora_gptq_tensors, export_gptq, , false)
QLORA_INTERCHANGE_CALL(qlora_spqr_import, qlora_spqr_tensors, import_spqr, )
#undef QLORA_INTERCHANGE_CALL

const char *qlora_status_name(int32_t status) {
#define QLORA_NAME(name) if (status == QLORA_##name) return #name;
    QLORA_NAME(OK) QLORA_NAME(ERROR_ARGUMENT) QLORA_NAME(ERROR_SHAPE) QLORA_NAME(ERROR_FORMAT) QLORA_NAME(ERROR_VALUE)
    QLORA_NAME(ERROR_UNSUPPORTED) QLORA_NAME(ERROR_UNAVAILABLE) QLORA_NAME(ERROR_MEMORY) QLORA_NAME(ERROR_SCRATCH)
    QLORA_NAME(ERROR_DEVICE)
#undef QLORA_NAME
    return "unknown";
}

int32_t qlora_constant_find(const char *name, int64_t *value) {
    if (!name || !value) return QLORA_ERROR_ARGUMENT;
    static const struct { const char *name; int64_t value; } constants[] = {
#define QLORA_CONSTANT(name) {#name, name},
#include "backends/constants.def"
#undef QLORA_CONSTANT
    };
    for (const auto &constant : constants)
        if (std::strcmp(constant.name, name) == 0) { *value = constant.value; return QLORA_OK; }
    return QLORA_ERROR_ARGUMENT;
}

} // extern "C"
