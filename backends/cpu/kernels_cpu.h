// The table of inner loops that each instruction set fills once (isa_*_cpu.cpp). Every pointer is set but some encoders. Arrays run over
// formats (in the order of formats.def) or over the element types of activations.
#pragma once
#include "backends/formats.h"

namespace qlora {
namespace cpu {

// Element types by index.
constexpr int type_count = 3;
constexpr int activation_count = QLORA_ACTIVATION_RELU + 1;
constexpr int type_index(int32_t type) { return type == QLORA_FORMAT_F32 ? 0 : type == QLORA_FORMAT_F16 ? 1 : 2; }
constexpr int format_index(int32_t format) {
    int i = 0;
    while (i < format_count - 1 && format_rows[i].format != format) i++;
    return i;
}

// Asks for a cache line ahead of its use.
inline void prefetch(const void *place) {
#if defined(__GNUC__)
    __builtin_prefetch(place);
#else
    (void)place;
#endif
}

// Where a weight's planes lie.
struct Planes {
    const uint8_t *code;
    const void *scale;
    const float *nested;
    float offset;
    uint32_t block_bits, nested_bits; // log2 of the block sizes
    // Scale::GROUP and TILE: codes end at code_end; index is null when a column's group is column / block.
    const uint8_t *code_end, *zero;
    const int32_t *index;
    uint64_t cols, groups, block;
    float factor;                     // of the scales of NVFP4
    // Scale::TILE: outlier_offsets is null when there are none.
    uint64_t nested_block, outliers;
    const uint32_t *outlier_offsets, *outlier_columns;
    const uint8_t *outlier_values;
    uint64_t row;                     // Scale::ROW: elements that share a scale
};

// One (sequence, head) of attention, packed; see simd_attention.inc.
struct AttentionTile {
    uint32_t head_dim;
    uint64_t rows, others;   // rows of this side in the tile; rows of the other side
    int64_t first, shift;    // row i of the tile is row first + i; query i sees keys 0 .. i + shift
    float scale;
    const float *left[4];    // packed panels of the other side
    const float *x, *dy;     // rows of this side, turned: [head_dim][tile_cols]
    const float *lse, *delta;
    float *out[2];           // [head_dim][tile_cols]
    float *work;
    float soft_cap, slope;   // 0 = none
    uint64_t window;         // query i sees keys above i + shift - window only; 0 = all
};

// A row of RMSNorm or, centered, LayerNorm. bias may be null and belongs to the forward pass.
struct NormRow {
    const void *x;
    const float *weight, *bias;
    uint64_t cols;
    bool centered, accumulate;
};

// Products of signed bytes in int32. Panels are made of words, each `group` neighbours along the depth, as many bits as an
// f32, so that the packing of floats serves: x[depth / group][tile_rows], w[depth / group][tile_cols].
struct Int8Kernels {
    uint32_t tile_rows, tile_cols, group;
    int32_t offset; // added to codes of w in words; what the sums get from it is offset * the sum of x's codes
    // words[divide_up(count, group)] of a row of codes
    void (*words_x)(const int8_t *codes, uint64_t count, float *words);
    void (*words_w)(const int8_t *codes, uint64_t count, float *words);
    // words[count] of `depth` (at most group) rows of codes, one below the other
    void (*weave_w)(const int8_t *codes, uint64_t stride, uint32_t depth, uint64_t count, float *words);
    // panel[count][tile_rows] from tile_rows rows of words; w has tile_cols of Kernels, whose pack_* serve
    void (*turn_x)(const float *words, uint64_t count, float *panel);
    // c[rows][cols] = (accumulate ? c : 0) + x w
    void (*multiply)(uint64_t words, const float *x, const float *w, int32_t *c, uint64_t stride, uint32_t rows, uint32_t cols, bool accumulate);
    // sums[i] = w . x[i] for i < rows; count codes of w, rows of words with zeros behind, up to a multiple of 64 bytes
    void (*dots)(const int8_t *w, uint64_t count, const float *x, uint64_t stride, uint32_t rows, int32_t *sums);
};

struct DoubleProduct {
    double *c;
    const double *a, *b;
    uint64_t c_stride, a_stride, b_stride, rows, cols, depth;
    bool falling;
};

// A step's numbers; what an algorithm does not have is 0 (gain and kept: 1).
struct OptimizerStep {
    float scale, into, gain;            // g = (gradient * scale + into * p) * gain
    float kept;                         // p = p * kept - rate * u
    float beta1, rest1, beta2, rest2, beta3, rest3;
    float rate, inverse, epsilon;       // ADAM: u = m / (sqrt(v) * inverse + epsilon) + beside * p, rate with 1 / correction1
    float alpha, beside;                // ADEMAMIX: alpha * correction1
};
struct OptimizerRows {
    const float *gradient, *top; // top: what RMSPROP and ADAGRAD divide, if not g
    float *value, *state[3], *update;
};
struct OptimizerKernels {
    // of a block of 8-bit state; [signed]
    void (*decode[2])(const uint8_t *code, float absmax, uint64_t count, float *state);
    float (*encode[2])(const float *state, uint64_t count, uint8_t *code); // its absmax
    // by Body of simd_optim.inc; [0]: states move on and update receives u, [1]: states and value move on
    void (*step[6][2])(const OptimizerStep &step, uint64_t count, const OptimizerRows &rows);
    void (*stable_update)(const OptimizerStep &step, uint64_t count, const OptimizerRows &rows);
    // row = row * scale + others * into
    void (*blend)(float *row, float scale, const float *others, float into, uint64_t count);
    // [0] bf16, [1] f16
    void (*store_random[2])(const float *x, uint64_t count, uint32_t seed_low, uint32_t seed_high, uint64_t first, uint16_t *dst);
};

struct Kernels {
    const char *name;
    uint32_t tile_rows, tile_cols; // of multiply

