// Blocks of values to codes and a scale, and the choice among the ways to quantize. Every block of a codebook format fits in one
// tile of 4096 values.
#include "backends/cuda/encode.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = quantize_threads, tile = quantize_tile, in_flight = 2;

template <class Words> __device__ __forceinline__ Words none_if(bool zero, Words words);
template <> __device__ __forceinline__ uint32_t none_if(bool zero, uint32_t word) { return zero ? 0 : word; }
template <> __device__ __forceinline__ uint2 none_if(bool zero, uint2 words) { return zero ? make_uint2(0, 0) : words; }

// Codebook formats, from value `begin` on, a multiple of 4096. absmax is the scale plane, or scratch when the scales are quantized again.
template <class E> static __global__ void __launch_bounds__(threads) quantize_kernel(View src, WeightView w, float *absmax, int64_t begin) {
    __shared__ float tables[E::shared_values], maxima[in_flight][threads / 32];
    E encoder;
    encoder.prepare(tables);
    __syncthreads();
    const int64_t total = w.rows * w.cols;
    const int lanes = 1 << (w.block_shift - 3);
    for (int64_t first = begin + int64_t(blockIdx.x) * tile * in_flight; first < total; first += int64_t(gridDim.x) * tile * in_flight) {
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
            store_codes(w, index, total - index, none_if(largest == 0, encoder.codes(values[t], inverse))); // values past the end are 0.0
        }
    }
}

