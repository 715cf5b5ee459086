// Blocks of values to codes and a scale, and the choice among the ways to quantize. Every block of a codebook format fits in one
// tile of 4096 values.
#include "backends/cuda/encode.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = quantize_threads, tile = quantize_tile, in_flight = 2;

// Codebook formats. absmax is the scale plane, or scratch when the scales are quantized again.
template <class E, int bits> static __global__ void __launch_bounds__(threads) quantize_kernel(View src, WeightView w, float *absmax) {
    __shared__ float tables[E::shared_values], maxima[in_flight][threads / 32];
    E encoder;
    encoder.prepare(tables);
    __syncthreads();
    const int64_t total = w.rows * w.cols;
    const int lanes = 1 << (w.block_shift - 3);
    for (int64_t first = int64_t(blockIdx.x) * tile * in_flight; first < total; first += int64_t(gridDim.x) * tile * in_flight) {
        float values[in_flight][8];
#pragma unroll
        for (int t = 0; t < in_flight; t++) {
            const int64_t index = first + t * tile + threadIdx.x * 8;
            if (index < total) load_flat(src, index, total - index, values[t]);
            else
                for (int i = 0; i < 8; i++) values[t][i] = 0;
        }
#pragma unroll
        for (int t = 0; t < in_flight; t++) {
            const int64_t index = first + t * tile + threadIdx.x * 8;
            float largest = 0;
#pragma unroll
            for (int i = 0; i < 8; i++) largest = fmaxf(largest, fabsf(values[t][i]));
            largest = group_max(largest, lanes, maxima[t]);
            if (largest < smallest_normal) largest = 0;
            const float inverse = largest > 0 ? __frcp_rn(largest) : 0;
            if (index >= total) continue;
            if ((index & ((int64_t(1) << w.block_shift) - 1)) == 0) absmax[index >> w.block_shift] = largest;
            uint32_t codes[8];
#pragma unroll
            for (int i = 0; i < 8; i++) codes[i] = encoder.code(__fmul_rn(values[t][i], inverse)); // values past the end are 0.0
            if (largest == 0)
                for (int i = 0; i < 8; i++) codes[i] = 0;
            store_codes<bits>(w, index, total - index, codes);
        }
    }
}

// ggml blocks of 32: four threads each. cols are a multiple of 32, so every block is full.
template <Codec C> static __global__ void __launch_bounds__(threads) quantize_ggml_kernel(View src, WeightView w) {
    const int64_t total = w.rows * w.cols, index = (int64_t(blockIdx.x) * threads + threadIdx.x) * 8;
    const int part = threadIdx.x % 4;
    float values[8] = {};
    if (index < total) load_flat(src, index, 8, values);
    float extreme = 0; // of largest magnitude, with its sign; the first wins
#pragma unroll
    for (int i = 0; i < 8; i++)
        if (fabsf(values[i]) > fabsf(extreme)) extreme = values[i];
    for (int half = 1; half <= 2; half *= 2) {
        const float other = __shfl_xor_sync(0xffffffffu, extreme, half);
        const bool mine_first = (part & half) == 0;
        if (fabsf(other) > fabsf(extreme) || (fabsf(other) == fabsf(extreme) && !mine_first)) extreme = other;
    }
    const float scale = C == Codec::OFFSET4 ? __fmul_rn(extreme, -0.125f) : __fdiv_rn(fabsf(extreme), 127.0f);
    const float reciprocal = scale != 0 ? __frcp_rn(scale) : 0;
    const bool vanishing = isinf(reciprocal); // a scale so small is zero as f16: its codes are 0, whatever the values
    const float inverse = vanishing ? 0 : reciprocal;
    uint32_t low = 0, high = 0; // one byte per element
#pragma unroll
    for (int i = 0; i < 8; i++) {
        const float scaled = __fmul_rn(values[i], inverse);
        const uint32_t code = C == Codec::OFFSET4 ? uint32_t(vanishing ? 0 : min(15, int(__fadd_rn(scaled, 8.5f)))) : uint32_t(uint8_t(int8_t(roundf(scaled))));
        (i < 4 ? low : high) |= (code & 255u) << (i % 4 * 8);
    }
    uint8_t *block = w.code + (index >> 5) * (C == Codec::OFFSET4 ? sizeof(BlockQ4_0) : sizeof(BlockQ8_0));
    if (C == Codec::OFFSET4) { // elements j and j + 16 share a byte: threads 0 and 1 write, with what 2 and 3 hold
        low |= __shfl_down_sync(0xffffffffu, low, 2, 4) << 4;
        high |= __shfl_down_sync(0xffffffffu, high, 2, 4) << 4;
    }
    if (index >= total) return;
    if (part == 0) *reinterpret_cast<uint16_t *>(block) = uint16_t(f16_from_f32(scale));
    if (C == Codec::OFFSET4 && part >= 2) return;
    uint16_t *words = reinterpret_cast<uint16_t *>(block + 2 + part * 8);
    words[0] = uint16_t(low); words[1] = uint16_t(low >> 16); words[2] = uint16_t(high); words[3] = uint16_t(high >> 16);
}

