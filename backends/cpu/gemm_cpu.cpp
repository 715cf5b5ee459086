// Blocked products. For a block of rows and of columns of y, and step by step along the depth: all threads decode and
// pack both operands into panels, then all threads run the register tile over them. Every element of y is summed in the
// same order whatever the threads: along the depth in steps of step_depth, term after term.
#include "backends/cpu/gemm_cpu.h"

#include <cstring>

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t step_depth = 512;  // packed at a time
constexpr uint64_t tile_depth = 256;  // multiplied at a time: a panel of w, [tile_depth][tile_cols], stays in the first cache
constexpr uint64_t block_rows = 2016; // a multiple of every tile_rows; bounds the scratch
constexpr uint64_t block_cols = 2048;
constexpr uint64_t unit_rows = 84, unit_cols = 256; // of y per task; multiples of the tile
constexpr uint64_t few_rows = 8;                    // up to here dot products win over panels
constexpr uint64_t dot_depth = 1024, dot_cols = 16; // of w per task and per decoded piece
constexpr uint64_t straight_depth = 128, straight_cols = 512; // of a straight operand per task
constexpr uint64_t ahead = 8;                       // rows between a prefetch and its use

// Floats from one panel to the next: a cache line more than its own, so that the same row of all panels does not fall
// into the same few cache sets.
uint64_t panel_floats(uint64_t depth, uint64_t width) { return depth * width + 16; }

// What decoding an operand needs, found once per product.
struct Source {
    const Operand &operand;
    Planes planes;
    void (*decode)(const Planes &, uint64_t, uint64_t, float *);
    void (*load)(const void *, uint64_t, float *);
    void (*round)(float *, uint64_t);
    float factor;

    Source(const Kernels &kernels, const Operand &operand, int32_t compute_type, float factor) : operand(operand), planes(), decode(nullptr), load(nullptr), round(nullptr), factor(factor) {
        if (operand.weight) {
            planes = planes_of(*operand.weight);
            decode = kernels.decode[format_index(operand.weight->format)];
        } else {
            load = kernels.load[type_index(operand.type)];
        }
        const int32_t stored = operand.weight ? operand.weight->format : operand.type;
        if (compute_type != QLORA_FORMAT_F32 && (compute_type != stored || factor != 1)) round = kernels.round[type_index(compute_type)];
    }
    // dst[count] = elements (r, c..) in the compute type
    void read(uint64_t r, uint64_t c, uint64_t count, float *dst) const {
        if (decode) decode(planes, r * operand.weight->cols + c, count, dst);
        else load(static_cast<const char *>(operand.data) + (r * operand.stride + c) * type_bytes(operand.type), count, dst);
        if (factor != 1)
            for (uint64_t i = 0; i < count; i++) dst[i] *= factor;
        if (round) round(dst, count);
    }
    // Asks for what read(r, c, count) will read.
    void expect(uint64_t r, uint64_t c, uint64_t count) const {
        if (!operand.weight) return;
        const FormatRow &row = *format_row(operand.weight->format);
        const uint64_t first = r * operand.weight->cols + c, block = first >> planes.block_bits;
        const uint64_t begin = row.block_bytes ? block * row.block_bytes : first * row.bits / 8, end = begin + count * row.bits / 8;
        for (uint64_t i = begin; i <= end; i += 64) prefetch(planes.code + i);
        if (row.scale == Scale::F32) prefetch(static_cast<const float *>(planes.scale) + block);
        if (row.scale == Scale::NESTED) prefetch(static_cast<const uint8_t *>(planes.scale) + block);
    }
};

// Packs rows (or columns) first .. first + count of an operand at depth k .. k + depth into panels [depth][width].
// One unit of work is one panel of a turned operand, or straight_depth rows and straight_cols
// columns of a straight one.
struct Packing {
    const Kernels &kernels;
    const Source &source;
    uint64_t first, count, k, depth;
    uint32_t width;
    float *panels;

    uint64_t span() const { return straight_cols / width * width; }
    uint64_t units() const { return source.operand.turned ? divide_up(count, width) : divide_up(depth, straight_depth) * divide_up(count, span()); }
    // Rows lie far apart, and the machine does not guess where the next begins: read is told ahead.
    void run(uint64_t unit, float *rows) const {
        if (source.operand.turned) {
            const uint64_t begin = first + unit * width, here = least(width, first + count - begin);
            for (uint64_t r = 0; r < here; r++) {
                if (begin + r + ahead < first + count) source.expect(begin + r + ahead, k, depth);
                source.read(begin + r, k, depth, rows + r * depth);
            }
            if (here < width) std::memset(rows + here * depth, 0, (width - here) * depth * sizeof(float));
            kernels.pack_turned(rows, depth, depth, width, panels + unit * panel_floats(depth, width));
            return;
        }
        const uint64_t pieces = divide_up(count, span()), column = unit % pieces * span(), here = least(span(), count - column);
        const uint64_t begin = unit / pieces * straight_depth, end = least(begin + straight_depth, depth);
        float *panel = panels + column / width * panel_floats(depth, width);
        for (uint64_t i = begin; i < end; i++) {
            if (i + ahead < end) source.expect(k + i + ahead, first + column, here);
            source.read(k + i, first + column, here, rows);
            kernels.pack_straight(rows, here, width, panel_floats(depth, width), panel + i * width);
        }
    }
};

