// Optimizer passes over tensors with dynamic 8-bit state (2110.02861): a warp reads the codes of a block of 256, steps the
// decoded states, finds the block's new absmax by shuffles and writes new codes.
#include "backends/cuda/optimizer_codes.cuh"
#include "backends/cuda/optimizer_kernels.cuh"

namespace qlora {
namespace cuda {

// Copies of each decoding table in shared memory, word by word side by side: lane i reads copy i mod copies. 32 copies make
// look-ups free of bank conflicts; there are as many as leave room for a second block on the multiprocessor.
constexpr int table_copies(int architecture) { return architecture == 90 || architecture == 100 ? 32 : architecture == 80 ? 16 : architecture == 75 ? 4 : 8; }
#ifdef __CUDA_ARCH__
constexpr int copies = table_copies(__CUDA_ARCH__ / 10);
#else
constexpr int copies = 4; // never read
#endif
constexpr int copies_shift = copies == 32 ? 5 : copies == 16 ? 4 : copies == 8 ? 3 : 2;

// max over a warp of values that are not negative.
static __device__ __forceinline__ float warp_max(float value) {
#if __CUDA_ARCH__ >= 800
    return __uint_as_float(__reduce_max_sync(0xffffffffu, __float_as_uint(value)));
#else
#pragma unroll
    for (int half = 16; half >= 1; half /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, half));
    return value;
#endif
}

// A block's values over its absmax, rounded as a division is: q + (x - q absmax) r with r = 1 / absmax rounded is that quotient
// (Markstein, 1990) as long as nothing of it leaves the normal numbers.
struct Quotient {
    float absmax, reciprocal;
    __device__ __forceinline__ float of(float magnitude) const {
        const float q = magnitude * reciprocal;
        return fmaf(fmaf(-absmax, q, magnitude), reciprocal, q);
    }
};

// Where absmax is too small or large for that, the values are divided beforehand. What is not a number counts as 0; of a block
// of zeros comes what the search for a code makes of 0 / 0 in a signed table: its ends.
static __device__ __noinline__ float divided(float value, float absmax, float of_zeros) {
    const float q = __fdiv_rn(fabsf(value), absmax);
    return copysignf(absmax == 0 ? of_zeros : q <= 1 ? q : 0.0f, value);
}

template <> struct Keeper<true> {
    const float *decoders[2]; // signed and unsigned, at this lane's copy
    const uint32_t *buckets[2]; // likewise; null where nothing is encoded

    static size_t shared_bytes(const State &state, int states) {
        const size_t tables = states > 1 ? 2 : 1;
        return 4 * tables * 256 * size_t(table_copies(state.compiled)) + sizeof(Buckets<true>) + (tables > 1 ? sizeof(Buckets<false>) : 0);
    }
    template <class T> static __device__ __forceinline__ const uint32_t *copy_of(const T &table, float *shared) {
        for (int i = threadIdx.x; i < int(sizeof(T) / 16); i += step_threads) reinterpret_cast<uint4 *>(shared)[i] = reinterpret_cast<const uint4 *>(&table)[i];
        return reinterpret_cast<const uint32_t *>(shared);
    }
    // Synchronises the block.
    __device__ __forceinline__ void prepare(float *shared, int states, bool encodes) {
        const int tables = states > 1 ? 2 : 1;
#pragma unroll 8
        for (int i = threadIdx.x; i < tables * 256 * copies / 4; i += step_threads) {
            const int code = i * 4 / copies;
            const float value = __uint_as_float(code < 256 ? dyn8_table[code] : udyn8_table[code - 256]);
            reinterpret_cast<float4 *>(shared)[i] = make_float4(value, value, value, value);
        }
        decoders[0] = shared + threadIdx.x % copies;
        decoders[1] = decoders[0] + 256 * copies;
        float *const rest = shared + tables * 256 * copies;
        buckets[0] = encodes ? copy_of(signed_buckets, rest) : nullptr;
        buckets[1] = encodes && tables > 1 ? copy_of(unsigned_buckets, rest + sizeof(Buckets<true>) / 4) : nullptr;
        __syncthreads();
    }
    // The decoding table of state k at a byte of a word of codes.
    template <int byte> __device__ __forceinline__ float decoded(int k, uint32_t word) const {
        constexpr int left = copies_shift + 2 - 8 * byte; // bytes of a code's copies
        const uint32_t place = (left >= 0 ? word << (left >= 0 ? left : 0) : word >> (left < 0 ? -left : 0)) & (255u << (copies_shift + 2));
        return *reinterpret_cast<const float *>(reinterpret_cast<const char *>(decoders[k == 1]) + place);
    }
    static __device__ __forceinline__ uint32_t load_codes(const uint8_t *codes, const Place &place, int half) {
        if (place.whole) return *reinterpret_cast<const uint32_t *>(codes + place.begin + place.offset(half * 4));
        uint32_t word = 0;
        for (int i = 0; i < 4; i++)
            if (place.has(half * 4 + i)) word |= uint32_t(codes[place.begin + place.offset(half * 4 + i)]) << (8 * i);
        return word;
    }
    static __device__ __forceinline__ void store_codes(uint8_t *codes, const Place &place, int half, uint32_t word) {
        if (place.whole) *reinterpret_cast<uint32_t *>(codes + place.begin + place.offset(half * 4)) = word;
        else
            for (int i = 0; i < 4; i++)
                if (place.has(half * 4 + i)) codes[place.begin + place.offset(half * 4 + i)] = uint8_t(word >> (8 * i));
    }
    template <int states> __device__ __forceinline__ void load(const TensorEntry<states> &entry, const Place &place, float (&s)[states][8]) const {
        uint32_t words[states][2];
        float absmax[states];
#pragma unroll
        for (int k = 0; k < states; k++) {
            absmax[k] = entry.absmax[k][place.begin / int(state_block)];
            for (int half = 0; half < 2; half++) words[k][half] = load_codes(static_cast<const uint8_t *>(entry.state[k]), place, half);
        }
#pragma unroll
        for (int k = 0; k < states; k++) {
#pragma unroll
            for (int half = 0; half < 2; half++) {
                s[k][half * 4] = decoded<0>(k, words[k][half]) * absmax[k];
                s[k][half * 4 + 1] = decoded<1>(k, words[k][half]) * absmax[k];
                s[k][half * 4 + 2] = decoded<2>(k, words[k][half]) * absmax[k];
                s[k][half * 4 + 3] = decoded<3>(k, words[k][half]) * absmax[k];
            }
            if (!place.whole)
                for (int j = 0; j < 8; j++)
                    if (!place.has(j)) s[k][j] = 0;
        }
    }
    // The nearest code; in a signed table a negative value never becomes that of zero, 127.
    __device__ __forceinline__ uint32_t code(int k, float quotient, float value) const {
        if (k == 1) return Buckets<false>::rank(buckets[1], quotient);
        const int rank = int(Buckets<true>::rank(buckets[0], quotient));
        return uint32_t(signbit(value) ? 127 - max(1, min(rank, 127)) : 127 + rank);
    }
    // Spoils s.
    template <int states> __device__ __forceinline__ void store(const TensorEntry<states> &entry, const Place &place, float (&s)[states][8]) const {
#pragma unroll
        for (int k = 0; k < states; k++) {
            float largest = 0;
#pragma unroll
            for (int j = 0; j < 8; j++) largest = fmaxf(largest, fabsf(s[k][j]));
            largest = warp_max(largest);
            if (place.lane == 0) entry.absmax[k][place.begin / int(state_block)] = largest;
            Quotient over = {largest, __frcp_rn(largest)};
            if (!(largest > 1e-22f && largest < 1e30f)) { // the same for the whole warp
#pragma unroll
                for (int j = 0; j < 8; j++) s[k][j] = divided(s[k][j], largest, k == 1 ? 0.0f : 1.0f);
                over = Quotient{1.0f, 1.0f};
            }
#pragma unroll
            for (int half = 0; half < 2; half++) {
                uint32_t word = 0;
#pragma unroll
                for (int i = 0; i < 4; i++) word |= code(k, over.of(fabsf(s[k][half * 4 + i])), s[k][half * 4 + i]) << (8 * i);
                store_codes(static_cast<uint8_t *>(entry.state[k]), place, half, word);
            }
        }
    }
};

template int32_t launch_step<true, 1>(Context &, cudaStream_t, const TensorList<1> &, const Rule &);
template int32_t launch_step<true, 2>(Context &, cudaStream_t, const TensorList<2> &, const Rule &);
template int32_t launch_step<true, 3>(Context &, cudaStream_t, const TensorList<3> &, const Rule &);
template int32_t launch_sums<true, 1>(Context &, cudaStream_t, const TensorList<1> &, const Rule &, uint64_t);
template int32_t launch_sums<true, 2>(Context &, cudaStream_t, const TensorList<2> &, const Rule &, uint64_t);

} // namespace cuda
} // namespace qlora
