// The kernels of the optimizer, over how state is kept: Keeper<false> f32, Keeper<true> (optimizer_step_dyn8_cuda.cu) 8-bit.
// A granule of 4096 elements is 16 warps' work, 256 elements each, which is a block of 8-bit state: lane i has elements 4 i..
// and 128 + 4 i.., so that every access of a warp is to neighbours.
#pragma once
#include "backends/cuda/blocks.cuh"
#include "backends/cuda/optimizer.cuh"

namespace qlora {
namespace cuda {

constexpr int step_threads = 512, step_blocks = 2; // threads of a block, blocks of a multiprocessor
static_assert(step_threads / 32 * state_block == state_granule, "a warp has one block of state");

// Where a warp's 256 elements lie in the granule at hand.
struct Place {
    int64_t begin; // first element, of this entry
    int count;     // elements from there on, at most 256; 0 or less: none
    int lane;
    bool whole;    // 256 of them, to be read as vectors
    // Element j of this lane's eight.
    __device__ __forceinline__ int offset(int j) const { return j / 4 * 128 + lane * 4 + j % 4; }
    __device__ __forceinline__ bool has(int j) const { return offset(j) < count; }
};

// This lane's eight elements; those past the end read as 0 and are not written.
__device__ __forceinline__ void load8(const void *data, int type, const Place &place, float (&values)[8]) {
    if (place.whole)
        for (int half = 0; half < 2; half++) load4(data, type, place.begin + place.offset(half * 4), values + half * 4);
    else
        for (int j = 0; j < 8; j++) values[j] = place.has(j) ? load1(data, type, place.begin + place.offset(j)) : 0.0f;
}
__device__ __forceinline__ void store8(void *data, int type, const Place &place, const float (&values)[8]) {
    if (place.whole)
        for (int half = 0; half < 2; half++) store4(data, type, place.begin + place.offset(half * 4), values + half * 4);
    else
        for (int j = 0; j < 8; j++)
            if (place.has(j)) store1(data, type, place.begin + place.offset(j), values[j]);
}

template <bool small> struct Keeper;

template <> struct Keeper<false> {
    static size_t shared_bytes(const State &, int) { return 0; }
    __device__ __forceinline__ void prepare(float *, int, bool) {}
    template <int states> __device__ __forceinline__ void load(const TensorEntry<states> &entry, const Place &place, float (&s)[states][8]) const {
#pragma unroll
        for (int k = 0; k < states; k++) load8(entry.state[k], QLORA_FORMAT_F32, place, s[k]);
    }
    template <int states> __device__ __forceinline__ void store(const TensorEntry<states> &entry, const Place &place, float (&s)[states][8]) const {
#pragma unroll
        for (int k = 0; k < states; k++) store8(entry.state[k], QLORA_FORMAT_F32, place, s[k]);
    }
};

template <int states> __device__ __forceinline__ Place place_of(const TensorEntry<states> &entry, uint32_t granule) {
    const int64_t begin = int64_t(granule - entry.granules_before) * state_granule + threadIdx.x / 32 * int(state_block);
    const int64_t rest = int64_t(entry.count) - begin;
    const int count = rest < int64_t(state_block) ? int(rest < 0 ? 0 : rest) : int(state_block);
    return Place{begin, count, int(threadIdx.x % 32), count == int(state_block) && entry.vector()};
}
template <int states> __device__ __forceinline__ Terms terms_of(const Rule &rule, const TensorEntry<states> &entry, float scale) {
    return Terms{rule.clips ? scale * rule.clips[entry.index] : scale, rule.rate * entry.rate_scale, entry.flags & entry_no_decay ? 0.0f : rule.decay, rule.factors ? rule.factors[entry.index] : 1.0f, entry.value_type(),
                 entry.gradient_type()};
}

// Rounds a value at random for its place, as ref does, to what its type can hold; one that it can hold stays.
static __device__ __noinline__ float round_randomly(uint seed_low, uint seed_high, uint64_t element, int type, float value) {
    const uint word = qlora_random(seed_low, seed_high, uint(element), uint(element >> 32)), bits = __float_as_uint(value);
    return type == QLORA_FORMAT_F16 ? f32_from_f16(qlora_f16_from_f32_random(bits, word)) : f32_from_bf16(qlora_bf16_from_f32_random(bits, word));
}

template <int algorithm, bool small, bool general>
static __global__ void __launch_bounds__(step_threads, step_blocks) step_kernel(const __grid_constant__ TensorList<Optimizer<algorithm, general>::states> list, const __grid_constant__ Rule rule) {
    using Algorithm = Optimizer<algorithm, general>;
    constexpr int states = Algorithm::states;
    extern __shared__ float4 shared[];
    Keeper<small> keeper;
    keeper.prepare(reinterpret_cast<float *>(shared), states, true);
    const float scale = rule.scale();
    const bool skips_all = rule.skips_all();
    uint32_t at = 0;
    for (uint32_t granule = blockIdx.x; granule < list.granules; granule += gridDim.x) {
        at = list.find(granule, at);
        const TensorEntry<states> &entry = list.entries[at];
        const Place place = place_of(entry, granule);
        if (place.count == 0) continue;
        const int value_type = entry.value_type(), gradient_type = entry.gradient_type();
        if (!skips_all && !rule.skips(entry.index)) {
            const Terms terms = terms_of(rule, entry, scale);
            float p[8], raw[8], s[states][8];
            load8(entry.value, value_type, place, p);
            load8(entry.gradient, gradient_type, place, raw);
            keeper.load(entry, place, s);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                const bool lost = small && !isfinite(raw[j]), stays = general && rule.flags & QLORA_FLAG_SKIP_ZEROS && raw[j] == 0;
                float next[3] = {};
#pragma unroll
                for (int k = 0; k < states; k++) next[k] = s[k][j];
                const float g = Algorithm::template gradient<small>(rule, terms, raw[j], p[j], true);
                Algorithm::advance(rule, terms, g, p[j], next);
                const float u = Algorithm::template direction<small>(rule, terms, raw[j], g, p[j], next, s[0][j]);
                const float moved = Algorithm::template move<small>(rule, terms, p[j], u);
                if (!lost && !stays) p[j] = moved;
#pragma unroll
                for (int k = 0; k < states; k++) s[k][j] = lost ? 0.0f : stays ? s[k][j] : next[k];
            }
            if (general && rule.flags & QLORA_FLAG_STOCHASTIC && value_type != QLORA_FORMAT_F32) {
#pragma unroll
                for (int j = 0; j < 8; j++) p[j] = round_randomly(rule.seed_low, rule.seed_high ^ entry.index, entry.first * state_granule + uint64_t(place.begin) + place.offset(j), value_type, p[j]);
            }
            store8(entry.value, value_type, place, p);
            keeper.store(entry, place, s);
        }
        if (rule.flags & QLORA_FLAG_ZERO_GRADIENTS) {
            const float zeros[8] = {};
            store8(entry.gradient, gradient_type, place, zeros);
        }
    }
}

static __device__ __forceinline__ double warp_sum(double value) {
#pragma unroll
    for (int half = 16; half >= 1; half /= 2) value += __shfl_xor_sync(0xffffffffu, value, half);
    return value;
}

// sums[2 granule..]: squares of parameters and of what measures their updates. Elements past the end count as 0.
template <int algorithm, bool small>
static __global__ void __launch_bounds__(step_threads, step_blocks) sums_kernel(const __grid_constant__ TensorList<Optimizer<algorithm, true>::states> list, const __grid_constant__ Rule rule, double *sums) {
    using Algorithm = Optimizer<algorithm, true>;
    constexpr int states = Algorithm::states, warps = step_threads / 32;
    extern __shared__ float4 shared[];
    __shared__ double warp_sums[2][2][warps]; // in turns, so that one barrier per granule is enough
    Keeper<small> keeper;
    keeper.prepare(reinterpret_cast<float *>(shared), states, false);
    const float scale = rule.scale();
    uint32_t at = 0;
    int turn = 0;
    for (uint32_t granule = blockIdx.x; granule < list.granules; granule += gridDim.x, turn ^= 1) {
        at = list.find(granule, at);
        const TensorEntry<states> &entry = list.entries[at];
        const Place place = place_of(entry, granule);
        double values = 0, updates = 0;
        if (place.count > 0) {
            const Terms terms = terms_of(rule, entry, scale);
            float p[8], raw[8], s[states][8];
            load8(entry.value, terms.value_type, place, p);
            load8(entry.gradient, terms.gradient_type, place, raw);
            keeper.load(entry, place, s);
#pragma unroll
            for (int j = 0; j < 8; j++) {
                float next[3] = {};
#pragma unroll
                for (int k = 0; k < states; k++) next[k] = s[k][j];
                const float g = Algorithm::template gradient<small>(rule, terms, raw[j], p[j], !Algorithm::theirs(rule));
                Algorithm::advance(rule, terms, g, p[j], next);
                const bool stays = (rule.flags & QLORA_FLAG_SKIP_ZEROS && raw[j] == 0) || (small && !isfinite(raw[j])) || !place.has(j);
                const double value = p[j], update = stays ? 0.0f : Algorithm::template measure<small>(rule, terms, g, p[j], next);
                values += value * value;
                updates += update * update;
            }
        }
        values = warp_sum(values);
        updates = warp_sum(updates);
        if (place.lane == 0) {
            warp_sums[turn][0][threadIdx.x / 32] = values;
            warp_sums[turn][1][threadIdx.x / 32] = updates;
        }
        __syncthreads();
        if (threadIdx.x < 2) {
            double sum = 0;
            for (int warp = 0; warp < warps; warp++) sum += warp_sums[turn][threadIdx.x][warp];
            sums[2 * uint64_t(granule) + threadIdx.x] = sum;
        }
    }
}

inline Grid step_grid(Context &context, uint32_t granules, size_t shared_bytes) {
    const uint32_t most = uint32_t(state_of(context).multiprocessors) * step_blocks;
    return Grid{dim3(granules < most ? granules : most), step_threads, shared_bytes};
}

template <bool small, int states> int32_t launch_step(Context &context, cudaStream_t stream, const TensorList<states> &list, const Rule &rule) {
    return with_algorithm<states>(rule.algorithm, [&](auto algorithm) -> int32_t {
        constexpr int number = decltype(algorithm)::value;
        const Grid grid = step_grid(context, list.granules, Keeper<small>::shared_bytes(state_of(context), states));
        const bool general = rule.flags & (QLORA_FLAG_BITSANDBYTES | QLORA_FLAG_SKIP_ZEROS | QLORA_FLAG_STOCHASTIC);
        return general ? launch(context, stream, grid, step_kernel<number, small, true>, list, rule) : launch(context, stream, grid, step_kernel<number, small, false>, list, rule);
    });
}
template <bool small, int states> int32_t launch_sums(Context &context, cudaStream_t stream, const TensorList<states> &list, const Rule &rule, uint64_t first_sum) {
    return with_algorithm<states>(rule.algorithm, [&](auto algorithm) -> int32_t {
        return launch(context, stream, step_grid(context, list.granules, Keeper<small>::shared_bytes(state_of(context), states)), sums_kernel<decltype(algorithm)::value, small>, list, rule,
                      rule.sums + 2 * first_sum);
    });
}

} // namespace cuda
} // namespace qlora