uint64_t depth_of(const Product &product) {
    uint64_t depth = 0;
    for (int t = 0; t < product.term_count; t++) depth += product.terms[t].depth;
    return depth;
}

// In f32 without factor y is its own sum.
bool is_direct(const Product &product) { return product.type == QLORA_FORMAT_F32 && product.factor == 1; }

// Whether the operands lie right for dot products.
bool is_turned(const Product &product) {
    bool turned = true;
    for (int t = 0; t < product.term_count; t++) turned = turned && product.terms[t].x.turned && product.terms[t].w.turned;
    return turned;
}

// Decoded rows of one worker: a panel's, or a piece of one straight row.
uint64_t rows_floats(const Kernels &kernels, const Product &product) {
    return align_scratch(most(most(kernels.tile_cols, kernels.tile_rows) * least(depth_of(product), step_depth), straight_cols));
}

// Pieces of scratch.
struct Pieces {
    uint64_t x, w, rows, sum, bytes;
    Pieces(const Kernels &kernels, uint32_t threads, const Product &product) {
        const uint64_t block_m = least(product.rows, block_rows), block_n = least(product.cols, block_cols), step = least(depth_of(product), step_depth);
        x = 0;
        w = x + align_scratch(divide_up(block_m, kernels.tile_rows) * panel_floats(step, kernels.tile_rows) * 4);
        rows = w + align_scratch(divide_up(block_n, kernels.tile_cols) * panel_floats(step, kernels.tile_cols) * 4);
        sum = rows + rows_floats(kernels, product) * 4 * threads;
        bytes = sum + (is_direct(product) ? 0 : align_scratch(block_m * block_n * 4));
    }
};

char *y_at(const Product &product, uint64_t r, uint64_t c) {
    return static_cast<char *>(product.y) + (r * product.stride + c) * type_bytes(product.type);
}

void finish_row(const Kernels &kernels, const Product &product, const float *sum, uint64_t r, uint64_t c, uint64_t count) {
    char *y = y_at(product, r, c);
    const bool accumulate = product.accumulate && static_cast<const void *>(sum) != y;
    kernels.finish[type_index(product.type)](sum, product.factor, product.bias ? product.bias + c : nullptr, accumulate, count, y);
}

// Rows first .. first + rows of one block of columns.
struct Block {
    uint64_t m, rows, n, cols;
};

void multiply_block(Context &context, const Product &product, const Source *x_source, const Source *w_source, const Block &block, char *scratch, const Pieces &pieces) {
    const Kernels &kernels = kernels_of(context);
    float *x = reinterpret_cast<float *>(scratch + pieces.x), *w = reinterpret_cast<float *>(scratch + pieces.w);
    float *rows = reinterpret_cast<float *>(scratch + pieces.rows), *sum = reinterpret_cast<float *>(scratch + pieces.sum);
    const bool direct = is_direct(product);
    float *c = direct ? reinterpret_cast<float *>(y_at(product, block.m, block.n)) : sum;
    const uint64_t stride = direct ? product.stride : block.cols;
    const uint64_t units_m = divide_up(block.rows, unit_rows), units_n = divide_up(block.cols, unit_cols);
    bool started = direct && product.accumulate;
    for (int t = 0; t < product.term_count; t++)
        for (uint64_t k = 0; k < product.terms[t].depth; k += step_depth) {
            const uint64_t depth = least(step_depth, product.terms[t].depth - k);
            const bool last = (!direct || product.bias) && t == product.term_count - 1 && k + depth == product.terms[t].depth;
            const Packing pack_x = {kernels, x_source[t], block.m, block.rows, k, depth, kernels.tile_rows, x};
            const Packing pack_w = {kernels, w_source[t], block.n, block.cols, k, depth, kernels.tile_cols, w};
            const uint64_t w_units = pack_w.units();
            parallel(context, w_units + pack_x.units(), [&](uint64_t unit, uint32_t worker) {
                float *own = rows + worker * rows_floats(kernels, product);
                unit < w_units ? pack_w.run(unit, own) : pack_x.run(unit - w_units, own);
            });
            parallel(context, units_m * units_n, [&](uint64_t unit, uint32_t) {
                const uint64_t m = unit % units_m * unit_rows, n = unit / units_m * unit_cols;
                const uint64_t m_end = least(m + unit_rows, block.rows), n_end = least(n + unit_cols, block.cols);
                for (uint64_t d = 0; d < depth; d += tile_depth)
                    for (uint64_t j = n; j < n_end; j += kernels.tile_cols)
                        for (uint64_t i = m; i < m_end; i += kernels.tile_rows) {
                            const float *x_panel = x + i / kernels.tile_rows * panel_floats(depth, kernels.tile_rows), *w_panel = w + j / kernels.tile_cols * panel_floats(depth, kernels.tile_cols);
                            kernels.multiply(least(tile_depth, depth - d), x_panel + d * kernels.tile_rows, w_panel + d * kernels.tile_cols, c + i * stride + j, stride,
                                             uint32_t(least(kernels.tile_rows, m_end - i)), uint32_t(least(kernels.tile_cols, n_end - j)), started || d > 0);
                        }
                if (last)
                    for (uint64_t i = m; i < m_end; i++) finish_row(kernels, product, c + i * stride + n, block.m + i, block.n + n, n_end - n);
            });
            started = true;
        }
}

