// Weights of codec BILEVEL on the host: their planes, the grids of a tile (nested_block rows of one group) and the rounding of one
// value, for quantize, quantize_spqr and the import of files. One f32 operation at a time; total over finite values.
#pragma once
#include "backends/backend.h"
#include "backends/search/affine.h"

#include <cstring>

namespace qlora {
namespace search {

#define QLORA_FUNCTION inline
#define QLORA_PRECISE const
#define QLORA_PRODUCT(a, b) ((a) * (b))
#include "backends/bilevel.inc"
#undef QLORA_PRECISE
#undef QLORA_PRODUCT
#undef QLORA_FUNCTION

struct BilevelRange { float low, high; }; // of a row's values in a group
struct BilevelGrid { float scale, zero; }; // value = scale * (code - zero)

// The least range that holds both; one of none is low > high.
constexpr BilevelRange no_range = {1, -1};
inline void widen(BilevelRange &range, float w) {
    if (range.low > range.high) range = {w, w};
    range.low = w < range.low ? w : range.low;
    range.high = w > range.high ? w : range.high;
}
// A range of one value reaches to zero.
inline BilevelRange proper(BilevelRange range) {
    if (range.low > range.high) range = {0, 0};
    if (range.low == range.high) (range.low > 0 ? range.low : range.high) = 0;
    return range;
}
inline float step_of(const BilevelRange &range, uint32_t bits) {
    const float levels = float((1 << bits) - 1);
    return range.high / levels - range.low / levels;
}
constexpr float least_step = 1e-9f; // magnitudes below it are divided by as if they were it
// The zero that puts the middle of a range on the middle code.
inline float zero_of(const BilevelRange &range, float scale, uint32_t bits) {
    const float middle = range.low / 2 + range.high / 2, step = std::fabs(scale) < least_step ? least_step : scale;
    const float zero = float((1 << bits) - 1) / 2 - middle / step;
    return zero > 65504.0f ? 65504.0f : zero < -65504.0f ? -65504.0f : zero;
}
inline int bilevel_code(float w, const BilevelGrid &grid, uint32_t bits) {
    const float step = std::fabs(grid.scale) < least_step ? least_step : grid.scale;
    return nearest(w / step + grid.zero, 0, (1 << bits) - 1);
}
inline float bilevel_value(int code, const BilevelGrid &grid) { return qlora_bilevel_value(grid.scale, grid.zero, uint(code)); }

inline uint16_t finite_half(float value) {
    const uint16_t half = half_of(value);
    return (half & 0x7fffu) > 0x7bffu ? uint16_t((half & 0x8000u) | 0x7bffu) : half;
}

struct BilevelPlanes {
    const qlora_weight &weight;
    const uint64_t groups;
    const uint32_t bits;
    uint8_t *codes, *scales, *zeros, *grids;
    explicit BilevelPlanes(const qlora_weight &weight)
        : weight(weight), groups(group_count(weight)), bits(format_row(weight.format)->bits), codes(address<uint8_t>(weight.planes[QLORA_PLANE_CODE])),
          scales(address<uint8_t>(weight.planes[QLORA_PLANE_SCALE])), zeros(address<uint8_t>(weight.planes[QLORA_PLANE_ZERO])),
          grids(address<uint8_t>(weight.planes[QLORA_PLANE_NESTED])) {}
    // Before anything is put: bits behind the last codes are zero, there is no outlier, columns are in their places.
    void begin() const {
        clear_stream_end(codes, element_count(weight), bits);
        clear_stream_end(scales, weight.rows * groups, statistic_bits);
        clear_stream_end(zeros, weight.rows * groups, statistic_bits);
        for (uint64_t c = 0; (weight.flags & QLORA_WEIGHT_INDEXED) && c < weight.cols; c++) address<int32_t>(weight.planes[QLORA_PLANE_INDEX])[c] = int32_t(c);
        if (weight.outliers == 0) return;
        std::memset(address<void>(weight.planes[QLORA_PLANE_OFFSET]), 0, size_t(weight.rows + 1) * 4);
        std::memset(address<void>(weight.planes[QLORA_PLANE_COLUMN]), 0, size_t(weight.outliers) * 4);
        std::memset(address<void>(weight.planes[QLORA_PLANE_OUTLIER]), 0, size_t(weight.outliers) * 2);
    }
    void put_code(uint64_t r, uint64_t c, int code) const { search::put_code(codes, r * weight.cols + c, bits, code); }

