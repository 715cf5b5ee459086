// What the encoders of quantize share: pieces of src in f32, and the first value that is not finite.
#pragma once
#include "backends/cpu/cpu.h"
#include "backends/search/bilevel.h"

#include <atomic>
#include <cstring>

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

// Groups of a weight of codec AFFINE: where a row and group's scale and zero lie, and codes.
struct AffinePlanes {
    const qlora_weight &weight;
    const uint64_t groups;
    const uint32_t bits;
    uint8_t *codes, *zeros, *scales;
    explicit AffinePlanes(const qlora_weight &weight)
        : weight(weight), groups(group_count(weight)), bits(format_row(weight.format)->bits), codes(address<uint8_t>(weight.planes[QLORA_PLANE_CODE])),
          zeros(address<uint8_t>(weight.planes[QLORA_PLANE_ZERO])), scales(address<uint8_t>(weight.planes[QLORA_PLANE_SCALE])) {}
    // Before anything is put; the bits behind the last code are zero.
    void begin() const {
        search::clear_stream_end(codes, element_count(weight), bits);
        search::clear_stream_end(zeros, weight.rows * groups, bits);
    }
    void put_grid(uint64_t r, uint64_t group, const search::AffineGrid &grid) const {
        const uint64_t at = r * groups + group;
        std::memcpy(scales + at * 2, &grid.half, 2);
        search::put_code(zeros, at, bits, grid.zero);
    }
    search::AffineGrid grid(uint64_t r, uint64_t group) const {
        const uint64_t at = r * groups + group;
        uint16_t half;
        std::memcpy(&half, scales + at * 2, 2);
        return {search::of_half(half), half, search::get_code(zeros, at, bits)};
    }
    void put_code(uint64_t r, uint64_t c, int code) const { search::put_code(codes, r * weight.cols + c, bits, code); }
};

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
    int32_t status(Context &context, const qlora_weight &weight, const char *entry = "qlora_weight_quantize") const {
        const uint64_t i = index.load();
        if (i == none) return QLORA_OK;
        return context.fail(QLORA_ERROR_VALUE, "%s: src element %llu (row %llu, column %llu) is NaN or infinite; clean the tensor first", entry,
                            (unsigned long long)i, (unsigned long long)(i / weight.cols), (unsigned long long)(i % weight.cols));
    }
};

// search_cpu.cpp: formats, and Q4_0 with importance, that backends/search encodes.
bool is_searched(const qlora_quantize_args &args);
int32_t quantize_searched(Context &context, const qlora_quantize_args &args);
// narrow_cpu.cpp: small floats. scratch: a float per unit where a block is longer than a unit.
uint64_t narrow_scratch(const qlora_weight &weight);
int32_t quantize_narrow(Context &context, const qlora_quantize_args &args);
// affine_cpu.cpp: GPTQ formats, rounded to nearest. scratch: a row per worker.
// One row w[cols], each group on its own; an index plane that says what is so without one.
void encode_affine_row(const AffinePlanes &planes, uint64_t r, const float *w, bool symmetric, bool search);
void straight_index(const qlora_weight &weight);
uint64_t affine_scratch(Context &context, const qlora_weight &weight);
int32_t quantize_affine(Context &context, const qlora_quantize_args &args);
// bilevel_cpu.cpp: SpQR formats, rounded to nearest. scratch: a row and the grids of a tile per worker.
uint64_t bilevel_scratch(Context &context, const qlora_weight &weight);
int32_t quantize_bilevel(Context &context, const qlora_quantize_args &args);
// Rows of a tile, and of a task: whole tiles that share no byte of a stream with others.
inline uint64_t rows_of_tile(const qlora_weight &weight) { return least(weight.nested_block, weight.rows); }
uint64_t rows_of_task(const qlora_weight &weight);
// Rows per task where streams of codes are written: tasks then share no byte.
constexpr uint64_t stream_rows = 8;

// quantize_int8_cpu.cpp: signed bytes. scratch: a float per row where one scale is for all.
uint64_t int8_scratch(const qlora_weight &weight);
int32_t quantize_int8(Context &context, const qlora_quantize_args &args);

} // namespace cpu
} // namespace qlora
