// A small engine of the kind that embeds qlora: it owns memory, threads, tensors and the order of work. Nothing here knows of
// quantization; what qlora takes from it is at the bottom, in Engine::open().
#pragma once
#include "qlora.h"

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <deque>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace engine {

// All memory of the engine: one block, handed out from the front, aligned to 256 bytes, given back as a whole; and the small
// blocks that a guest asks for, counted.
class Memory {
public:
    explicit Memory(size_t bytes) : block_(static_cast<char *>(std::aligned_alloc(256, bytes))), bytes_(bytes) {}
    ~Memory() { std::free(block_); }
    Memory(const Memory &) = delete;
    Memory &operator=(const Memory &) = delete;

    void *take(size_t bytes) {
        char *place = block_ + used_;
        used_ += (bytes + 255) / 256 * 256;
        if (used_ > bytes_) std::fprintf(stderr, "engine: memory is exhausted\n"), std::exit(1);
        return place;
    }
    size_t used() const { return used_; }
    size_t guest_bytes() const { return guest_bytes_; }

    static void *allocate(void *user, size_t bytes, size_t alignment) {
        static_cast<Memory *>(user)->guest_bytes_ += bytes;
        return std::aligned_alloc(alignment < sizeof(void *) ? sizeof(void *) : alignment, (bytes + alignment - 1) / alignment * alignment);
    }
    static void release(void *user, void *memory, size_t bytes) {
        static_cast<Memory *>(user)->guest_bytes_ -= bytes;
        std::free(memory);
    }

private:
    char *block_;
    size_t bytes_, used_ = 0;
    std::atomic<size_t> guest_bytes_{0};
};

// Threads that run the tasks of one call at a time; the caller's thread helps.
class ThreadPool {
public:
    explicit ThreadPool(uint32_t threads) {
        for (uint32_t i = 1; i < threads; i++) threads_.emplace_back([this] { serve(); });
    }
    ~ThreadPool() {
        { const std::lock_guard<std::mutex> held(lock_); closing_ = true; }
        wake_.notify_all();
        for (std::thread &thread : threads_) thread.join();
    }

    // The shape that qlora_context_args::parallel_for has.
    static void run(void *user, uint32_t count, void (*task)(void *, uint32_t), void *task_user) {
        ThreadPool &pool = *static_cast<ThreadPool *>(user);
        {
            const std::lock_guard<std::mutex> held(pool.lock_);
            pool.job_ = {task, task_user, count, 0, 0};
            pool.round_++;
        }
        pool.wake_.notify_all();
        pool.work();
        std::unique_lock<std::mutex> held(pool.lock_);
        pool.idle_.wait(held, [&] { return pool.job_.done == pool.job_.count; });
    }

private:
    struct Job {
        void (*task)(void *, uint32_t);
        void *user;
        uint32_t count, next, done;
    };
    void work() {
        std::unique_lock<std::mutex> held(lock_);
        while (job_.next < job_.count) {
            const uint32_t index = job_.next++;
            const Job job = job_;
            held.unlock();
            job.task(job.user, index);
            held.lock();
            if (++job_.done == job_.count) idle_.notify_all();
        }
    }
    void serve() {
        uint64_t seen = 0;
        for (;;) {
            {
                std::unique_lock<std::mutex> held(lock_);
                wake_.wait(held, [&] { return closing_ || round_ != seen; });
                if (closing_) return;
                seen = round_;
            }
            work();
        }
    }
    std::mutex lock_;
    std::condition_variable wake_, idle_;
    Job job_ = {nullptr, nullptr, 0, 0, 0};
    uint64_t round_ = 0;
    bool closing_ = false;
    std::vector<std::thread> threads_;
};

// Work in the order in which it was enqueued, done when somebody waits. On a GPU this would be a stream or a command buffer.
class Stream {
public:
    void enqueue(std::function<void()> work) { queue_.push_back(std::move(work)); }
    void wait() {
        for (; !queue_.empty(); queue_.pop_front()) queue_.front()();
    }

private:
    std::deque<std::function<void()>> queue_;
};

// A matrix of f32 in the engine's memory.
struct Tensor {
    float *data;
    uint64_t rows, cols;
    uint64_t count() const { return rows * cols; }
};

// What the library sees of it: the same memory.
inline qlora_span span_of(const void *data, uint64_t bytes) { return {reinterpret_cast<uint64_t>(data), 0, bytes}; }
inline qlora_span span_of(const Tensor &tensor) { return span_of(tensor.data, tensor.count() * sizeof(float)); }
inline qlora_tensor view_of(const Tensor &tensor) { return {QLORA_FORMAT_F32, 0, tensor.rows, tensor.cols, 0, span_of(tensor)}; }

// A growing struct of qlora.h that knows its size.
template <class Args> Args sized() {
    Args args = {};
    args.struct_size = sizeof args;
    return args;
}

struct Engine {
    Memory memory;
    ThreadPool threads;
    Stream stream;
    uint64_t scratch_bytes = 0; // of the largest operation, found before any is enqueued
    qlora_span scratch = {};
    qlora_context *context = nullptr;

    Engine(size_t bytes, uint32_t thread_count) : memory(bytes), threads(thread_count) {}
    ~Engine() { qlora_context_destroy(context); }

    // The guest gets memory, threads and a log from this engine, and so takes none of its own.
    int32_t open(int32_t backend) {
        auto args = sized<qlora_context_args>();
        args.backend = backend;
        args.allocate = Memory::allocate;
        args.release = Memory::release;
        args.allocator_user = &memory;
        args.parallel_for = ThreadPool::run;
        args.parallel_user = &threads;
        args.log = [](void *, const char *line) { std::fprintf(stderr, "engine: guest says: %s\n", line); };
        return qlora_context_create(&args, &context);
    }
    Tensor tensor(uint64_t rows, uint64_t cols, float value = 0) {
        Tensor made = {static_cast<float *>(memory.take(rows * cols * sizeof(float))), rows, cols};
        for (uint64_t i = 0; i < made.count(); i++) made.data[i] = value;
        return made;
    }
    void check(int32_t status) const {
        if (status != QLORA_OK) std::fprintf(stderr, "engine: %s\n", qlora_context_message(context)), std::exit(1);
    }
    // Enqueues an operation of qlora.h whose args live as long as the graph, having asked for its scratch.
    template <class Args> void plan(std::vector<std::function<void()>> &graph, uint32_t operation, int32_t (*call)(qlora_context *, const Args *), Args &args) {
        uint64_t bytes = 0;
        check(qlora_operation_scratch(context, operation, &args, &bytes));
        if (bytes > scratch_bytes) scratch_bytes = bytes;
        graph.push_back([this, call, &args] {
            args.scratch = scratch;
            check(call(context, &args));
        });
    }
};

} // namespace engine
