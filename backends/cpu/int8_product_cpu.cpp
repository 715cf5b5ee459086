// Blocked like gemm_cpu.cpp: all threads turn a step of both operands into panels, activations being quantized on the way,
// then all threads run the register tile. Sums are integers, so their order is of no matter; outlier columns follow as f32
// products of gathered columns, a chunk at a time in ascending order.
#include "backends/cpu/int8_product_cpu.h"
#include "backends/cpu/gemm_cpu.h"

#include <cmath>
#include <cstring>

namespace qlora {
namespace cpu {

namespace {

constexpr float int8_squared = 6.200012e-05f; // 1 / 127^2, as LLM.int8() writes it
constexpr uint64_t step_depth = 512;          // a multiple of every group; a panel of w stays in the first cache
constexpr uint64_t block_rows = 2016, block_cols = 2048;
constexpr uint64_t unit_rows = 84, unit_cols = 256; // multiples of the tile
constexpr uint64_t straight_cols = 512;
constexpr uint64_t few_rows = 8, few_cols = 16; // up to here dot products win over panels
constexpr uint64_t outlier_chunk = 256;

// Floats (words) from one panel to the next; see panel_floats of gemm_cpu.cpp.
uint64_t panel_words(uint64_t words, uint64_t width) { return words * width + 16; }

struct Pieces {
    uint64_t x, w, words, corrections, sums, gathered_x, gathered_w, product, bytes;
    Pieces(Context &context, const Int8Product &product_, bool outliers) {
        const Int8Kernels &kernels = *state_of(context).int8;
        const uint64_t m = least(product_.y.rows, block_rows), n = least(product_.y.cols, block_cols), chunk = least(product_.depth(), outlier_chunk);
        const uint64_t words_deep = divide_up(least(product_.depth(), step_depth), kernels.group);
        x = 0;
        // Fewer rows must not need more, so the way of few rows counts always.
        const uint64_t few = product_.turned ? least(m, few_rows) * row_words(kernels, product_.depth()) : 0;
        w = x + align_scratch(most(few, divide_up(m, kernels.tile_rows) * panel_words(words_deep, kernels.tile_rows)) * 4);
        words = w + align_scratch(divide_up(n, kernels.tile_cols) * panel_words(words_deep, kernels.tile_cols) * 4);
        corrections = words + align_scratch(own_words(kernels) * 4) * state_of(context).threads;
        sums = corrections + align_scratch(m * 4);
        gathered_x = sums + align_scratch(m * n * 4);
        gathered_w = gathered_x + (outliers ? align_scratch(m * chunk * 4) : 0);
        product = gathered_w + (outliers ? align_scratch(n * chunk * 4) : 0);
        bytes = product + (outliers ? product_scratch(context, chunk_product(nullptr, nullptr, nullptr, m, n, chunk, chunk)) : 0);
    }
    // Words of one worker: rows of a panel, or one row of a straight operand.
    static uint64_t own_words(const Int8Kernels &kernels) {
        return most(most(kernels.tile_rows, kernels.tile_cols) * (step_depth / kernels.group), straight_cols);
    }
    // Words of a whole row, to a multiple of 64 bytes.
    static uint64_t row_words(const Int8Kernels &kernels, uint64_t depth) { return divide_up(divide_up(depth, kernels.group), 16) * 16; }
    // sums[m][n] += x[m][chunk] w[n][chunk]^T
    static Product chunk_product(const float *x, const float *w, float *sums, uint64_t m, uint64_t n, uint64_t stride, uint64_t depth) {
        Product product = {m, n, {}, 0, QLORA_FORMAT_F32, sums, QLORA_FORMAT_F32, n, 1, nullptr, true};
        add_term(product, operand(x, stride, true), operand(w, stride, true), depth);
        return product;
    }
};

struct Work {
    Context &context;
    const Int8Product &product;
    const Pieces &pieces;
    char *scratch;
    uint64_t m, rows, n, cols; // the block of y
    const Kernels &kernels = kernels_of(context);
    const Int8Kernels &int8 = *state_of(context).int8;

    template <class T> T *piece(uint64_t place) const { return reinterpret_cast<T *>(scratch + place); }
    float *own(uint32_t worker) const { return piece<float>(pieces.words + worker * align_scratch(Pieces::own_words(int8) * 4)); }
    const int8_t *code(uint64_t r, uint64_t c) const { return address<const int8_t>(product.weight.planes[QLORA_PLANE_CODE]) + r * product.weight.cols + c; }