    // dst[count] = elements first.. of a flattened weight
    void (*decode[format_count])(const Planes &planes, uint64_t first, uint64_t count, float *dst);
    // Elements first.. (first a multiple of the block) into the code plane; absmax of each block into scales, by block.
    // Null for Codec::BLOCK, NARROW, AFFINE, BILEVEL and ABSMAX8, which have files of their own.
    void (*encode[format_count])(const float *x, uint64_t first, uint64_t count, uint32_t block, uint8_t *code, float *scales);
    // Index of the first NaN or infinity, or count.
    uint64_t (*find_not_finite)(const float *x, uint64_t count);

    void (*load[type_count])(const void *src, uint64_t count, float *dst);
    void (*store[type_count])(const float *src, uint64_t count, void *dst);
    void (*round[type_count])(float *x, uint64_t count); // to the type and back
    // y = factor * sum + bias (unless null) + (accumulate ? y : 0), rounded once
    void (*finish[type_count])(const float *sum, float factor, const float *bias, bool accumulate, uint64_t count, void *y);

    // c[rows][cols] = (accumulate ? c : 0) + x w over packed panels x[depth][tile_rows], w[depth][tile_cols]
    void (*multiply)(uint64_t depth, const float *x, const float *w, float *c, uint64_t stride, uint32_t rows, uint32_t cols, bool accumulate);
    // panel[depth][width] from width rows src[width][stride]
    void (*pack_turned)(const float *src, uint64_t stride, uint64_t depth, uint32_t width, float *panel);
    // One row of panels, width floats to each, panel_stride apart; zeros behind count.
    void (*pack_straight)(const float *src, uint64_t count, uint32_t width, uint64_t panel_stride, float *panel);
    // sums[i] += w . x[i] for i < rows
    void (*dots)(const float *w, const float *x, uint64_t stride, uint32_t rows, uint64_t count, float *sums);

    // c[rows][cols] -= a[rows][depth] b[depth][cols] in double, term after term along the depth: upwards, or falling. No fused
    // operations: the same bits in every instruction set.
    void (*subtract_product)(const DoubleProduct &product);

    // Returns rstd.
    float (*norm[type_count])(const NormRow &row, void *y, float epsilon);
    void (*norm_grad[type_count])(const NormRow &row, const void *dy, void *dx, float rstd);
    float (*row_mean[type_count])(const void *x, uint64_t cols);
    // sum[c] += dy[c] * (x[c] - mean) * rstd
    void (*norm_dweight[type_count])(const void *x, const void *dy, float mean, float rstd, uint64_t cols, float *sum);
    // By QLORA_ACTIVATION_*. up, and with it dup, is null where nothing is gated.
    void (*swiglu[activation_count][type_count])(const void *gate, const void *up, void *y, uint64_t count);
    void (*swiglu_grad[activation_count][type_count])(const void *gate, const void *up, const void *dy, void *dgate, void *dup, uint64_t count);
    // y = x * factors, or y += that; factors of places first..: 0 where the random word is below the threshold
    void (*dropout[type_count])(const void *x, const float *factors, void *y, bool accumulate, uint64_t count);
    void (*dropout_factors)(uint32_t seed_low, uint32_t seed_high, uint64_t first, uint32_t threshold, float factor, uint64_t count, float *factors);
    // x is one head; cosine and sine hold rotary_dim / 2 values
    void (*rotate)(float *x, const float *cosine, const float *sine, uint64_t pairs, bool adjacent);

    void (*attention)(const AttentionTile &tile, float *lse); // out[0] = y, turned
    void (*attention_dq)(const AttentionTile &tile);
    void (*attention_dkv)(const AttentionTile &tile);

    // maximum of the logits, which a soft_cap above 0 caps, and sum of exp(logit - maximum)
    void (*softmax_sum)(const float *logits, uint64_t count, float soft_cap, float *maximum, float *sum);
    // logits = scale * exp(capped logit - maximum) * slope of the cap
    void (*softmax_grad)(float *logits, uint64_t count, float soft_cap, float maximum, float scale);
    // One logit as these two cap it, and the slope of that.
    float (*cap_logit)(float logit, float soft_cap, float *slope);
    double (*sum_squares)(const float *x, uint64_t count);
    const OptimizerKernels *optimizer;

    // Largest |x| that is below limit; 0 when there is none.
    float (*absmax_below)(const float *x, uint64_t count, float limit);
    // codes = x * inverse to nearest even
    void (*encode_int8)(const float *x, float inverse, uint64_t count, int8_t *codes);
    // y = f32(sum - correction) * ((scale * scales) * factor), or * scale where scales is null
    void (*scale_sums)(const int32_t *sum, int32_t correction, float scale, const float *scales, float factor, uint64_t count, float *y);
    Int8Kernels int8;
};

// Null where the compiler's target has no such instruction set.
const Kernels *scalar_kernels();
const Kernels *avx2_kernels();
const Kernels *avx512_kernels();
const Kernels *neon_kernels();
// Better products of bytes for processors with AVX-512 VNNI.
const Int8Kernels *vnni_kernels();
// Optimizers with better 8-bit states for processors with AVX-512 VBMI.
const OptimizerKernels *vbmi_kernels();

} // namespace cpu
} // namespace qlora
