// The backend's own threads: a fork-join pool whose workers draw units from one counter.
#include "backends/cpu/cpu.h"

#include <atomic>
#include <condition_variable>
#include <mutex>
#include <new>
#if defined(_WIN32)
#include <thread>
#else
#include <pthread.h>
#endif
#if defined(__x86_64__) || defined(_M_X64)
#include <immintrin.h>
#endif

namespace qlora {
namespace cpu {

namespace {

// std::thread reports failure by throwing, which this library cannot catch; pthread_create returns it.
#if defined(_WIN32)
using Thread = std::thread;
bool thread_start(Thread &thread, void *(*body)(void *), void *user) { thread = std::thread(body, user); return true; }
void thread_join(Thread &thread) { thread.join(); }
#else
using Thread = pthread_t;
bool thread_start(Thread &thread, void *(*body)(void *), void *user) { return pthread_create(&thread, nullptr, body, user) == 0; }
void thread_join(Thread &thread) { pthread_join(thread, nullptr); }
#endif

inline void pause() {
#if defined(__x86_64__) || defined(_M_X64)
    _mm_pause();
#elif defined(__aarch64__) && defined(__GNUC__)
    __asm__ __volatile__("yield");
#endif
}

// One round of work: what to run and who has taken what.
struct Round {
    void (*task)(const void *, uint64_t, uint32_t);
    const void *user;
    uint64_t units;
    std::atomic<uint64_t> next;

    void work(uint32_t worker) {
        for (;;) {
            const uint64_t unit = next.fetch_add(1, std::memory_order_relaxed);
            if (unit >= units) return;
            task(user, unit, worker);
        }
    }
};

constexpr int spins = 4000; // about 50 us: operations follow each other faster than a sleeping thread wakes

} // namespace

struct Worker {
    Pool *pool;
    uint32_t index;
    Thread thread;
};

struct Pool {
    uint32_t threads;
    Worker *workers; // [threads - 1]
    Round round;
    std::atomic<uint64_t> generation; // counts rounds; odd bits carry no meaning
    std::atomic<uint32_t> busy;       // workers that have not finished the round
    std::atomic<uint32_t> sleeping;
    std::atomic<bool> stop;
    std::mutex mutex;
    std::condition_variable wake;
};

namespace {

void *worker_body(void *user) {
    Worker &worker = *static_cast<Worker *>(user);
    Pool &pool = *worker.pool;
    uint64_t seen = 0;
    for (;;) {
        for (int spin = 0; spin < spins && pool.generation.load(std::memory_order_acquire) == seen; spin++) pause();
        if (pool.generation.load(std::memory_order_acquire) == seen) {
            std::unique_lock<std::mutex> lock(pool.mutex);
            pool.sleeping.fetch_add(1);
            while (pool.generation.load() == seen) pool.wake.wait(lock);
            pool.sleeping.fetch_sub(1);
        }
        seen = pool.generation.load(std::memory_order_acquire);
        if (pool.stop.load(std::memory_order_acquire)) return nullptr;
        pool.round.work(worker.index);
        pool.busy.fetch_sub(1, std::memory_order_release);
    }
}

void start_round(Pool &pool) {
    pool.generation.fetch_add(1);
    if (pool.sleeping.load() == 0) return;
    // Taking the mutex makes sure that a worker on its way to sleep either sees the new generation or hears the call.
    pool.mutex.lock();
    pool.mutex.unlock();
    pool.wake.notify_all();
}

void stop_workers(Pool &pool, uint32_t started) {
    pool.stop.store(true);
    start_round(pool);
    for (uint32_t i = 0; i < started; i++) thread_join(pool.workers[i].thread);
}

} // namespace

Pool *pool_create(Context &context, uint32_t threads) {
    void *memory = context.allocate(sizeof(Pool), "threads");
    void *workers = memory ? context.allocate(sizeof(Worker) * (threads - 1), "threads") : nullptr;
    if (!workers) {
        context.release(memory, sizeof(Pool));
        context.fail(QLORA_ERROR_MEMORY, "qlora_context_create: threads: no host memory for the pool");
        return nullptr;
    }
    Pool *pool = new (memory) Pool();
    pool->threads = threads;
    pool->workers = static_cast<Worker *>(workers);
    for (uint32_t i = 0; i + 1 < threads; i++) {
        Worker *worker = new (&pool->workers[i]) Worker();
        worker->pool = pool;
        worker->index = i + 1;
        if (!context.injected("thread_create") && thread_start(worker->thread, worker_body, worker)) continue;
        stop_workers(*pool, i);
        pool->~Pool();
        context.release(workers, sizeof(Worker) * (threads - 1));
        context.release(memory, sizeof(Pool));
        context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: threads: the system refused thread %u of %u; ask for fewer", i + 1, threads);
        return nullptr;
    }
    return pool;
}

void pool_destroy(Context &context, Pool *pool) {
    if (!pool) return;
    const size_t bytes = sizeof(Worker) * (pool->threads - 1);
    stop_workers(*pool, pool->threads - 1);
    context.release(pool->workers, bytes);
    pool->~Pool();
    context.release(pool, sizeof(Pool));
}

void run_units(Context &context, uint64_t units, void (*task)(const void *, uint64_t, uint32_t), const void *user) {
    State &state = state_of(context);
    if (units <= 1 || state.threads == 1) {
        for (uint64_t unit = 0; unit < units; unit++) task(user, unit, 0);
        return;
    }
    if (!state.pool) {
        Round round = {task, user, units, {0}};
        context.host.parallel_for(context.host.parallel_user, state.threads,
                                  [](void *round, uint32_t index) { static_cast<Round *>(round)->work(index); }, &round);
        return;
    }
    Pool &pool = *state.pool;
    pool.round.task = task;
    pool.round.user = user;
    pool.round.units = units;
    pool.round.next.store(0, std::memory_order_relaxed);
    pool.busy.store(pool.threads - 1, std::memory_order_relaxed);
    start_round(pool);
    pool.round.work(0);
    // Every worker must have left the round before the next one may change it.
    for (int spin = 0; pool.busy.load(std::memory_order_acquire) != 0;) {
        if (++spin < spins) { pause(); continue; }
#if defined(_WIN32)
        std::this_thread::yield();
#else
        sched_yield();
#endif
    }
}

} // namespace cpu
} // namespace qlora
