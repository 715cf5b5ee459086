// A host that counts its memory and fails calls on request: the other side of qlora_context_args in tests of failure.
#pragma once
#include "cpp/qlora.hpp"

#include <cstdlib>
#include <cstring>
#include <mutex>
#include <string>

namespace test {

struct Accounting {
    std::mutex lock;             // the cpu backend may ask from several threads
    uint64_t bytes = 0, blocks = 0; // outstanding
    bool wrong_release = false;  // a size given back differs from what was taken
    uint64_t calls = 0;          // asked of inject_failure since arm()
    uint64_t fail_at = 0;        // the call that fails, from 1; 0 = none
    uint64_t allocations = 0, fail_allocation_at = 0;
    std::string failed;          // its name
    std::string last_line;       // of the log

    void arm(uint64_t call, uint64_t allocation = 0) {
        calls = allocations = 0;
        fail_at = call;
        fail_allocation_at = allocation;
        failed.clear();
    }

    // No further failure; failed keeps saying what did.
    void disarm() { fail_at = fail_allocation_at = 0; }

    qlora_context_args options() {
        auto args = qlora::make<qlora_context_args>();
        args.allocate = allocate;
        args.release = release;
        args.inject_failure = inject;
        args.log = log;
        args.allocator_user = args.inject_user = args.log_user = this;
        return args;
    }

private:
    // The size stands before the block, so that release can check it.
    static void *allocate(void *user, size_t bytes, size_t alignment) {
        Accounting &own = *static_cast<Accounting *>(user);
        const std::lock_guard<std::mutex> held(own.lock);
        if (++own.allocations == own.fail_allocation_at) {
            own.failed = "allocate";
            return nullptr;
        }
        const size_t front = alignment < 64 ? 64 : alignment, whole = (front + bytes + front - 1) / front * front;
        char *memory = static_cast<char *>(std::aligned_alloc(front, whole));
        if (!memory) return nullptr;
        std::memset(memory, 0xa5, whole);
        std::memcpy(memory + front - sizeof(size_t), &bytes, sizeof bytes);
        std::memcpy(memory + front - 2 * sizeof(size_t), &front, sizeof front);
        own.bytes += bytes;
        own.blocks++;
        return memory + front;
    }
    static void release(void *user, void *memory, size_t bytes) {
        Accounting &own = *static_cast<Accounting *>(user);
        const std::lock_guard<std::mutex> held(own.lock);
        size_t taken, front;
        std::memcpy(&taken, static_cast<char *>(memory) - sizeof(size_t), sizeof taken);
        std::memcpy(&front, static_cast<char *>(memory) - 2 * sizeof(size_t), sizeof front);
        if (taken != bytes) own.wrong_release = true;
        own.bytes -= taken;
        own.blocks--;
        std::free(static_cast<char *>(memory) - front);
    }
    static int32_t inject(void *user, const char *call) {
        Accounting &own = *static_cast<Accounting *>(user);
        const std::lock_guard<std::mutex> held(own.lock);
        if (++own.calls != own.fail_at) return 0;
        own.failed = call;
        return 1;
    }
    static void log(void *user, const char *line) { static_cast<Accounting *>(user)->last_line = line; }
};

} // namespace test
