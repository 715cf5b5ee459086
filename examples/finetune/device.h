// The device of a run: one qlora context, one scratch buffer that is large enough for every operation, and an arena for
// everything else, both sized before the first step. Operations go through run(), which can also just measure.
#pragma once

#include "cpp/qlora.hpp"
#include "error.h"

#include <functional>
#include <string>
#include <vector>

namespace finetune {

class Device {
public:
    // "ref", "cpu", "cuda[:N]", "vulkan[:N]", or "auto": the first GPU that works, else the CPU.
    explicit Device(const std::string &name, uint32_t threads);

    const qlora::Context &context() const { return context_; }
    const std::string &name() const { return name_; }

    // Enqueues an operation, or, while measuring, asks how much scratch it would need.
    template <class Args> void run(uint32_t operation, int32_t (*call)(qlora_context *, const Args *), Args &args) {
        if (measuring_) {
            needed_ = std::max(needed_, context_.operation_scratch(operation, args));
            return;
        }
        args.scratch = scratch_.span();
        context_.check(call(context_.get(), &args));
    }

    // Quantizes, whatever scratch it needs. A NaN or an infinity in the values is an Error on every device.
    void quantize(qlora_quantize_args &args);

    // Runs `work` for its questions only, then makes the scratch buffer large enough for all of it.
    void measure(const std::function<void()> &work);

    // Copies and transfers; nothing happens while measuring.
    void copy(qlora_span dst, qlora_span src, uint64_t bytes);
    void fill_zero(qlora_span dst, uint64_t bytes);
    void write(qlora_span dst, const void *host, uint64_t bytes);
    void read(qlora_span src, void *host, uint64_t bytes);

    uint64_t scratch_bytes() const { return scratch_.size(); }

private:
    qlora::Context context_;
    std::string name_;
    qlora::Buffer scratch_;
    uint64_t needed_ = 0;
    bool measuring_ = false;
};

// Places for many spans in one allocation. Spans are handed out twice by the same code: the first pass counts, then
// commit() allocates, and the second pass gives real places.
class Arena {
public:
    qlora_span take(uint64_t bytes);
    void commit(const Device &device);
    uint64_t bytes() const { return total_; }

private:
    qlora::Buffer memory_;
    uint64_t next_ = 0, total_ = 0;
    bool committed_ = false;
};

inline uint32_t type_bytes(int32_t type) { return type == QLORA_FORMAT_F32 ? 4 : 2; }

// Part of a span; an absent one stays absent.
inline qlora_span part(qlora_span span, uint64_t offset, uint64_t bytes) {
    return span.handle == 0 ? span : qlora_span{span.handle, span.offset + offset, bytes};
}

} // namespace finetune
