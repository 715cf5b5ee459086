// All that qlora.cpp knows of a backend, and all that a backend knows of the front door.
#pragma once
#include "qlora.h"
#include "backends/formats.h"

#include <cstdarg>
#include <cstddef>

namespace qlora {

struct Backend;

// What the host gave. allocate and release are never null here: the defaults are filled in.
struct Host {
    void *(*allocate)(void *user, size_t bytes, size_t alignment);
    void (*release)(void *user, void *memory, size_t bytes);
    void *allocator_user;
    void (*log)(void *user, const char *line);
    void *log_user;
    void (*parallel_for)(void *user, uint32_t count, void (*task)(void *, uint32_t), void *task_user);
    void *parallel_user;
    int32_t (*inject_failure)(void *user, const char *call);
    void *inject_user;
};

} // namespace qlora

// The opaque handle of qlora.h.
struct qlora_context {
    const qlora::Backend *backend;
    qlora::Host host;
    void *state;                    // the backend's own; null until its create succeeds
    qlora_parameter *parameters;    // adopted copies of the list in the call under way
    uint32_t parameter_capacity;
    bool recording;                 // between qlora_graph_begin and _end
    int32_t recording_failure;      // of the first call in between that failed while it enqueued
    char message[1024];

    // Host memory through the host's allocator; null when there is none (or failure is injected). name is for injection.
    void *allocate(size_t bytes, const char *name, size_t alignment = 64);
    void release(void *memory, size_t bytes);
    // True when a test asks this driver call to fail. Ask before each call.
    bool injected(const char *call) { return host.inject_failure && host.inject_failure(host.inject_user, call) != 0; }
    // Formats the message and returns status. The message names the thing, the place and the fix.
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    int32_t fail(int32_t status, const char *format, ...);
    void log(const char *line) { if (host.log) host.log(host.log_user, line); }
};

