// What every implementation of quantize_spqr decides alike: the order of columns, what counts as an outlier, which values a range
// leaves out; and the list of outliers, in whatever order they are found, that becomes sparse planes.
#pragma once
#include "backends/search/bilevel.h"
#include "backends/search/gptq.h"

#include <atomic>
#include <limits>

namespace qlora {
namespace search {

// Groups by falling largest diagonal, columns so within a group; equal ones keep their order, and dead columns count 0. room holds
// a group each.
inline void order_groups(const double *diagonal, uint64_t stride, const uint8_t *dead, uint64_t cols, uint64_t block, uint32_t *order, uint32_t *room) {
    const uint64_t groups = (cols + block - 1) / block;
    const auto before = [=](uint32_t a, uint32_t b) {
        const double x = dead[a] ? 0 : diagonal[a * stride], y = dead[b] ? 0 : diagonal[b * stride];
        return x > y || (x == y && a < b);
    };
    const auto largest = [=](uint32_t group) {
        const uint64_t begin = group * block, end = begin + block < cols ? begin + block : cols;
        uint32_t best = uint32_t(begin);
        for (uint64_t c = begin + 1; c < end; c++)
            if (before(uint32_t(c), best)) best = uint32_t(c);
        return best;
    };
    for (uint64_t g = 0; g < groups; g++) room[g] = largest(uint32_t(g));
    std::sort(room, room + groups, before);
    for (uint64_t g = 0, i = 0; g < groups; g++) {
        const uint64_t begin = room[g] / block * block, end = begin + block < cols ? begin + block : cols, first = i;
        for (uint64_t c = begin; c < end; c++) order[i++] = uint32_t(c);
        std::sort(order + first, order + i, before);
    }
}

// Unbiased variance of column c over rows of get(r).
template <class Get> double variance(uint64_t rows, const Get &get) {
    double mean = 0, sum = 0;
    for (uint64_t r = 0; r < rows; r++) mean += double(get(r)) / double(rows);
    for (uint64_t r = 0; r < rows; r++) sum += (double(get(r)) - mean) * (double(get(r)) - mean);
    return rows > 1 ? sum / double(rows - 1) : 0;
}

// A group of a row as it comes to be quantized: count values, with the U of their columns and which of these are dead.
struct GroupValues {
    const double *w, *u;
    uint64_t u_stride, count;
    const uint32_t *columns;
    const uint8_t *dead; // by column
    double error(uint64_t i, const BilevelGrid &grid, uint32_t bits) const {
        if (dead[columns[i]]) return 0;
        const double e = (double(bilevel_value(bilevel_code(float(w[i]), grid, bits), grid)) - w[i]) / u[i * u_stride];
        return e * e;
    }
    // The grid and the error of all values but one.
    BilevelGrid grid(uint64_t without, uint32_t bits) const {
        BilevelRange range = no_range;
        for (uint64_t i = 0; i < count; i++)
            if (i != without) widen(range, float(w[i]));
        range = proper(range);
        const float scale = step_of(range, bits);
        return {scale, zero_of(range, scale, bits)};
    }
    double error_without(uint64_t without, uint32_t bits) const {
        const BilevelGrid own = grid(without, bits);
        double sum = 0;
        for (uint64_t i = 0; i < count; i++)
            if (i != without) sum += error(i, own, bits);
        return sum;
    }
};

// The range of a group, without the values whose absence lowers the error by more than limit (infinite: with all): their own
// error, and where they are the least or the largest, what the others gain by a finer grid.
inline BilevelRange fit_range(const GroupValues &group, uint32_t bits, double limit) {
    BilevelRange all = no_range, range = no_range;
    for (uint64_t i = 0; i < group.count; i++) widen(all, float(group.w[i]));
    if (!(limit < std::numeric_limits<double>::infinity()) || group.count < 2) return proper(all);
    const BilevelGrid grid = group.grid(group.count, bits);
    const double error = group.error_without(group.count, bits);
    for (uint64_t i = 0; i < group.count; i++) {
        const float w = float(group.w[i]);
        const double gain = w == all.low || w == all.high ? error - group.error_without(i, bits) : group.error(i, grid, bits);
        if (group.dead[group.columns[i]] || !(gain > limit)) widen(range, w);
    }
    return proper(range.low > range.high ? all : range);
}

// SEARCH: codes of the scale and the zero of a row, at most 2 from the nearest, that leave the least error; a value's counts up to
// limit, beyond which it is an outlier.
inline void search_codes(const BilevelPlanes &planes, uint64_t r, uint64_t number, const GroupValues &group, double limit, BilevelGrid &grid) {
    constexpr int reach = 2, top = (1 << statistic_bits) - 1;
    const int scale_code = planes.statistic_code(r, number, 0), zero_code = planes.statistic_code(r, number, 1);
    int best_scale = scale_code, best_zero = zero_code;
    double least = std::numeric_limits<double>::infinity();
    for (int i = 0; i <= 2 * reach; i++)
        for (int j = 0; j <= 2 * reach; j++) { // the nearest first: 0, 1, -1, 2, -2
            const int s = scale_code + (i % 2 ? (i + 1) / 2 : -i / 2), z = zero_code + (j % 2 ? (j + 1) / 2 : -j / 2);
            if (s < 0 || s > top || z < 0 || z > top) continue;
            const BilevelGrid trial = {planes.statistic(r, number, 0, s), planes.statistic(r, number, 1, z)};
            double sum = 0;
            for (uint64_t k = 0; k < group.count && sum < least; k++) {
                const double error = group.error(k, trial, planes.bits);
                sum += error < limit ? error : limit;
            }
            if (sum < least) { least = sum; best_scale = s; best_zero = z; grid = trial; }
        }
    planes.put_statistic_code(r, number, 0, best_scale);
    planes.put_statistic_code(r, number, 1, best_zero);
}

struct Outlier {
    uint32_t row, column;
    uint16_t value;
};

// Found by any thread in any order; those beyond the capacity are counted only.
struct Outliers {
    Outlier *list;
    const uint64_t capacity;
    std::atomic<uint64_t> found;
    Outliers(Outlier *list, uint64_t capacity) : list(list), capacity(capacity), found(0) {}
    void add(uint64_t r, uint64_t column, uint16_t value) {
        const uint64_t i = found.fetch_add(1, std::memory_order_relaxed);
        if (i < capacity) list[i] = Outlier{uint32_t(r), uint32_t(column), value};
    }
    // Into planes that BilevelPlanes::begin cleared.
    void store(const qlora_weight &weight) {
        const uint64_t count = found.load();
        if (weight.outliers == 0) return;
        std::sort(list, list + count, [](const Outlier &a, const Outlier &b) { return a.row != b.row ? a.row < b.row : a.column < b.column; });
        uint32_t *offsets = address<uint32_t>(weight.planes[QLORA_PLANE_OFFSET]), *columns = address<uint32_t>(weight.planes[QLORA_PLANE_COLUMN]);
        uint64_t i = 0;
        for (uint64_t r = 0; r <= weight.rows; r++) {
            while (i < count && list[i].row < r) i++;
            offsets[r] = uint32_t(i);
        }
        for (i = 0; i < count; i++) {
            columns[i] = list[i].column;
            std::memcpy(address<char>(weight.planes[QLORA_PLANE_OUTLIER]) + i * 2, &list[i].value, 2);
        }
    }
};

// A value on its grid, and what is added to that where the error is beyond limit (infinite: never; dead columns: give that).
struct Rounded {
    int code;
    bool is_outlier;
    uint16_t outlier;
    float value; // as decoding gives it
};
inline Rounded round_value(double w, double u, const BilevelGrid &grid, uint32_t bits, double limit) {
    Rounded rounded = {bilevel_code(float(w), grid, bits), false, 0, 0};
    rounded.value = bilevel_value(rounded.code, grid);
    const double lack = w - double(rounded.value), e = lack / u;
    if (!(e * e > limit)) return rounded;
    rounded.is_outlier = true;
    rounded.outlier = finite_half(float(lack));
    rounded.value = rounded.value + of_half(rounded.outlier);
    return rounded;
}

// ERROR_SHAPE when a weight has less room than outliers were found.
inline int32_t refuse_too_many(Context &context, const qlora_weight &weight, uint64_t found) {
    if (found <= weight.outliers) return QLORA_OK;
    return context.fail(QLORA_ERROR_SHAPE, "qlora_weight_quantize_spqr: weight: there are %llu outliers, and outliers says room for %llu; give it room for that many",
                        (unsigned long long)found, (unsigned long long)weight.outliers);
}

} // namespace search
} // namespace qlora
