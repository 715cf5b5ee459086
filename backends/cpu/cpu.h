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
    Pool *pool; // null when the host runs the threads, or with one thread
};

inline State &state_of(Context &context) { return *static_cast<State *>(context.state); }
inline const Kernels &kernels_of(Context &context) { return *state_of(context).kernels; }

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