    // Fits and stores the grids of rows first .. first + count, which are one tile, in a group; then grids are what decoding gives.
    void put_tile(uint64_t first, uint64_t count, uint64_t group, const BilevelRange *ranges, BilevelGrid *of_rows) const {
        for (uint64_t i = 0; i < count; i++) of_rows[i].scale = step_of(ranges[i], bits);
        put_statistics(first, count, group, 0, scales, &of_rows[0].scale);
        for (uint64_t i = 0; i < count; i++) of_rows[i].zero = zero_of(ranges[i], of_rows[i].scale, bits);
        put_statistics(first, count, group, 1, zeros, &of_rows[0].zero);
    }
    BilevelGrid grid(uint64_t r, uint64_t group) const { return {statistic(r, group, 0, statistic_code(r, group, 0)), statistic(r, group, 1, statistic_code(r, group, 1))}; }
    // What the code at a place of a row stands for, without an outlier.
    float value(uint64_t r, uint64_t place) const { return bilevel_value(get_code(codes, r * weight.cols + place, bits), grid(r, place / weight.block)); }

    // which: 0 the scale of a row's group, 1 its zero; its code, and what a code stands for.
    int statistic_code(uint64_t r, uint64_t group, int which) const { return get_code(which ? zeros : scales, r * groups + group, statistic_bits); }
    void put_statistic_code(uint64_t r, uint64_t group, int which, int code) const { search::put_code(which ? zeros : scales, r * groups + group, statistic_bits, code); }
    float statistic(uint64_t r, uint64_t group, int which, int code) const {
        uint16_t unit, zero;
        std::memcpy(&unit, halves(r, group, which), 2);
        std::memcpy(&zero, halves(r, group, which + 2), 2);
        return qlora_bilevel_value(of_half(unit), of_half(zero), uint(code));
    }

private:
    uint8_t *halves(uint64_t r, uint64_t group, int which) const { return grids + (tile_grid(weight, r, group) * 4 + uint64_t(which)) * 2; }
    // x[2 i] for i < count: what scale or zero of row first + i should be, and then is.
    void put_statistics(uint64_t first, uint64_t count, uint64_t group, int which, uint8_t *stream, float *x) const {
        BilevelRange range = no_range;
        for (uint64_t i = 0; i < count; i++) widen(range, x[2 * i]);
        uint16_t unit = finite_half(step_of(range, statistic_bits)), zero = half_of(-range.low / of_half(unit));
        if ((unit & 0x7fffu) == 0 || (zero & 0x7fffu) > 0x7bffu) { // all but equal, for their size: code 1 is the middle
            unit = finite_half(range.low / 2 + range.high / 2);
            zero = 0;
        }
        const float step = of_half(unit), offset = of_half(zero);
        std::memcpy(halves(first, group, which), &unit, 2);
        std::memcpy(halves(first, group, which + 2), &zero, 2);
        for (uint64_t i = 0; i < count; i++) {
            const int code = nearest(x[2 * i] / step + offset, 0, (1 << statistic_bits) - 1); // 0 / 0 is code 0
            search::put_code(stream, (first + i) * groups + group, statistic_bits, code);
            x[2 * i] = qlora_bilevel_value(step, offset, uint(code));
        }
    }
};

// Rounds a tile to nearest, each group on its own. load(r, c, count) gives values of a row, good until it is asked again; ranges
// and grids have room for the rows.
template <class Load> void round_tile(const BilevelPlanes &planes, uint64_t first, uint64_t rows, BilevelRange *ranges, BilevelGrid *grids, const Load &load) {
    const uint64_t cols = planes.weight.cols, block = planes.weight.block;
    for (uint64_t begin = 0; begin < cols; begin += block) {
        const uint64_t count = begin + block < cols ? block : cols - begin;
        for (uint64_t i = 0; i < rows; i++) {
            const float *w = load(first + i, begin, count);
            ranges[i] = no_range;
            for (uint64_t c = 0; c < count; c++) widen(ranges[i], w[c]);
            ranges[i] = proper(ranges[i]);
        }
        planes.put_tile(first, rows, begin / block, ranges, grids);
        for (uint64_t i = 0; i < rows; i++) {
            const float *w = load(first + i, begin, count);
            for (uint64_t c = 0; c < count; c++) planes.put_code(first + i, begin + c, bilevel_code(w[c], grids[i], planes.bits));
        }
    }
}

} // namespace search
} // namespace qlora