namespace qlora {

using Context = qlora_context;

// Every pointer is set but those of graphs, all null where a backend records none. Args arrive adopted and checked: struct sizes equalised (weights and parameters as well), types
// known, shapes agreeing, strides and blocks and other zero defaults filled in, required spans present and large enough,
// scratch at least what <operation>_scratch said. An operation only enqueues.
struct Backend {
    int32_t kind;
    const char *name;
    int32_t (*device_count)(uint32_t *count);
    // Sets context.state. On failure leaves nothing behind; destroy is then not called.
    int32_t (*create)(Context &context, const qlora_context_args &args);
    void (*destroy)(Context &context);
    int32_t (*query)(Context &context, qlora_context_info &info);
    int32_t (*synchronize)(Context &context);
    int32_t (*buffer_create)(Context &context, qlora_buffer_args &args);
    int32_t (*buffer_destroy)(Context &context, const qlora_buffer_args &args);
    int32_t (*buffer_write)(Context &context, const qlora_buffer_args &args);
    int32_t (*buffer_read)(Context &context, const qlora_buffer_args &args);
    int32_t (*buffer_copy)(Context &context, const qlora_buffer_args &args);
    int32_t (*buffer_fill)(Context &context, const qlora_buffer_args &args);
    int32_t (*buffer_join)(Context &context, const qlora_buffer_args &args);
    int32_t (*graph_begin)(Context &context, const qlora_graph_args &args);
    // Ends the recording whatever comes of it. discard: no graph is made.
    int32_t (*graph_end)(Context &context, qlora_graph_args &args, bool discard);
    int32_t (*graph_launch)(Context &context, const qlora_graph_args &args);
    int32_t (*graph_destroy)(Context &context, const qlora_graph_args &args);
    // format 0 where the operation takes no weight.
    bool (*supports)(Context &context, uint32_t operation, int32_t format, int32_t type);
#define QLORA_OPERATION(ID, name, entry, args_type, ...)                                                      \
    int32_t (*name)(Context &context, const args_type &args);                                                 \
    uint64_t (*name##_scratch)(Context &context, const args_type &args);
#include "backends/ops.def"
#undef QLORA_OPERATION
};

// Declares the functions of one backend, all with the names of the Backend members, in namespace qlora::<name>.
#define QLORA_DECLARE_BACKEND(space)                                                                          \
    namespace space {                                                                                         \
    int32_t device_count(uint32_t *count);                                                                    \
    int32_t create(Context &context, const qlora_context_args &args);                                         \
    void destroy(Context &context);                                                                           \
    int32_t query(Context &context, qlora_context_info &info);                                                \
    int32_t synchronize(Context &context);                                                                    \
    int32_t buffer_create(Context &context, qlora_buffer_args &args);                                         \
    int32_t buffer_destroy(Context &context, const qlora_buffer_args &args);                                  \
    int32_t buffer_write(Context &context, const qlora_buffer_args &args);                                    \
    int32_t buffer_read(Context &context, const qlora_buffer_args &args);                                     \
    int32_t buffer_copy(Context &context, const qlora_buffer_args &args);                                     \
    int32_t buffer_fill(Context &context, const qlora_buffer_args &args);                                     \
    int32_t buffer_join(Context &context, const qlora_buffer_args &args);                                     \
    int32_t graph_begin(Context &context, const qlora_graph_args &args);                                      \
    int32_t graph_end(Context &context, qlora_graph_args &args, bool discard);                                \
    int32_t graph_launch(Context &context, const qlora_graph_args &args);                                     \
    int32_t graph_destroy(Context &context, const qlora_graph_args &args);                                    \
    bool supports(Context &context, uint32_t operation, int32_t format, int32_t type);                        \
    extern const Backend backend;                                                                             \
    }
QLORA_DECLARE_BACKEND(ref)
QLORA_DECLARE_BACKEND(cpu)
QLORA_DECLARE_BACKEND(cuda)
QLORA_DECLARE_BACKEND(vulkan)
#undef QLORA_DECLARE_BACKEND

#define QLORA_OPERATION(ID, name, entry, args_type, ...)                                                      \
    namespace ref { int32_t name(Context &, const args_type &); uint64_t name##_scratch(Context &, const args_type &); }    \
    namespace cpu { int32_t name(Context &, const args_type &); uint64_t name##_scratch(Context &, const args_type &); }    \
    namespace cuda { int32_t name(Context &, const args_type &); uint64_t name##_scratch(Context &, const args_type &); }   \
    namespace vulkan { int32_t name(Context &, const args_type &); uint64_t name##_scratch(Context &, const args_type &); }
#include "backends/ops.def"
#undef QLORA_OPERATION

// backends/vtable.inc, included inside namespace qlora::<name>, defines `backend` from these functions.

#define QLORA_TRY(expression)                                                                                 \
    do {                                                                                                      \
        const int32_t qlora_status = (expression);                                                            \
        if (qlora_status != QLORA_OK) return qlora_status;                                                    \
    } while (0)

// The address that a span means on ref, cpu and cuda.
template <class T> inline T *address(const qlora_span &span) { return reinterpret_cast<T *>(span.handle + span.offset); }

// Geometry of a weight's planes that every backend needs.
inline uint64_t element_count(const qlora_weight &weight) { return weight.rows * weight.cols; }
inline uint64_t block_count(const qlora_weight &weight) { return (element_count(weight) + weight.block - 1) / weight.block; }
// Groups per row where the scale kind is GROUP or TILE.
inline uint64_t group_count(const qlora_weight &weight) { return (weight.cols + weight.block - 1) / weight.block; }
// Where the scale kind is TILE: grids of scales and zeros, four halves each (qlora_weight); the one of a row and group.
inline uint64_t tile_count(const qlora_weight &weight) { return (weight.rows + weight.nested_block - 1) / weight.nested_block * group_count(weight); }
inline uint64_t tile_grid(const qlora_weight &weight, uint64_t r, uint64_t group) { return r / weight.nested_block * group_count(weight) + group; }
// Bytes of a stream of codes.
constexpr uint64_t stream_bytes(uint64_t count, uint32_t bits) { return (count * bits + 7) / 8; }
// Where the scale kind is ROW: the scale of row r. block is then cols (at least 1), or the format's block_max.
inline bool one_scale(const qlora_weight &weight) { return weight.block == 1u << 30; }
inline uint64_t row_scale(const qlora_weight &weight, uint64_t r) { return one_scale(weight) ? 0 : r; }

// Operations carve their scratch in pieces of this alignment.
constexpr uint64_t scratch_alignment = 256;
constexpr uint64_t align_scratch(uint64_t bytes) { return (bytes + scratch_alignment - 1) / scratch_alignment * scratch_alignment; }

} // namespace qlora