    // Codes of a row of activations at k .. k + depth.
    void quantize(uint64_t r, uint64_t k, uint64_t depth, int8_t *codes) const {
        const Int8Rows &source = product.rows;
        float x[step_depth];
        source.read(kernels, r, k, depth, x);
        uint64_t first = 0, end = source.outlier_count; // the first outlier from k on
        while (first < end) {
            const uint64_t middle = (first + end) / 2;
            if (source.outliers[middle] < k) first = middle + 1;
            else end = middle;
        }
        for (; first < source.outlier_count && source.outliers[first] < k + depth; first++) x[source.outliers[first] - k] = 0;
        kernels.encode_int8(x, int8_inverse(source.absmax[r]), depth, codes);
    }
    // Words of that, and what the sums get from the offset of w.
    void quantize_words(uint64_t i, uint64_t k, uint64_t depth, float *words) const {
        int8_t codes[step_depth];
        quantize(m + i, k, depth, codes);
        int8.words_x(codes, depth, words);
        int32_t sum = 0;
        for (uint64_t j = 0; j < depth; j++) sum += codes[j];
        int32_t &correction = piece<int32_t>(pieces.corrections)[i];
        correction = int32_t((k ? uint32_t(correction) : 0u) + uint32_t(sum) * uint32_t(int8.offset)); // wraps as the sums do
    }
    void pack_x(uint64_t unit, uint64_t k, uint64_t depth, float *words) const {
        const uint64_t deep = divide_up(depth, int8.group), begin = unit * int8.tile_rows, here = least(int8.tile_rows, rows - begin);
        for (uint64_t i = 0; i < here; i++) quantize_words(begin + i, k, depth, words + i * deep);
        std::memset(words + here * deep, 0, (int8.tile_rows - here) * deep * 4);
        int8.turn_x(words, deep, piece<float>(pieces.x) + unit * panel_words(deep, int8.tile_rows));
    }
    void pack_w(uint64_t unit, uint64_t k, uint64_t depth, float *words) const {
        const uint64_t deep = divide_up(depth, int8.group);
        if (product.turned) {
            const uint64_t begin = unit * int8.tile_cols, here = least(int8.tile_cols, cols - begin);
            for (uint64_t j = 0; j < here; j++) int8.words_w(code(n + begin + j, k), depth, words + j * deep);
            std::memset(words + here * deep, 0, (int8.tile_cols - here) * deep * 4);
            return kernels.pack_turned(words, deep, deep, int8.tile_cols, piece<float>(pieces.w) + unit * panel_words(deep, int8.tile_cols));
        }
        const uint64_t column = unit * straight_cols, here = least(straight_cols, cols - column);
        float *panel = piece<float>(pieces.w) + column / int8.tile_cols * panel_words(deep, int8.tile_cols);
        for (uint64_t i = 0; i < deep; i++) {
            const uint64_t row = i * int8.group;
            int8.weave_w(code(k + row, n + column), product.weight.cols, uint32_t(least(int8.group, depth - row)), here, words);
            kernels.pack_straight(words, here, int8.tile_cols, panel_words(deep, int8.tile_cols), panel + i * int8.tile_cols);
        }
    }

    void multiply_few() const {
        const uint64_t stride = Pieces::row_words(int8, product.depth());
        float *x = piece<float>(pieces.x);
        parallel(context, rows, [&](uint64_t i, uint32_t) {
            std::memset(x + i * stride, 0, stride * 4);
            for (uint64_t k = 0; k < product.depth(); k += step_depth) quantize_words(i, k, least(step_depth, product.depth() - k), x + i * stride + k / int8.group);
        });
        parallel(context, divide_up(cols, few_cols), [&](uint64_t unit, uint32_t) {
            for (uint64_t j = unit * few_cols; j < least((unit + 1) * few_cols, cols); j++) {
                int32_t sums[few_rows];
                int8.dots(code(n + j, 0), product.depth(), x, stride, uint32_t(rows), sums);
                for (uint64_t i = 0; i < rows; i++) piece<int32_t>(pieces.sums)[i * cols + j] = sums[i];
            }
        });
    }

    void multiply() const {
        if (product.turned && rows <= few_rows && product.depth() > 0) return multiply_few();
        int32_t *sums = piece<int32_t>(pieces.sums);
        const uint64_t x_units = divide_up(rows, int8.tile_rows), w_units = divide_up(cols, product.turned ? int8.tile_cols : straight_cols);
        const uint64_t units_m = divide_up(rows, unit_rows), units_n = divide_up(cols, unit_cols);
        for (uint64_t k = 0; k < product.depth(); k += step_depth) {
            const uint64_t depth = least(step_depth, product.depth() - k), deep = divide_up(depth, int8.group);
            parallel(context, w_units + x_units, [&](uint64_t unit, uint32_t worker) {
                unit < w_units ? pack_w(unit, k, depth, own(worker)) : pack_x(unit - w_units, k, depth, own(worker));
            });
            parallel(context, units_m * units_n, [&](uint64_t unit, uint32_t) {
                const uint64_t i0 = unit % units_m * unit_rows, j0 = unit / units_m * unit_cols;
                const uint64_t i_end = least(i0 + unit_rows, rows), j_end = least(j0 + unit_cols, cols);
                for (uint64_t j = j0; j < j_end; j += int8.tile_cols)
                    for (uint64_t i = i0; i < i_end; i += int8.tile_rows)
                        int8.multiply(deep, piece<float>(pieces.x) + i / int8.tile_rows * panel_words(deep, int8.tile_rows),
                                      piece<float>(pieces.w) + j / int8.tile_cols * panel_words(deep, int8.tile_cols), sums + i * cols + j, cols,
                                      uint32_t(least(int8.tile_rows, i_end - i)), uint32_t(least(int8.tile_cols, j_end - j)), k > 0);
            });
        }
        if (product.depth() == 0) std::memset(sums, 0, rows * cols * 4);
    }

