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

// A block of 256 values has 210 bytes: low nibbles [128], high pairs of bits [64], i8 scales [16], f16 scale. Each half
// of 128 values lies in four quarters of 32 that share bytes.
std::vector<float> decode_q6_k(const uint8_t *blocks, uint64_t elements) {
    std::vector<float> values(elements);
    for (uint64_t block = 0; block < elements / 256; ++block) {
        const uint8_t *low = blocks + block * 210, *high = low + 128, *scales = low + 192;
        uint16_t half;
        memcpy(&half, low + 208, 2);
        const float scale = half_to_float(half);
        for (int n = 0; n < 2; ++n)
            for (int quarter = 0; quarter < 4; ++quarter)
                for (int i = 0; i < 32; ++i) {
                    const uint8_t nibbles = low[64 * n + 32 * (quarter % 2) + i];
                    const int code = (quarter < 2 ? nibbles & 15 : nibbles >> 4) | (high[32 * n + i] >> 2 * quarter & 3)
                                                                                       << 4;
                    const int8_t sub_scale = static_cast<int8_t>(scales[8 * n + 2 * quarter + i / 16]);
                    values[block * 256 + 128 * n + 32 * quarter + i] = scale * float(sub_scale) * float(code - 32);
                }
    }
    return values;
}

} // namespace finetune
