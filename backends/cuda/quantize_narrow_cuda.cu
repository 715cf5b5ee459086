// Small floats: scale = absmax / largest value in f32, or a power of two, then codes by narrow.inc. A block of more than one
// tile has its absmax found first, tile by tile.
#include "backends/cuda/blocks.cuh"
#include "backends/cuda/quantize.cuh"

#include <cstring>

namespace qlora {
namespace cuda {

constexpr int threads = quantize_threads, tile = quantize_tile;

// Absolute values are compared as integers, which orders them as floats.
static __device__ __forceinline__ uint largest_of(const float (&values)[8]) {
    uint largest = 0;
#pragma unroll
    for (int i = 0; i < 8; i++) largest = max(largest, __float_as_uint(values[i]) & 0x7fffffffu);
    return largest;
}

static __device__ __forceinline__ float narrow_scale(float absmax, float largest_value) {
    const float scale = __fdiv_rn(absmax, largest_value);
    return scale < smallest_normal ? 0.0f : scale;
}

// maxima[t] = absmax of tile t.
static __global__ void __launch_bounds__(threads) tile_absmax_kernel(View src, int64_t total, float *maxima) {
    __shared__ float shared[threads / 32];
    for (int64_t first = int64_t(blockIdx.x) * tile; first < total; first += int64_t(gridDim.x) * tile) {
        const int64_t index = first + threadIdx.x * 8;
        float values[8] = {};
        if (index < total) load_flat(src, index, total - index, values);
        const float largest = group_max(__uint_as_float(largest_of(values)), threads, shared);
        if (threadIdx.x == 0) maxima[first / tile] = largest;
    }
}

// One thread block per weight block of several tiles.
static __global__ void __launch_bounds__(threads) block_scale_kernel(const float *maxima, int64_t tiles, int64_t tiles_per_block, float largest_value, float *scales) {
    __shared__ float shared[threads / 32];
    const int64_t begin = blockIdx.x * tiles_per_block, end = begin + tiles_per_block < tiles ? begin + tiles_per_block : tiles;
    float largest = 0;
    for (int64_t t = begin + threadIdx.x; t < end; t += threads) largest = fmaxf(largest, maxima[t]);
    largest = group_max(largest, threads, shared);
    if (threadIdx.x == 0) scales[blockIdx.x] = narrow_scale(largest, largest_value);
}

// Eight codes of six bits: six bytes.
static __device__ __forceinline__ void store_codes6(const WeightView &w, int64_t index, const uint32_t (&codes)[8]) {
    uint8_t *place = w.code + (index >> 3) * 6;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        const uint32_t word = codes[4 * half] | codes[4 * half + 1] << 6 | codes[4 * half + 2] << 12 | codes[4 * half + 3] << 18;
        place[3 * half] = uint8_t(word);
        place[3 * half + 1] = uint8_t(word >> 8);
        place[3 * half + 2] = uint8_t(word >> 16);
    }
}

// scaled: the scale plane is written already.
template <class F>
static __global__ void __launch_bounds__(threads) quantize_narrow_kernel(View src, WeightView w, float largest_value, bool scaled, uint rule, bool stochastic, uint seed_low, uint seed_high) {
    __shared__ float shared[threads / 32];
    const int64_t total = w.rows * w.cols;
    for (int64_t first = int64_t(blockIdx.x) * tile; first < total; first += int64_t(gridDim.x) * tile) {
        const int64_t index = first + threadIdx.x * 8, block = index >> w.block_shift;
        float values[8] = {}, absmax = 0;
        if (index < total) load_flat(src, index, total - index, values);
        if (!scaled) absmax = group_max(__uint_as_float(largest_of(values)), 1 << (w.block_shift - 3), shared);
        if (index >= total) continue;
        const bool first_of_block = !scaled && (index & ((int64_t(1) << w.block_shift) - 1)) == 0;
        float inverse = 0;
        int power = 0;
        if (F::scale == Scale::F32) {
            float *scales = static_cast<float *>(w.scale);
            const float scale = scaled ? scales[block] : narrow_scale(absmax, largest_value);
            if (first_of_block) scales[block] = scale;
            if (scale > 0) inverse = __frcp_rn(scale);
        } else {
            const uint code = qlora_e8m0_from_absmax(__float_as_uint(absmax), F::mantissa, F::bias, F::maximum, rule);
            if (first_of_block) static_cast<uint8_t *>(w.scale)[block] = uint8_t(code);
            power = int(code) - 127;
        }
        uint32_t codes[8];
#pragma unroll 1
        for (int i = 0; i < 8; i++) { // once in the code: the conversion is long
            const uint64_t place = uint64_t(index) + i;
            const float value = F::scale == Scale::F32 ? __fmul_rn(values[i], inverse) : values[i];
            const uint noise = stochastic ? qlora_random(seed_low, seed_high, uint(place), uint(place >> 32)) : 0;
            codes[i] = qlora_narrow_from_f32(__float_as_uint(value), power, F::bits, F::mantissa, F::bias, F::maximum, stochastic, noise);
        }
        if (F::bits == 8) store_codes(w, index, total - index, bytes_of(codes));
        else store_codes6(w, index, codes);
    }
}

static bool has_large_blocks(const qlora_quantize_args &args) { return args.weight->block > uint32_t(tile); }

uint64_t quantize_narrow_scratch(const qlora_quantize_args &args) {
    Carver carver;
    if (has_large_blocks(args)) carver.take<float>(ceil_divide(element_count(*args.weight), tile));
    return carver.bytes;
}

int32_t quantize_narrow(Context &context, cudaStream_t stream, const qlora_quantize_args &args, const View &src) {
    return with_format(args.weight->format, int32_t(QLORA_ERROR_FORMAT), [&](auto row) -> int32_t {
        using F = decltype(row);
        if constexpr (F::codec == Codec::NARROW) {
            const uint64_t count = element_count(*args.weight), tiles = ceil_divide(count, tile), most = uint64_t(state_of(context).multiprocessors) * 8;
            const Grid grid = {dim3(unsigned(tiles < most ? tiles : most)), threads};
            const WeightView w = view_of(*args.weight);
            const uint largest_bits = qlora_f32_from_narrow(F::maximum, F::bits, F::mantissa, F::bias, 0);
            float largest_value;
            std::memcpy(&largest_value, &largest_bits, 4);
            const bool scaled = has_large_blocks(args);
            if (scaled) {
                float *maxima = Carver(args.scratch).take<float>(tiles);
                QLORA_TRY(launch(context, stream, grid, tile_absmax_kernel, src, int64_t(count), maxima));
                QLORA_TRY(launch(context, stream, Grid{dim3(unsigned(block_count(*args.weight))), threads}, block_scale_kernel, maxima, int64_t(tiles),
                                 int64_t(args.weight->block / tile), largest_value, static_cast<float *>(w.scale)));
            }
            return launch(context, stream, grid, quantize_narrow_kernel<F>, src, w, largest_value, scaled, uint(args.power), (args.flags & QLORA_FLAG_STOCHASTIC) != 0,
                          uint(args.seed), uint(args.seed >> 32));
        } else {
            return QLORA_ERROR_FORMAT;
        }
    });
}

} // namespace cuda
} // namespace qlora
