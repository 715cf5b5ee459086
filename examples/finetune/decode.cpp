#include "decode.h"

#include <cstring>

namespace finetune {

float half_to_float(uint16_t half) {
    const uint32_t sign = uint32_t(half & 0x8000) << 16;
    uint32_t exponent = half >> 10 & 31, fraction = half & 1023;
    uint32_t bits;
    if (exponent == 31) {
        bits = sign | 0x7f800000 | fraction << 13;
    } else if (exponent != 0) {
        bits = sign | (exponent + 112) << 23 | fraction << 13;
    } else if (fraction == 0) {
        bits = sign;
    } else { // subnormal: shift until the leading one is implicit
        exponent = 113;
        while ((fraction & 1024) == 0) {
            fraction <<= 1;
            --exponent;
        }
        bits = sign | exponent << 23 | (fraction & 1023) << 13;
    }
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

float bfloat_to_float(uint16_t bfloat) {
    const uint32_t bits = uint32_t(bfloat) << 16;
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

uint16_t float_to_half(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    const uint32_t sign = bits >> 16 & 0x8000;
    const uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000) return uint16_t(sign | 0x7e00);
    if (magnitude >= 0x47800000) return uint16_t(sign | 0x7c00); // 65536 and more
    uint32_t shift = 13, mantissa = magnitude, base = 112u << 10;
    if (magnitude < 0x38800000) { // below the normal halves: the leading one is no longer implicit
        const uint32_t exponent = magnitude >> 23;
        if (exponent < 102) return uint16_t(sign);
        mantissa = (magnitude & 0x7fffff) | 0x800000;
        shift = 126 - exponent;
        base = 0;
    }
    uint32_t half = (mantissa >> shift) - base;
    const uint32_t rest = mantissa & ((1u << shift) - 1), middle = 1u << (shift - 1);
    half += rest > middle || (rest == middle && (half & 1) != 0);
    return uint16_t(sign | half);
}

uint16_t float_to_bfloat(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    if ((bits & 0x7fffffff) > 0x7f800000) return uint16_t(bits >> 16 | 0x40);
    return uint16_t((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

} // namespace finetune
