// Lists of tensors travel in kernel parameters, as many tensors to a launch as fit there: the launch, or its capture in a
// graph, copies them, so nothing of the host is read later and nothing has to outlive the call. Work goes by granules of 4096
// elements, which never belong to two tensors.
#pragma once
#include "backends/cuda/device.cuh"
#include "backends/optimizer.h"

namespace qlora {
namespace cuda {

// Every driver that runs CUDA 13 takes 32764 bytes of parameters; some that run older code take 4096.
#if CUDART_VERSION >= 13000
constexpr size_t parameter_bytes = 32764;
#else
constexpr size_t parameter_bytes = 4096;
#endif
constexpr size_t rule_bytes = 480; // of them for what is the same for all tensors

constexpr uint32_t entry_no_decay = 16, entry_vector = 32; // beside the codes of both types

// A tensor, or the part of it that is in a page. 72 bytes with two states: 448 of them, the adapters of a 7B model, fit in one launch.
template <int states> struct TensorEntry {
    void *value, *gradient;
    void *state[states];
    float *absmax[states]; // of 8-bit state
    uint64_t count : 56, flags : 8;
    float rate_scale;
    uint32_t granules_before; // of this launch
    uint32_t index;           // in the caller's list
    uint32_t first;           // granules of this tensor in earlier pages

    static uint32_t code(int32_t type) { return type == QLORA_FORMAT_F32 ? 0 : type == QLORA_FORMAT_F16 ? 1 : 2; }
    static __device__ __forceinline__ int type(uint32_t code) { return code == 0 ? QLORA_FORMAT_F32 : code == 1 ? QLORA_FORMAT_F16 : QLORA_FORMAT_BF16; }
    __device__ __forceinline__ int value_type() const { return type(flags & 3u); }
    __device__ __forceinline__ int gradient_type() const { return type(flags >> 2 & 3u); }
    __device__ __forceinline__ bool vector() const { return flags & entry_vector; } // all places are multiples of 16 bytes
};

inline uint64_t granules_of(uint64_t elements) { return ceil_divide(elements, state_granule); }

template <int states> struct TensorList {
    static constexpr uint32_t capacity = uint32_t((parameter_bytes - rule_bytes - 8) / sizeof(TensorEntry<states>));
    TensorEntry<states> entries[capacity];
    uint32_t count, granules;

    // The tensor that a granule belongs to, from one that is not behind it.
    __device__ __forceinline__ uint32_t find(uint32_t granule, uint32_t from) const {
        uint32_t high = count - 1;
        while (from < high) {
            const uint32_t middle = (from + high + 1) / 2;
            if (entries[middle].granules_before <= granule) from = middle;
            else high = middle - 1;
        }
        return from;
    }
    bool full(uint64_t elements) const { return count == capacity || granules + granules_of(elements) > 0x7fffffffu; }
    void clear() { count = granules = 0; }
    void add(const Piece &piece) {
        TensorEntry<states> &entry = entries[count++];
        qlora_parameter parameter = piece.parameter;
        entry.value = address<void>(parameter.value);
        entry.gradient = address<void>(parameter.gradient);
        uint64_t places = reinterpret_cast<uint64_t>(entry.value) | reinterpret_cast<uint64_t>(entry.gradient);
        for (int k = 0; k < states; k++) {
            entry.state[k] = address<void>(state_span(parameter, k));
            entry.absmax[k] = address<float>(state_span(parameter, QLORA_STATE_ABSMAX1 + k));
            places |= reinterpret_cast<uint64_t>(entry.state[k]);
        }
        entry.count = parameter.count;
        entry.flags = TensorEntry<states>::code(parameter.value_type) | TensorEntry<states>::code(parameter.gradient_type) << 2 |
                      (parameter.flags & QLORA_PARAMETER_NO_DECAY ? entry_no_decay : 0) | (places % 16 == 0 ? entry_vector : 0);
        entry.rate_scale = parameter.learning_rate_scale;
        entry.granules_before = granules;
        entry.index = piece.index;
        entry.first = uint32_t(piece.first / state_granule);
        granules += uint32_t(granules_of(parameter.count));
    }
};
static_assert(sizeof(TensorList<1>) + rule_bytes <= parameter_bytes && sizeof(TensorList<2>) + rule_bytes <= parameter_bytes && sizeof(TensorList<3>) + rule_bytes <= parameter_bytes, "a list must fit");

// Four neighbours at once.
__device__ __forceinline__ void load4(const void *data, int type, int64_t index, float *values) {
    if (type == QLORA_FORMAT_F32) {
        const float4 four = *reinterpret_cast<const float4 *>(static_cast<const float *>(data) + index);
        values[0] = four.x; values[1] = four.y; values[2] = four.z; values[3] = four.w;
    } else {
        const uint2 words = *reinterpret_cast<const uint2 *>(static_cast<const uint16_t *>(data) + index);
        const bool half = type == QLORA_FORMAT_F16;
        values[0] = half ? f32_from_f16(words.x & 0xffffu) : f32_from_bf16(words.x & 0xffffu);
        values[1] = half ? f32_from_f16(words.x >> 16) : f32_from_bf16(words.x >> 16);
        values[2] = half ? f32_from_f16(words.y & 0xffffu) : f32_from_bf16(words.y & 0xffffu);
        values[3] = half ? f32_from_f16(words.y >> 16) : f32_from_bf16(words.y >> 16);
    }
}
__device__ __forceinline__ void store4(void *data, int type, int64_t index, const float *values) {
    if (type == QLORA_FORMAT_F32) {
        // As an instruction: the compiler is known to take such a store apart.
        asm volatile("st.global.v4.f32 [%0], {%1, %2, %3, %4};" ::"l"(static_cast<float *>(data) + index), "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3]) : "memory");
    } else {
        *reinterpret_cast<uint2 *>(static_cast<uint16_t *>(data) + index) =
            type == QLORA_FORMAT_F16 ? make_uint2(pack2<QLORA_FORMAT_F16>(values[0], values[1]), pack2<QLORA_FORMAT_F16>(values[2], values[3]))
                                     : make_uint2(pack2<QLORA_FORMAT_BF16>(values[0], values[1]), pack2<QLORA_FORMAT_BF16>(values[2], values[3]));
    }
}

} // namespace cuda
} // namespace qlora