    // sums += outlier columns, whose values and weights are rounded to the type of the activations
    void add_outliers(float *sums) const {
        const Int8Rows &source = product.rows;
        float *x = piece<float>(pieces.gathered_x), *w = piece<float>(pieces.gathered_w);
        const float *scales = address<const float>(product.weight.planes[QLORA_PLANE_SCALE]);
        for (uint64_t first = 0; first < source.outlier_count; first += outlier_chunk) {
            const uint64_t count = least(outlier_chunk, source.outlier_count - first);
            const uint32_t *columns = source.outliers + first;
            parallel(context, rows + cols, [&](uint64_t unit, uint32_t) {
                float *dst = unit < rows ? x + unit * count : w + (unit - rows) * count;
                if (unit < rows) {
                    for (uint64_t i = 0; i < count; i++) source.read(kernels, m + unit, columns[i], 1, dst + i);
                    return;
                }
                const uint64_t r = n + unit - rows;
                const float scale = scales[row_scale(product.weight, r)] * (1.0f / 127.0f);
                for (uint64_t i = 0; i < count; i++) dst[i] = float(*code(r, columns[i])) * scale;
                kernels.round[type_index(product.y.type)](dst, count);
            });
            multiply_product(context, Pieces::chunk_product(x, w, sums, rows, cols, count, count), scratch + pieces.product);
        }
    }

    // sums become floats where they lie, or go straight into y.
    void finish(bool outliers) const {
        const float *scales = address<const float>(product.weight.planes[QLORA_PLANE_SCALE]);
        int32_t *sums = piece<int32_t>(pieces.sums);
        const auto put = kernels.finish[type_index(product.y.type)];
        // f(i, j, count, sums as floats) over pieces of rows
        auto rows_of = [&](auto &&f) {
            parallel(context, rows, [&](uint64_t i, uint32_t) {
                for (uint64_t j = 0; j < cols; j += unit_cols) f(i, j, least(unit_cols, cols - j));
            });
        };
        auto to_y = [&](uint64_t i, uint64_t j, uint64_t count, const float *part) {
            put(part, 1, product.bias ? product.bias + n + j : nullptr, product.accumulate, count, element(product.y, m + i, n + j));
        };
        rows_of([&](uint64_t i, uint64_t j, uint64_t count) {
            float part[unit_cols];
            const float absmax = product.rows.absmax[m + i];
            const bool own = product.turned && !one_scale(product.weight);
            const float scale = own ? absmax : product.turned ? absmax * scales[0] * int8_squared : absmax * (1.0f / 127.0f);
            kernels.scale_sums(sums + i * cols + j, piece<const int32_t>(pieces.corrections)[i], scale, own ? scales + n + j : nullptr, int8_squared, count, part);
            if (outliers) std::memcpy(sums + i * cols + j, part, count * 4);
            else to_y(i, j, count, part);
        });
        if (!outliers) return;
        float *values = piece<float>(pieces.sums);
        add_outliers(values);
        rows_of([&](uint64_t i, uint64_t j, uint64_t count) { to_y(i, j, count, values + i * cols + j); });
    }
};

} // namespace

uint64_t int8_product_scratch(Context &context, const Int8Product &product, bool outliers) { return Pieces(context, product, outliers).bytes; }

void multiply_int8_product(Context &context, const Int8Product &product, bool outliers, void *scratch) {
    const Pieces pieces(context, product, outliers);
    if (product.depth() == 0) std::memset(static_cast<char *>(scratch) + pieces.corrections, 0, least(product.y.rows, block_rows) * 4);
    for (uint64_t m = 0; m < product.y.rows; m += block_rows)
        for (uint64_t n = 0; n < product.y.cols; n += block_cols) {
            const Work work = {context, product, pieces, static_cast<char *>(scratch), m, least(block_rows, product.y.rows - m), n, least(block_cols, product.y.cols - n)};
            work.multiply();
            work.finish(product.rows.outlier_count > 0);
        }
}

} // namespace cpu
} // namespace qlora
