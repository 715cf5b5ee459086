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

} // namespace finetune
