// encode on the device: codes of values that were divided by their block's absmax. The results are those of the threshold
// searches in the reference: an estimate that is the rank or one below it, then one exact comparison with the threshold between.
// Instructions per value are what counts here, since everything else runs at the speed of memory.
#pragma once
#include "backends/cuda/quantize.cuh"

namespace qlora {
namespace cuda {

static __device__ const uint32_t nf4_thresholds[15] = {
#include "backends/codebooks/nf4_thresholds.inc"
};
static __device__ const uint32_t fp4_thresholds[7] = {
#include "backends/codebooks/fp4_thresholds.inc"
};

// 1 if y > threshold, else 0: the sign of a difference, which no rounding changes.
__device__ __forceinline__ uint32_t is_above(float y, float threshold) { return __float_as_uint(__fsub_rn(threshold, y)) >> 31; }

// Thresholds cut into buckets of equal width, each with at most one of them. shared: the threshold of each bucket, then the
// number of thresholds in the buckets before it. 33 buckets are used: but for the ends, words in different banks.
struct Buckets {
    static constexpr int shared_values = 128;
    const float *thresholds;
    // y * width + first is in 0..32; adding 2^21 leaves it in the low bits as quarters. The place of its bucket in bytes.
    static __device__ __forceinline__ uint32_t place(float y, float width, float first) { return __float_as_uint(__fmaf_rn(y, width, 2097152.0f + first)) & 0xfcu; }
    __device__ void prepare(float *shared, const uint32_t *bits, int count, float width, float first) {
        for (int b = threadIdx.x; b < 64; b += blockDim.x) {
            uint32_t below = 0;
            float here = 4.0f;
            for (int i = 0; i < count; i++) {
                const float threshold = __uint_as_float(bits[i]);
                const uint32_t bucket = place(threshold, width, first) / 4;
                below += bucket < uint32_t(b);
                if (bucket == uint32_t(b)) here = threshold;
            }
            shared[b] = here;
            shared[64 + b] = __uint_as_float(below);
        }
        thresholds = shared;
    }
    // The number of thresholds below y.
    __device__ __forceinline__ uint32_t rank(float y, float width, float first) const {
        const char *bucket = reinterpret_cast<const char *>(thresholds) + place(y, width, first);
        return *reinterpret_cast<const uint32_t *>(bucket + 256) + is_above(y, *reinterpret_cast<const float *>(bucket));
    }
};

template <Table T> struct Encoder; // deleted primary: a new table has its search here

// Each encoder has: shared_values, the floats of shared memory it wants; prepare() to fill them (then the block must
// synchronise); codes() of eight neighbours x, times inverse, as they lie in memory.
template <> struct Encoder<Table::NF4> : Buckets {
    static constexpr int bits = 4;
    using Words = uint32_t;
    __device__ void prepare(float *shared) { Buckets::prepare(shared, nf4_thresholds, 15, 16.0f, 16.0f); }
    __device__ __forceinline__ uint32_t code(float y) const { return rank(y, 16.0f, 16.0f); }
    __device__ __forceinline__ uint32_t codes(const float (&x)[8], float inverse) const {
        uint32_t word = 0;
#pragma unroll
        for (int i = 6; i >= 0; i -= 2) { // the earlier element of a byte is its high nibble
            word = word * 16 + code(__fmul_rn(x[i], inverse));
            word = word * 16 + code(__fmul_rn(x[i + 1], inverse));
        }
        return word;
    }
};

// Rank of the magnitude, then the code of that rank: 0 1 6 7 4 5 2 3.
template <> struct Encoder<Table::FP4> : Buckets {
    static constexpr int bits = 4;
    using Words = uint32_t;
    __device__ void prepare(float *shared) { Buckets::prepare(shared, fp4_thresholds, 7, 32.0f, 0.0f); }
    static __device__ __forceinline__ uint32_t of_ranks(uint32_t ranks) { return ranks ^ (ranks & 0x22222222u) << 1; }
    // With the sign above it, which -0 has not: adding 0 makes it +0.
    __device__ __forceinline__ uint32_t signed_rank(float y) const { return rank(fabsf(y), 32.0f, 0.0f) + (__float_as_uint(__fadd_rn(y, 0.0f)) >> 31) * 8; }
    __device__ __forceinline__ uint32_t code(float y) const { return of_ranks(signed_rank(y)); }
    __device__ __forceinline__ uint32_t codes(const float (&x)[8], float inverse) const {
        uint32_t word = 0;
#pragma unroll
        for (int i = 6; i >= 0; i -= 2) {
            word = word * 16 + signed_rank(__fmul_rn(x[i], inverse));
            word = word * 16 + signed_rank(__fmul_rn(x[i + 1], inverse));
        }
        return of_ranks(word);
    }
};

// Dynamic 8-bit. Decade i of seven has 2^i values of a magnitude (twice as many, unsigned) in equal steps, so that the rank over
// the magnitude is, but for half steps at the joints, the least of seven straight lines. In halves, two values at a time, and lowered by
// 0.9 it is right or one too low for every float: the estimate depends on the magnitude rounded to f16 only, and for each of those
// the ranks of the floats that round to it were compared. shared: 256 thresholds; where a tie goes up it is the float before the
// middle, so that one strict comparison decides. is_signed: ranks are magnitudes 0..128 around index 127; else they are the indices.
template <bool is_signed> struct EncodeDyn8 {
    static constexpr int bits = 8, shared_values = 256;
    using Words = uint2;
    const float *thresholds;
    __device__ void prepare(float *shared) {
        constexpr int values = is_signed ? 129 : 256;
        const uint32_t *table = is_signed ? dyn8_table + 127 : udyn8_table;
        for (int i = threadIdx.x; i < 256; i += blockDim.x) {
            float middle = 4.0f;
            if (i + 1 < values) {
                middle = __fmul_rn(__fadd_rn(__uint_as_float(table[i]), __uint_as_float(table[i + 1])), 0.5f);
                const bool tie_goes_up = is_signed ? i % 2 == 0 : i % 2 == 1; // to the even index: 127 + rank, or rank
                if (tie_goes_up) middle = __uint_as_float(__float_as_uint(middle) - 1);
            }
            shared[i] = middle;
        }
        thresholds = shared;
    }
    // Slope / 256 and height of the line of decade i, less 0.9, as f16 in both halves.
    static __device__ __forceinline__ uint32_t slope(int i) {
        constexpr uint32_t halves[2][7] = {{0x703d703du, 0x66c866c8u, 0x5d6d5d6du, 0x54575457u, 0x4af24af2u, 0x418e418eu, 0x38723872u},
                                           {0x6c3d6c3du, 0x62c862c8u, 0x596d596du, 0x50575057u, 0x46f246f2u, 0x3d8e3d8eu, 0x34723472u}};
        return halves[is_signed][i];
    }
    static __device__ __forceinline__ uint32_t height(int i) {
        constexpr uint32_t halves[2][7] = {{0xafd2afd2u, 0x3e9f3e9fu, 0x45364536u, 0x4a294a29u, 0x4ea34ea3u, 0x52e052e0u, 0x56fe56feu},
                                           {0xa1b0a1b0u, 0x3b063b06u, 0x41504150u, 0x46364636u, 0x4aa94aa9u, 0x4ee34ee3u, 0x53005300u}};
        return halves[is_signed][i];
    }
    // Estimates for two magnitudes, in the lowest byte of each half.
    static __device__ __forceinline__ uint32_t estimate(float low, float high) {
#if __CUDA_ARCH__ >= 800
        uint32_t x = pack2<QLORA_FORMAT_F16>(low, high), least = 0;
        asm("mul.rn.f16x2 %0, %0, %1;" : "+r"(x) : "r"(0x5c005c00u)); // 256: the first slopes are beyond f16
#pragma unroll
        for (int i = 0; i < 7; i++) {
            uint32_t line;
            asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(line) : "r"(x), "r"(slope(i)), "r"(height(i)));
            if (i == 0) least = line;
            else asm("min.f16x2 %0, %0, %1;" : "+r"(least) : "r"(line));
        }
        asm("add.rn.f16x2 %0, %0, %1;" : "+r"(least) : "r"(0x64006400u)); // 1024: rounded to an integer in the low bits
        return least;
#else
        return estimate1(low) | estimate1(high) << 16;
#endif
    }
    static __device__ __forceinline__ uint32_t estimate1(float magnitude) {
        float least = 300.0f;
#pragma unroll
        for (int i = 0; i < 7; i++) least = fminf(least, __fmaf_rn(magnitude, f32_from_f16(slope(i) & 0xffffu) * 256.0f, f32_from_f16(height(i) & 0xffffu)));
        return __float_as_uint(__fadd_rn(least, 8388608.0f)) & 255u;
    }
    // Bytes of ones where four values are negative.
    static __device__ __forceinline__ uint32_t signs_of(float a, float b, float c, float d) {
        uint32_t low, high; // 8 + i: the sign of byte i
        asm("prmt.b32 %0, %1, %2, 0x00fb;" : "=r"(low) : "r"(__float_as_uint(a)), "r"(__float_as_uint(b)));
        asm("prmt.b32 %0, %1, %2, 0x00fb;" : "=r"(high) : "r"(__float_as_uint(c)), "r"(__float_as_uint(d)));
        return __byte_perm(low, high, 0x5410);
    }
    static __device__ __forceinline__ uint32_t signs_of_halves(uint32_t low, uint32_t high) {
        uint32_t signs;
        asm("prmt.b32 %0, %1, %2, 0xfdb9;" : "=r"(signs) : "r"(low), "r"(high));
        return signs;
    }
    // The codes of four values, in one word, from magnitudes that were divided and the signs.
    __device__ __forceinline__ uint32_t four(const float (&x)[4], uint32_t signs) const {
        const uint32_t low = estimate(x[0], x[1]), high = estimate(x[2], x[3]);
        const uint32_t above = signs_of(__fsub_rn(thresholds[low & 255u], x[0]), __fsub_rn(thresholds[low >> 16 & 255u], x[1]), __fsub_rn(thresholds[high & 255u], x[2]),
                                        __fsub_rn(thresholds[high >> 16 & 255u], x[3]));
        uint32_t word = __byte_perm(low, high, 0x6420) + (above & 0x01010101u);
        if (!is_signed) return word;
        // 127 + rank, or 255 - (128 + rank) with ranks up to 127 where x is negative; zeros of either sign give 127.
        word -= word >> 7 & signs & 0x01010101u;
        return (word + 0x7f7f7f7fu + (signs & 0x01010101u)) ^ signs;
    }
    __device__ __forceinline__ uint2 codes(const float (&x)[8], float inverse, uint32_t signs_low, uint32_t signs_high) const {
        float low[4], high[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            low[i] = is_signed ? __fmul_rn(fabsf(x[i]), inverse) : fmaxf(__fmul_rn(x[i], inverse), 0.0f);
            high[i] = is_signed ? __fmul_rn(fabsf(x[i + 4]), inverse) : fmaxf(__fmul_rn(x[i + 4], inverse), 0.0f);
        }
        return make_uint2(four(low, signs_low), four(high, signs_high));
    }
    __device__ __forceinline__ uint2 codes(const float (&x)[8], float inverse) const {
        return codes(x, inverse, signs_of(x[0], x[1], x[2], x[3]), signs_of(x[4], x[5], x[6], x[7]));
    }
};

template <> struct Encoder<Table::DYN8> : EncodeDyn8<true> {};
template <> struct Encoder<Table::UDYN8> : EncodeDyn8<false> {};

// Replaces absmax[blocks] by codes, nested scales and offset in w's planes (nest_scales_cuda.cu).
int32_t nest_scales(Context &context, cudaStream_t stream, const WeightView &w, const float *absmax, float *sums, int64_t blocks);
uint64_t nest_scales_sums(uint64_t blocks); // floats of room for sums

} // namespace cuda
} // namespace qlora
