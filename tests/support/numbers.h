// Element types on the host: packing f32 values into F32, F16 or BF16 bytes and back, through the library's own integers.
#pragma once
#include "qlora.h"

#include <cstdint>
#include <cstring>
#include <sstream>
#include <string>
#include <vector>

namespace test {

using uint = uint32_t;
#define QLORA_FUNCTION inline
#include "backends/numeric.inc"
#undef QLORA_FUNCTION

inline uint32_t bits_of(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return bits;
}
inline float from_bits(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

inline uint32_t element_bytes(int32_t type) { return type == QLORA_FORMAT_F32 ? 4 : 2; }

inline float round_to(int32_t type, float value) {
    const uint32_t bits = bits_of(value);
    if (type == QLORA_FORMAT_F16) return from_bits(qlora_f32_from_f16(qlora_f16_from_f32(bits)));
    if (type == QLORA_FORMAT_BF16) return from_bits(qlora_f32_from_bf16(qlora_bf16_from_f32(bits)));
    return value;
}

inline void store(int32_t type, float value, uint8_t *place) {
    const uint32_t bits = bits_of(value);
    if (type == QLORA_FORMAT_F32) { std::memcpy(place, &bits, 4); return; }
    const uint16_t half = uint16_t(type == QLORA_FORMAT_F16 ? qlora_f16_from_f32(bits) : qlora_bf16_from_f32(bits));
    std::memcpy(place, &half, 2);
}
inline float load(int32_t type, const uint8_t *place) {
    uint32_t bits = 0;
    std::memcpy(&bits, place, element_bytes(type));
    if (type == QLORA_FORMAT_F16) bits = qlora_f32_from_f16(bits);
    if (type == QLORA_FORMAT_BF16) bits = qlora_f32_from_bf16(bits);
    return from_bits(bits);
}

inline std::vector<uint8_t> pack(int32_t type, const std::vector<float> &values) {
    std::vector<uint8_t> bytes(values.size() * element_bytes(type));
    for (size_t i = 0; i < values.size(); i++) store(type, values[i], bytes.data() + i * element_bytes(type));
    return bytes;
}
inline std::vector<float> unpack(int32_t type, const std::vector<uint8_t> &bytes) {
    std::vector<float> values(bytes.size() / element_bytes(type));
    for (size_t i = 0; i < values.size(); i++) values[i] = load(type, bytes.data() + i * element_bytes(type));
    return values;
}

template <class T> std::vector<uint8_t> bytes_of(const std::vector<T> &values) {
    std::vector<uint8_t> bytes(values.size() * sizeof(T));
    if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
    return bytes;
}

// "f32", "nf4-dq": the name of a format number, for messages.
inline std::string format_name(int32_t format) {
    qlora_format_info info = {};
    info.struct_size = sizeof info;
    return qlora_format_query(format, &info) == QLORA_OK ? info.name : "none";
}

// One sentence from parts, for messages of tests.
template <class... Parts> std::string text(const Parts &...parts) {
    std::ostringstream stream;
    (stream << ... << parts);
    return stream.str();
}

constexpr int32_t types[] = {QLORA_FORMAT_F32, QLORA_FORMAT_F16, QLORA_FORMAT_BF16};

} // namespace test