// Plain floats.
static __global__ void __launch_bounds__(threads) quantize_float_kernel(View src, WeightView w) {
    const int64_t total = w.rows * w.cols;
    for (int64_t index = (int64_t(blockIdx.x) * threads + threadIdx.x) * 8; index < total; index += int64_t(gridDim.x) * tile) {
        float values[8];
        load_flat(src, index, total - index, values);
        store8(w.code, w.format, index, total - index, w.grouped, values);
    }
}

namespace {

struct Encoding {
    Context &context;
    cudaStream_t stream;
    const qlora_quantize_args &args;
    WeightView w;
    View src;
    unsigned tiles(uint64_t per_block, uint64_t most) const {
        const uint64_t blocks = ceil_divide(element_count(*args.weight), per_block);
        return unsigned(blocks < most ? blocks : most);
    }
};

template <class E, int bits> int32_t encode_blocks(const Encoding &e, float *absmax) {
    const uint64_t most = uint64_t(state_of(e.context).multiprocessors) * 4;
    return launch(e.context, e.stream, Grid{dim3(e.tiles(tile * in_flight, most)), threads}, quantize_kernel<E, bits>, e.src, e.w, absmax);
}

template <class F, Codec C = F::codec> struct Encode { // codebooks
    static int32_t run(const Encoding &e) {
        constexpr bool nested = F::scale == Scale::NESTED;
        const uint64_t blocks = block_count(*e.args.weight);
        Carver carver(e.args.scratch);
        float *absmax = nested ? carver.take<float>(blocks) : static_cast<float *>(e.w.scale);
        QLORA_TRY((encode_blocks<Encoder<Codebook<F>::table>, F::bits>(e, absmax)));
        return nested ? nest_scales(e.context, e.stream, e.w, absmax, carver.take<float>(nest_scales_sums(blocks)), int64_t(blocks)) : QLORA_OK;
    }
};
template <class F> struct Encode<F, Codec::FLOAT> {
    static int32_t run(const Encoding &e) {
        return launch(e.context, e.stream, Grid{dim3(e.tiles(tile, 1u << 20)), threads}, quantize_float_kernel, e.src, e.w);
    }
};
template <Codec C> int32_t encode_ggml(const Encoding &e) {
    return launch(e.context, e.stream, Grid{dim3(e.tiles(tile, UINT32_MAX)), threads}, quantize_ggml_kernel<C>, e.src, e.w);
}
template <class F> struct Encode<F, Codec::OFFSET4> {
    static int32_t run(const Encoding &e) {
        return e.args.importance.handle ? quantize_search<F>(e.context, e.stream, e.args, e.src) : encode_ggml<Codec::OFFSET4>(e);
    }
};
template <class F> struct Encode<F, Codec::SIGNED8> { static int32_t run(const Encoding &e) { return encode_ggml<Codec::SIGNED8>(e); } };
template <class F> struct Encode<F, Codec::BLOCK> { static int32_t run(const Encoding &e) { return quantize_search<F>(e.context, e.stream, e.args, e.src); } };
template <class F> struct Encode<F, Codec::AFFINE> { static int32_t run(const Encoding &) { return QLORA_ERROR_UNSUPPORTED; } }; // supports() says so first
template <class F> struct Encode<F, Codec::ABSMAX8> { static int32_t run(const Encoding &) { return QLORA_ERROR_UNSUPPORTED; } };
template <class F> struct Encode<F, Codec::NARROW> { static int32_t run(const Encoding &e) { return quantize_narrow(e.context, e.stream, e.args, e.src); } };

} // namespace

uint64_t quantize_scratch(Context &, const qlora_quantize_args &args) {
    if (format_row(args.weight->format)->codec == Codec::NARROW) return quantize_narrow_scratch(args);
    if (format_row(args.weight->format)->scale != Scale::NESTED) return 0;
    Carver carver;
    carver.take<float>(block_count(*args.weight));
    carver.take<float>(nest_scales_sums(block_count(*args.weight)));
    return carver.bytes;
}

int32_t quantize(Context &context, const qlora_quantize_args &args) {
    DeviceScope scope(context);
    Encoding encoding = {context, stream_of(context, args), args, view_of(*args.weight), view_of(args.src)};
    if (encoding.src.rows == 1) encoding.src.stride = encoding.src.cols;
    if (encoding.src.stride == encoding.src.cols) encoding.src.vector = reinterpret_cast<uint64_t>(encoding.src.data) % 16 == 0; // rows follow each other
    else if (encoding.src.cols % 8) encoding.src.vector = false; // groups of eight begin anywhere in a row
    if (args.not_finite.handle) QLORA_TRY(find_not_finite(context, encoding.stream, encoding.src, address<uint64_t>(args.not_finite)));
    return with_format(args.weight->format, int32_t(QLORA_ERROR_FORMAT), [&](auto row) -> int32_t {
        return Encode<decltype(row)>::run(encoding);
    });
}

} // namespace cuda
} // namespace qlora