// The same where nothing is in the way: whole tiles of contiguous aligned values, blocks of up to 256. A thread has FLIGHT loads on the
// way and keeps what they bring as it came.
constexpr int stream_threads = 256;
template <int TYPE> struct Eight { // of 16 bits
    uint4 words;
    __device__ __forceinline__ void load(const void *src, int64_t index) { words = __ldcs(reinterpret_cast<const uint4 *>(static_cast<const uint16_t *>(src) + index)); }
    __device__ __forceinline__ void values(float (&x)[8]) const { unpack8(words, TYPE, x); }
    __device__ __forceinline__ float largest() const {
#if __CUDA_ARCH__ >= 860
        uint32_t a, b; // the larger magnitude, with some sign
        if (TYPE == QLORA_FORMAT_F16)
            asm("{max.xorsign.abs.f16x2 %0, %2, %3; max.xorsign.abs.f16x2 %1, %4, %5; max.xorsign.abs.f16x2 %0, %0, %1;}" : "=&r"(a), "=&r"(b) : "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w));
        else
            asm("{max.xorsign.abs.bf16x2 %0, %2, %3; max.xorsign.abs.bf16x2 %1, %4, %5; max.xorsign.abs.bf16x2 %0, %0, %1;}" : "=&r"(a), "=&r"(b) : "r"(words.x), "r"(words.y), "r"(words.z), "r"(words.w));
        if (TYPE == QLORA_FORMAT_F16) return fmaxf(fabsf(f32_from_f16(a & 0xffffu)), fabsf(f32_from_f16(a >> 16)));
        return fmaxf(fabsf(__uint_as_float(a << 16)), fabsf(__uint_as_float(a & 0xffff0000u)));
#else
        float x[8], most = 0;
        values(x);
#pragma unroll
        for (int i = 0; i < 8; i++) most = fmaxf(most, fabsf(x[i]));
        return most;
#endif
    }
};
template <> struct Eight<QLORA_FORMAT_F32> {
    float4 low, high;
    __device__ __forceinline__ void load(const void *src, int64_t index) {
        const float4 *place = reinterpret_cast<const float4 *>(static_cast<const float *>(src) + index);
        low = __ldcs(place);
        high = __ldcs(place + 1);
    }
    __device__ __forceinline__ void values(float (&x)[8]) const {
        x[0] = low.x; x[1] = low.y; x[2] = low.z; x[3] = low.w;
        x[4] = high.x; x[5] = high.y; x[6] = high.z; x[7] = high.w;
    }
    __device__ __forceinline__ float largest() const {
        return fmaxf(fmaxf(fmaxf(fabsf(low.x), fabsf(low.y)), fmaxf(fabsf(low.z), fabsf(low.w))), fmaxf(fmaxf(fabsf(high.x), fabsf(high.y)), fmaxf(fabsf(high.z), fabsf(high.w))));
    }
};

template <class E, int TYPE, int FLIGHT>
static __global__ void __launch_bounds__(stream_threads) quantize_stream_kernel(const void *src, uint8_t *code, float *absmax, int block_shift) {
    __shared__ float tables[E::shared_values];
    const int64_t first = int64_t(blockIdx.x) * (stream_threads * 8 * FLIGHT) + threadIdx.x * 8;
    Eight<TYPE> x[FLIGHT];
#pragma unroll
    for (int t = 0; t < FLIGHT; t++) x[t].load(src, first + t * stream_threads * 8);
    E encoder;
    encoder.prepare(tables);
    __syncthreads();
    float largest[FLIGHT];
#pragma unroll
    for (int t = 0; t < FLIGHT; t++) largest[t] = x[t].largest();
    for (int half = 1 << (block_shift - 4); half >= 1; half /= 2)
#pragma unroll
        for (int t = 0; t < FLIGHT; t++) largest[t] = fmaxf(largest[t], __shfl_xor_sync(0xffffffffu, largest[t], half));
    const bool writes = (threadIdx.x & ((1u << (block_shift - 3)) - 1)) == 0; // of each block one thread
#pragma unroll
    for (int t = 0; t < FLIGHT; t++) {
        const int64_t index = first + t * stream_threads * 8;
        const bool zero = largest[t] < smallest_normal;
        const float most = zero ? 0.0f : largest[t], inverse = zero ? 0.0f : __frcp_rn(most);
        if (writes) absmax[index >> block_shift] = most;
        float values[8];
        x[t].values(values);
        typename E::Words words;
        if constexpr (E::bits == 8 && TYPE != QLORA_FORMAT_F32)
            words = encoder.codes(values, inverse, E::signs_of_halves(x[t].words.x, x[t].words.y), E::signs_of_halves(x[t].words.z, x[t].words.w));
        else words = encoder.codes(values, inverse);
        words = none_if(zero, words);
        *reinterpret_cast<typename E::Words *>(code + index * E::bits / 8) = words;
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

// Values per thread block of the streaming kernel; f32 takes twice the registers.
template <class E> int32_t stream_blocks(const Encoding &e, float *absmax, int64_t *done) {
    const int64_t step = stream_threads * 8 * (e.src.type == QLORA_FORMAT_F32 ? 2 : 4), whole = int64_t(element_count(*e.args.weight)) / step;
    *done = 0;
    if (e.src.stride != e.src.cols || !e.src.vector || !e.w.grouped || e.w.block_shift > 8 || whole > INT32_MAX) return QLORA_OK;
    *done = whole * step;
    const auto kernel = e.src.type == QLORA_FORMAT_F32   ? quantize_stream_kernel<E, QLORA_FORMAT_F32, 2>
                        : e.src.type == QLORA_FORMAT_F16 ? quantize_stream_kernel<E, QLORA_FORMAT_F16, 4>
                                                         : quantize_stream_kernel<E, QLORA_FORMAT_BF16, 4>;
    return launch(e.context, e.stream, Grid{dim3(unsigned(whole)), stream_threads}, kernel, e.src.data, e.w.code, absmax, e.w.block_shift);
}

template <class E> int32_t encode_blocks(const Encoding &e, float *absmax) {
    int64_t done = 0;
    QLORA_TRY(stream_blocks<E>(e, absmax, &done));
    const uint64_t most = uint64_t(state_of(e.context).multiprocessors) * 4, rest = ceil_divide(element_count(*e.args.weight) - uint64_t(done), tile * in_flight);
    return launch(e.context, e.stream, Grid{dim3(unsigned(rest < most ? rest : most)), threads}, quantize_kernel<E>, e.src, e.w, absmax, done);
}

template <class F, Codec C = F::codec> struct Encode { // codebooks
    static int32_t run(const Encoding &e) {
        constexpr bool nested = F::scale == Scale::NESTED;
        const uint64_t blocks = block_count(*e.args.weight);
        Carver carver(e.args.scratch);
        float *absmax = nested ? carver.take<float>(blocks) : static_cast<float *>(e.w.scale);
        QLORA_TRY((encode_blocks<Encoder<Codebook<F>::table>>(e, absmax)));
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
template <class F> struct Encode<F, Codec::BILEVEL> { static int32_t run(const Encoding &) { return QLORA_ERROR_UNSUPPORTED; } }; // likewise
template <class F> struct Encode<F, Codec::ABSMAX8> { static int32_t run(const Encoding &e) { return quantize_int8(e.context, e.stream, e.args, e.src); } };
template <class F> struct Encode<F, Codec::NARROW> { static int32_t run(const Encoding &e) { return quantize_narrow(e.context, e.stream, e.args, e.src); } };

} // namespace

uint64_t quantize_scratch(Context &context, const qlora_quantize_args &args) {
    if (format_row(args.weight->format)->codec == Codec::ABSMAX8) return quantize_int8_scratch(context, args);
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