// A product without depth: y = bias + (accumulate ? y : 0).
void finish_empty(Context &context, const Product &product) {
    const Kernels &kernels = kernels_of(context);
    const float zeros[256] = {};
    for (uint64_t r = 0; r < product.rows; r++)
        for (uint64_t c = 0; c < product.cols; c += 256) finish_row(kernels, product, zeros, r, c, least(256, product.cols - c));
}

// Few rows: every row of w is decoded into the first cache and dotted with each row of x.
void multiply_few(Context &context, const Product &product, const Source *x_source, const Source *w_source, float *x) {
    const Kernels &kernels = kernels_of(context);
    uint64_t offset[3] = {0, 0, 0};
    for (int t = 0; t < product.term_count; t++) {
        const uint64_t depth = product.terms[t].depth;
        for (uint64_t r = 0; r < product.rows; r++) x_source[t].read(r, 0, depth, x + offset[t] + r * depth);
        offset[t + 1] = offset[t] + product.rows * depth;
    }
    parallel(context, divide_up(product.cols, dot_cols), [&](uint64_t unit, uint32_t) {
        const uint64_t n = unit * dot_cols, cols = least(dot_cols, product.cols - n);
        float sums[dot_cols][few_rows] = {}, row[dot_depth], turned[few_rows][dot_cols];
        for (uint64_t j = 0; j < cols; j++)
            for (int t = 0; t < product.term_count; t++) {
                const uint64_t depth = product.terms[t].depth;
                for (uint64_t k = 0; k < depth; k += dot_depth) {
                    const uint64_t here = least(dot_depth, depth - k);
                    w_source[t].read(n + j, k, here, row);
                    kernels.dots(row, x + offset[t] + k, depth, uint32_t(product.rows), here, sums[j]);
                }
            }
        for (uint64_t j = 0; j < cols; j++)
            for (uint64_t r = 0; r < product.rows; r++) turned[r][j] = sums[j][r];
        for (uint64_t r = 0; r < product.rows; r++) finish_row(kernels, product, turned[r], r, n, cols);
    });
}

} // namespace

uint64_t product_scratch(Context &context, const Product &product) {
    // Fewer rows must not need more, so the way of few rows counts always.
    const uint64_t few = is_turned(product) ? align_scratch(least(product.rows, few_rows) * depth_of(product) * 4) : 0;
    const uint64_t bytes = Pieces(kernels_of(context), state_of(context).threads, product).bytes;
    return few > bytes ? few : bytes;
}

void multiply_product(Context &context, const Product &product, void *scratch) {
    if (product.rows == 0 || product.cols == 0) return;
    const Kernels &kernels = kernels_of(context);
    if (depth_of(product) == 0) return finish_empty(context, product);
    const Term &first = product.terms[0], &second = product.terms[product.term_count - 1];
    const Source x_source[2] = {{kernels, first.x, product.compute_type, first.factor}, {kernels, second.x, product.compute_type, second.factor}};
    const Source w_source[2] = {{kernels, first.w, product.compute_type, 1}, {kernels, second.w, product.compute_type, 1}};
    if (product.rows <= few_rows && is_turned(product)) return multiply_few(context, product, x_source, w_source, static_cast<float *>(scratch));
    const Pieces pieces(kernels, state_of(context).threads, product);
    for (uint64_t m = 0; m < product.rows; m += block_rows)
        for (uint64_t n = 0; n < product.cols; n += block_cols)
            multiply_block(context, product, x_source, w_source, Block{m, least(block_rows, product.rows - m), n, least(block_cols, product.cols - n)},
                           static_cast<char *>(scratch), pieces);
}

} // namespace cpu
} // namespace qlora
