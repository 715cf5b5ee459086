// A ggml backend of type ACCEL, outside of ggml's tree, that computes products with quantized weights by qlora:
//
//   GGML_BACKEND_PATH=libggml-qlora.so program       or       ggml_backend_load("libggml-qlora.so")
//
// It claims MUL_MAT (y = x W^T) and OUT_PROD (dx = dy W, which ggml's autograd makes of the former) where W is a matrix of a
// quantized type in host memory; everything else stays with ggml's CPU backend. Weights are ggml's own blocks, used where they lie.
// ggml rounds activations to 8 bits before it multiplies; qlora keeps them in f32.
#include "ggml-backend-impl.h"
#include "ggml-backend.h"
#include "ggml-impl.h"
#include "ggml.h"
#include "qlora.h"

#include <cstring>
#include <vector>

namespace {

// One per ggml backend, which like a context serves one thread at a time.
struct State {
    qlora_context *context = nullptr;
    std::vector<char> scratch;
};

template <class Args> Args sized() {
    Args args = {};
    args.struct_size = sizeof args;
    return args;
}

qlora_span span_of(const void *data, uint64_t bytes) { return {reinterpret_cast<uint64_t>(data), 0, bytes}; }

// qlora's number of a ggml type is 0x100 + that type.
int32_t format_of(ggml_type type) { return 0x100 + int32_t(type); }

bool is_weight(const ggml_tensor *tensor) {
    auto info = sized<qlora_format_info>();
    return ggml_is_quantized(tensor->type) && ggml_is_contiguous(tensor) && ggml_is_matrix(tensor) && qlora_format_query(format_of(tensor->type), &info) == QLORA_OK;
}

// Rows of f32 at any one stride: [tokens][cols], or no such matrix.
bool is_rows(const ggml_tensor *tensor) {
    return tensor->type == GGML_TYPE_F32 && tensor->nb[0] == sizeof(float) && tensor->nb[1] % sizeof(float) == 0 && ggml_is_contiguous_1(tensor) &&
           (ggml_is_matrix(tensor) || ggml_is_contiguous(tensor));
}
qlora_tensor rows_of(const ggml_tensor *tensor) {
    const uint64_t rows = uint64_t(ggml_nrows(tensor)), cols = uint64_t(tensor->ne[0]), stride = rows > 1 ? tensor->nb[1] / sizeof(float) : cols;
    return {QLORA_FORMAT_F32, 0, rows, cols, stride, span_of(tensor->data, ((rows - 1) * stride + cols) * sizeof(float))};
}

// The transpose of rows of f32, as ggml's autograd gives it: element (row, col) is at nb[0] * row + nb[1] * col.
bool is_transposed_rows(const ggml_tensor *tensor) {
    return tensor->type == GGML_TYPE_F32 && ggml_is_matrix(tensor) && tensor->nb[1] == sizeof(float) && tensor->nb[0] % sizeof(float) == 0 &&
           tensor->nb[0] >= size_t(tensor->ne[1]) * sizeof(float);
}
qlora_tensor transposed_rows_of(const ggml_tensor *tensor) {
    const uint64_t rows = uint64_t(tensor->ne[0]), cols = uint64_t(tensor->ne[1]), stride = tensor->nb[0] / sizeof(float);
    return {QLORA_FORMAT_F32, 0, rows, cols, stride, span_of(tensor->data, ((rows - 1) * stride + cols) * sizeof(float))};
}

bool supports(const ggml_tensor *op) {
    const ggml_tensor *w = op->src[0], *other = op->src[1];
    if (ggml_is_empty(op)) return false;
    switch (op->op) {
    case GGML_OP_NONE: case GGML_OP_RESHAPE: case GGML_OP_VIEW: case GGML_OP_PERMUTE: case GGML_OP_TRANSPOSE: return true;
    case GGML_OP_MUL_MAT: return is_weight(w) && is_rows(other) && is_rows(op);
    case GGML_OP_OUT_PROD: return is_weight(w) && is_transposed_rows(other) && is_rows(op);
    default: return false;
    }
}

int32_t multiply(State &state, const ggml_tensor *op) {
    const ggml_tensor *w = op->src[0];
    auto weight = sized<qlora_weight>();
    weight.format = format_of(w->type);
    weight.cols = uint64_t(w->ne[0]);
    weight.rows = uint64_t(w->ne[1]);
    weight.planes[QLORA_PLANE_CODE] = span_of(w->data, ggml_nbytes(w));
    const bool forward = op->op == GGML_OP_MUL_MAT;
    auto args = sized<qlora_matmul_args>();
    args.weight = &weight;
    args.x = rows_of(forward ? op->src[1] : op);
    args.y = forward ? rows_of(op) : transposed_rows_of(op->src[1]);
    uint64_t bytes = 0;
    const int32_t status = qlora_operation_scratch(state.context, forward ? QLORA_OP_MATMUL : QLORA_OP_MATMUL_GRAD, &args, &bytes);
    if (status != QLORA_OK) return status;
    if (state.scratch.size() < bytes + 256) state.scratch.resize(bytes + 256);
    args.scratch = span_of(state.scratch.data(), state.scratch.size());
    args.scratch.offset = 256 - args.scratch.handle % 256;
    args.scratch.size -= args.scratch.offset;
    return forward ? qlora_weight_matmul(state.context, &args) : qlora_weight_matmul_grad(state.context, &args);
}

// ---- what ggml asks of a backend -----------------------------------------------------------------------------------

ggml_backend_reg_t registration();

const char *backend_name(ggml_backend_t) { return "qlora"; }
void backend_free(ggml_backend_t backend) {
    State *state = static_cast<State *>(backend->context);
    qlora_context_destroy(state->context);
    delete state;
    delete backend;
}
ggml_status backend_compute(ggml_backend_t backend, ggml_cgraph *graph) {
    State &state = *static_cast<State *>(backend->context);
    for (int i = 0; i < ggml_graph_n_nodes(graph); i++) {
        const ggml_tensor *op = ggml_graph_node(graph, i);
        if (op->op != GGML_OP_MUL_MAT && op->op != GGML_OP_OUT_PROD) continue; // views
        const int32_t status = multiply(state, op);
        if (status == QLORA_OK) continue;
        GGML_LOG_ERROR("qlora: %s: %s\n", op->name, qlora_context_message(state.context));
        return status == QLORA_ERROR_MEMORY ? GGML_STATUS_ALLOC_FAILED : GGML_STATUS_FAILED;
    }
    return GGML_STATUS_SUCCESS;
}

const char *device_name(ggml_backend_dev_t) { return "qlora"; }
const char *device_description(ggml_backend_dev_t) { return "products with quantized weights by qlora"; }
void device_memory(ggml_backend_dev_t, size_t *free, size_t *total) { *free = *total = 0; }
enum ggml_backend_dev_type device_type(ggml_backend_dev_t) { return GGML_BACKEND_DEVICE_TYPE_ACCEL; }
void device_props(ggml_backend_dev_t device, ggml_backend_dev_props *props) {
    std::memset(props, 0, sizeof *props);
    props->name = device_name(device);
    props->description = device_description(device);
    props->type = device_type(device);
    props->caps.buffer_from_host_ptr = true;
}
// A context with so many threads; 0 = one per core.
qlora_context *open(uint32_t threads) {
    char message[256] = "";
    auto args = sized<qlora_context_args>();
    args.backend = QLORA_BACKEND_CPU;
    args.threads = threads;
    args.message = message;
    args.message_bytes = sizeof message;
    args.log = [](void *, const char *line) { GGML_LOG_DEBUG("%s\n", line); };
    qlora_context *context = nullptr;
    if (qlora_context_create(&args, &context) != QLORA_OK) GGML_LOG_ERROR("%s\n", message);
    return context;
}
ggml_backend_t device_init(ggml_backend_dev_t device, const char *) {
    static ggml_guid guid = {0x71, 0x6c, 0x6f, 0x72, 0x61, 0x2d, 0x67, 0x67, 0x6d, 0x6c, 0x2d, 0x63, 0x70, 0x75, 0x30, 0x31};
    qlora_context *context = open(0);
    if (!context) return nullptr;
    State *state = new State;
    state->context = context;
    ggml_backend *backend = new ggml_backend();
    backend->guid = &guid;
    backend->iface.get_name = backend_name;
    backend->iface.free = backend_free;
    backend->iface.graph_compute = backend_compute;
    backend->device = device;
    backend->context = state;
    return backend;
}
ggml_backend_buffer_type_t device_buffer_type(ggml_backend_dev_t) { return ggml_backend_cpu_buffer_type(); }
ggml_backend_buffer_t device_buffer(ggml_backend_dev_t, void *memory, size_t bytes, size_t) { return ggml_backend_cpu_buffer_from_ptr(memory, bytes); }
bool device_supports(ggml_backend_dev_t, const ggml_tensor *op) { return supports(op); }
bool device_supports_buffer(ggml_backend_dev_t, ggml_backend_buffer_type_t type) { return ggml_backend_buft_is_host(type); }

const char *registration_name(ggml_backend_reg_t) { return "qlora"; }
size_t device_count(ggml_backend_reg_t) { return 1; }
ggml_backend_dev_t device_at(ggml_backend_reg_t reg, size_t) {
    static ggml_backend_device device = [reg] {
        ggml_backend_device made = {};
        made.iface.get_name = device_name;
        made.iface.get_description = device_description;
        made.iface.get_memory = device_memory;
        made.iface.get_type = device_type;
        made.iface.get_props = device_props;
        made.iface.init_backend = device_init;
        made.iface.get_buffer_type = device_buffer_type;
        made.iface.buffer_from_host_ptr = device_buffer;
        made.iface.supports_op = device_supports;
        made.iface.supports_buft = device_supports_buffer;
        made.reg = reg;
        return made;
    }();
    return &device;
}
// What hosts look up by name, as the other backends of host memory have it.
void set_threads(ggml_backend_t backend, int threads) {
    State &state = *static_cast<State *>(backend->context);
    if (qlora_context *context = open(uint32_t(threads))) {
        qlora_context_destroy(state.context);
        state.context = context;
    }
}
void *proc_address(ggml_backend_reg_t, const char *name) { return std::strcmp(name, "ggml_backend_set_n_threads") == 0 ? reinterpret_cast<void *>(set_threads) : nullptr; }
ggml_backend_reg_t registration() {
    static ggml_backend_reg reg = {GGML_BACKEND_API_VERSION, {registration_name, device_count, device_at, proc_address}, nullptr};
    return &reg;
}

} // namespace

extern "C" __attribute__((visibility("default"))) ggml_backend_reg_t ggml_backend_init(void) { return registration(); }
