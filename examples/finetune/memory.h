// Memory of a device in one arena, or where a driver bounds allocations, a few. Everything is taken from it twice, by the
// same code: once while planning, when places are only counted, and once for real. So a plan is what will be used.
#pragma once

#include "cpp/qlora.hpp"
#include "error.h"

#include <string>
#include <utility>
#include <vector>

namespace finetune {

class MemoryPool;

// Memory on the device, or host memory that the device copies from and to: a part of a pool, or a buffer of its own. While
// planning its span has a size and an address that nothing may touch.
class Memory {
public:
    Memory() = default;
    explicit Memory(qlora_span part, uint8_t *host = nullptr) : span_(part), host_(host) {}
    explicit Memory(qlora::Buffer own) : own_(std::move(own)), span_(own_.span()), host_(static_cast<uint8_t *>(own_.host())) {}

    qlora_span span() const { return span_; }
    qlora_span span(uint64_t offset, uint64_t bytes) const { return {span_.handle, span_.offset + offset, bytes}; }
    uint64_t size() const { return span_.size; }
    uint8_t *host() const { return host_; } // where the host finds host memory

private:
    qlora::Buffer own_;
    qlora_span span_ = {};
    uint8_t *host_ = nullptr;
};

// Bytes by what they are for, in the order of their first mention.
using MemoryTally = std::vector<std::pair<std::string, uint64_t>>;
void add_to(MemoryTally &tally, const std::string &name, uint64_t bytes);

class MemoryPool {
public:
    // Places are counted from here on. Blocks hold at most `largest` bytes unless one part needs more; 0: no bound.
    void plan(bool host, uint64_t largest);
    // Allocates what was counted; the same parts may then be taken again, in the same order.
    void commit(const qlora::Context &context);

    qlora_span take(uint64_t bytes);
    // What is taken after a rewind shares places with what was taken since the mark.
    struct Mark {
        size_t block;
        uint64_t offset;
        bool operator<(const Mark &other) const {
            return block != other.block ? block < other.block : offset < other.offset;
        }
    };
    Mark mark() const { return at_; }
    void rewind(Mark mark) { at_ = mark; }

    // Where the host finds a part of host memory; null while planning.
    uint8_t *host_address(const qlora_span &part) const;

    bool active() const { return active_; }
    uint64_t planned() const; // bytes of all blocks
    uint64_t used() const;    // the most that was in use in a pass for real

private:
    bool active_ = false, host_ = false, committed_ = false;
    uint64_t largest_ = 0;
    Mark at_ = {0, 0};
    std::vector<uint64_t> sizes_, reached_; // of each block
    std::vector<qlora::Buffer> blocks_;
};

// "6G", "512MiB", "4.5GB": K, M and G (also KiB, ...) are powers of 1024, KB, MB and GB of 1000. Throws for others.
uint64_t parse_bytes(const std::string &option, const std::string &text);

} // namespace finetune
