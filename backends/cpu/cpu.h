// What the files of the cpu backend share: the state of a context, its threads, its kernels.
#pragma once
#include "backends/backend.h"
#include "backends/cpu/kernels_cpu.h"

namespace qlora {
namespace cpu {

struct Pool;

struct State {
    int32_t isa;
    uint32_t threads; // workers, the caller among them
    const Kernels *kernels;
    const Int8Kernels *int8; // of kernels, or better ones
    const OptimizerKernels *optimizer; // likewise
    Pool *pool; // null when the host runs the threads, or with one thread
};

inline State &state_of(Context &context) { return *static_cast<State *>(context.state); }
inline const Kernels &kernels_of(Context &context) { return *state_of(context).kernels; }

// The address of a span that may be absent.
template <class T> inline T *optional(const qlora_span &span) { return span.handle ? address<T>(span) : nullptr; }

// The place of element (r, c).
inline char *element(const qlora_tensor &tensor, uint64_t r, uint64_t c) {
    return address<char>(tensor.data) + (r * tensor.stride + c) * type_bytes(tensor.type);
}

// Planes and geometry of a weight for decode.
Planes planes_of(const qlora_weight &weight);
// dst[count] = elements first.. of a flattened weight, rounded once to type.
void decode_row(const Kernels &kernels, const Planes &planes, const qlora_weight &weight, uint64_t first, uint64_t count, int32_t type, void *dst);

inline uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }
inline uint64_t most(uint64_t a, uint64_t b) { return a > b ? a : b; }
inline uint64_t divide_up(uint64_t a, uint64_t b) { return (a + b - 1) / b; }

// The absmax of a row of bytes as it is stored: so small a one that its 127th part would be no normal float counts as zero.
inline float int8_absmax(float absmax) { return absmax < 0x1p-119f ? 0 : absmax; }
// What a value is multiplied by to be a code.
inline float int8_inverse(float absmax) { return absmax > 0 ? 127.0f / absmax : 0.0f; }

// dbias[r] = (accumulate ? dbias[r] : 0) + sum over tokens of dy[t][r]
void sum_columns(Context &context, const qlora_tensor &dy, bool accumulate, float *dbias);

// A list of parameters cut into chunks: first[i] = chunks before parameter i, first[count] = all; and the way back.
void chunk_parameters(const qlora_parameter *parameters, uint32_t count, uint64_t chunk, uint64_t *first);
uint32_t parameter_of_chunk(const uint64_t *first, uint32_t count, uint64_t unit);

// Starts threads - 1 threads; null and a message in context when it cannot.
Pool *pool_create(Context &context, uint32_t threads);
void pool_destroy(Context &context, Pool *pool);

// Runs task(user, unit, worker) for every unit below units and returns when all are done. worker < State::threads names a
// piece of per-thread scratch: no two tasks run at a time with the same one. Which worker takes which unit is not fixed,
// so results must depend on the unit alone.
void run_units(Context &context, uint64_t units, void (*task)(const void *user, uint64_t unit, uint32_t worker), const void *user);

// The same with a lambda (unit, worker).
template <class Task> void parallel(Context &context, uint64_t units, const Task &task) {
    run_units(context, units, [](const void *user, uint64_t unit, uint32_t worker) { (*static_cast<const Task *>(user))(unit, worker); }, &task);
}

} // namespace cpu
} // namespace qlora
