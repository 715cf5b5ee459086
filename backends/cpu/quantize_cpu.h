// What the encoders of quantize share: pieces of src in f32, and the first value that is not finite.
#pragma once
#include "backends/cpu/cpu.h"

#include <atomic>

namespace qlora {
namespace cpu {

constexpr uint64_t unit_elements = 4096; // per task; a multiple of every block up to its size

// dst[count] = elements first.. of src, flattened
inline void load_elements(Context &context, const qlora_quantize_args &args, uint64_t first, uint64_t count, float *dst) {
    const auto load = kernels_of(context).load[type_index(args.src.type)];
    for (uint64_t i = 0; i < count;) {
        const uint64_t r = (first + i) / args.src.cols, c = (first + i) % args.src.cols, run = least(args.src.cols - c, count - i);
        load(element(args.src, r, c), run, dst + i);
        i += run;
    }
}

// The smallest index of a value that is not finite, whichever thread meets it. (Of activations as well: int8_matmul_cpu.cpp.)
struct FirstBad {
    const uint64_t none;
    std::atomic<uint64_t> index;
    explicit FirstBad(uint64_t count) : none(count), index(count) {}

    // For a piece of count elements from first on in which place is the first bad one, or count.
    bool found(uint64_t place, uint64_t count, uint64_t first) {
        if (place >= count) return false;
        uint64_t known = index.load(std::memory_order_relaxed);
        while (first + place < known && !index.compare_exchange_weak(known, first + place, std::memory_order_relaxed)) {}
        return true;
    }
    int32_t status(Context &context, const qlora_weight &weight) const {
        const uint64_t i = index.load();
        if (i == none) return QLORA_OK;
        return context.fail(QLORA_ERROR_VALUE, "qlora_weight_quantize: src element %llu (row %llu, column %llu) is NaN or infinite; clean the tensor first",
                            (unsigned long long)i, (unsigned long long)(i / weight.cols), (unsigned long long)(i % weight.cols));
    }
};

// search_cpu.cpp: formats, and Q4_0 with importance, that backends/search encodes.
bool is_searched(const qlora_quantize_args &args);
int32_t quantize_searched(Context &context, const qlora_quantize_args &args);
// narrow_cpu.cpp: small floats. scratch: a float per unit where a block is longer than a unit.
uint64_t narrow_scratch(const qlora_weight &weight);
int32_t quantize_narrow(Context &context, const qlora_quantize_args &args);

// quantize_int8_cpu.cpp: signed bytes. scratch: a float per row where one scale is for all.
uint64_t int8_scratch(const qlora_weight &weight);
int32_t quantize_int8(Context &context, const qlora_quantize_args &args);

} // namespace cpu
} // namespace qlora
