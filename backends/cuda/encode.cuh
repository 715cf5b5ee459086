// encode on the device: codes of values that were divided by their block's absmax. The results are those of the
// threshold searches in the reference, found with one table look-up and one comparison per value.
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

template <Table T> struct Encoder; // deleted primary: a new table has its search here

// NF4: [-1, 1) is cut into 32 buckets of 1/16, each with at most one of the 15 thresholds (they are 0.08 apart or
// more). shared: threshold of each bucket, then the code below it. 32 words in 32 banks: no conflicts.
template <> struct Encoder<Table::NF4> {
    static constexpr int shared_values = 64;
    const float *thresholds;
    __device__ void prepare(float *shared) {
        for (int b = threadIdx.x; b < 32; b += blockDim.x) {
            const float lower = -1.0f + b * 0.0625f;
            int below = 0;
            for (int i = 0; i < 15; i++) below += __uint_as_float(nf4_thresholds[i]) < lower;
            shared[b] = below < 15 ? __uint_as_float(nf4_thresholds[below]) : 2.0f;
            shared[32 + b] = __int_as_float(below);
        }
        thresholds = shared;
    }
    __device__ __forceinline__ uint32_t code(float y) const {
        const int bucket = min(int((y + 1.0f) * 16.0f), 31); // no threshold lies so near an edge that the rounding matters
        return __float_as_int(thresholds[32 + bucket]) + (y > thresholds[bucket]);
    }
};

// FP4: rank of the magnitude among seven thresholds, then the code of that rank.
template <> struct Encoder<Table::FP4> {
    static constexpr int shared_values = 8;
    const float *thresholds;
    __device__ void prepare(float *shared) {
        for (int i = threadIdx.x; i < 7; i += blockDim.x) shared[i] = __uint_as_float(fp4_thresholds[i]);
        thresholds = shared;
    }
    __device__ __forceinline__ uint32_t code(float y) const {
        const float magnitude = fabsf(y);
        int rank = 0;
#pragma unroll
        for (int i = 0; i < 7; i++) rank += magnitude > thresholds[i];
        return ((0x32547610u >> (4 * rank)) & 15u) | (y < 0 ? 8u : 0u);
    }
};

// Dynamic 8-bit: buckets over the bits of |y|, 128 to the octave from 2^-23 to 1, are finer than the table, so each
// holds at most one midpoint. shared: 256 midpoints, then one byte per bucket with the rank below it. A midpoint whose
// tie goes up is stored as the float before it, so that one strict comparison decides. is_signed: ranks are magnitudes
// 0..128 around index 127; else they are the indices.
template <bool is_signed> struct EncodeDyn8 {
    static constexpr int first_bucket = 104 << 7, buckets = (23 << 7) + 1;
    static constexpr int shared_values = 256 + (buckets + 3) / 4;
    const float *midpoints;
    const uint8_t *ranks;
    __device__ void prepare(float *shared) { // synchronises the block
        constexpr int values = is_signed ? 129 : 256;
        const uint32_t *table = is_signed ? dyn8_table + 127 : udyn8_table;
        for (int i = threadIdx.x; i < 256; i += blockDim.x) {
            float middle = 4.0f;
            if (i + 1 < values) {
                middle = (__uint_as_float(table[i]) + __uint_as_float(table[i + 1])) * 0.5f;
                const bool tie_goes_up = is_signed ? i % 2 == 0 : i % 2 == 1; // to the even index: 127 + rank, or rank
                if (tie_goes_up) middle = __uint_as_float(__float_as_uint(middle) - 1);
            }
            shared[i] = middle;
        }
        __syncthreads();
        uint8_t *bytes = reinterpret_cast<uint8_t *>(shared + 256);
        for (int b = threadIdx.x; b < buckets; b += blockDim.x) {
            const float lower = b == 0 ? 0.0f : __uint_as_float(uint32_t(b + first_bucket) << 16);
            int rank = 0;
            for (int step = 128; step >= 1; step /= 2)
                if (shared[rank + step - 1] < lower) rank += step;
            bytes[b] = uint8_t(rank);
        }
        midpoints = shared;
        ranks = bytes;
    }
    __device__ __forceinline__ uint32_t code(float y) const {
        const float magnitude = is_signed ? fabsf(y) : fmaxf(y, 0.0f);
        const int bucket = max(0, min(int(__float_as_uint(magnitude) >> 16) - first_bucket, buckets - 1));
        int rank = ranks[bucket];
        rank += magnitude > midpoints[rank];
        if (!is_signed) return rank;
        return y < 0 ? 127 - min(rank, 127) : 127 + rank;
    }
};

template <> struct Encoder<Table::DYN8> : EncodeDyn8<true> {};
template <> struct Encoder<Table::UDYN8> : EncodeDyn8<false> {};

// Replaces absmax[blocks] by codes, nested scales and offset in w's planes (nest_scales_cuda.cu).
int32_t nest_scales(Context &context, cudaStream_t stream, const WeightView &w, const float *absmax, float *sums, int64_t blocks);
uint64_t nest_scales_sums(uint64_t blocks); // floats of room for sums

} // namespace cuda
} // namespace qlora
