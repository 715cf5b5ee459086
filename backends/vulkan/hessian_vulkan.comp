// hessian[i] = hessian[i] * before + alpha * sum[i] over f64, for devices without f64: pairs of f32 whose sum is the value keep
// 48 bits of it, which is twice what the f32 sums are good for. before and alpha are such pairs.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/pairs.glsl"

layout(constant_id = 0) const uint ACCUMULATE = 0u; // else hessian is not read

layout(binding = 0, std430) readonly buffer Sums { float sums[]; };
layout(binding = 1, std430) buffer Hessian { uint hessian[]; }; // low and high word

QLORA_PUSH
    uint count;
    float before_high, before_low, alpha_high, alpha_low;
};

vec2 add(vec2 a, vec2 b) {
    vec2 sum = exact_sum(a.x, b.x);
    precise float low = sum.y + (a.y + b.y);
    return normal(sum.x, low);
}
vec2 multiply(vec2 a, vec2 b) {
    vec2 product = exact_product(a.x, b.x);
    precise float low = product.y + (a.x * b.y + a.y * b.x);
    return normal(product.x, low);
}

float power_of_two(int exponent) { return uintBitsToFloat(uint(exponent + 127) << 23); }
bool finite(float x) { return is_number(floatBitsToUint(x)); }

// What lies outside the range of f32 becomes 0 or infinity.
vec2 unpack(uint low, uint high) {
    uint sign = high & 0x80000000u, fraction = high & 0xfffffu;
    int exponent = int((high >> 20) & 0x7ffu) - 1023;
    if (exponent < -126) return vec2(0.0);
    if (exponent > 127) return vec2(uintBitsToFloat(sign | (exponent == 1024 && (fraction | low) != 0u ? 0x7fc00000u : 0x7f800000u)), 0.0);
    float top = uintBitsToFloat(sign | (uint(exponent + 127) << 23) | (fraction << 3) | (low >> 29));
    float rest = exponent < -60 ? 0.0 : float(low & 0x1fffffffu) * power_of_two(exponent / 2 - 26) * power_of_two(exponent - exponent / 2 - 26);
    return normal(top, sign != 0u ? -rest : rest);
}

uvec2 pack(vec2 value) {
    uint bits = floatBitsToUint(value.x), sign = bits & 0x80000000u;
    int exponent = int((bits >> 23) & 255u) - 127;
    if (exponent < -126) return uvec2(0u, sign);
    if (exponent == 128) return uvec2(0u, sign | ((bits & 0x7fffffu) != 0u ? 0x7ff80000u : 0x7ff00000u));
    uint mantissa = (bits & 0x7fffffu) | 0x800000u, high = mantissa >> 3, low = mantissa << 29; // of 53 bits
    float rest = exponent < -60 ? 0.0 : value.y * power_of_two(26 - exponent / 2) * power_of_two(26 - (exponent - exponent / 2));
    int units = int(roundEven(sign != 0u ? -rest : rest)); // at most 2^28
    if (units >= 0) {
        uint carry;
        low = uaddCarry(low, uint(units), carry);
        high += carry;
    } else {
        uint borrow;
        low = usubBorrow(low, uint(-units), borrow);
        high -= borrow;
    }
    if (high < 0x100000u) { // below the power of two
        high = (high << 1) | (low >> 31);
        low <<= 1;
        exponent -= 1;
    }
    return uvec2(low, sign | (uint(exponent + 1023) << 20) | (high & 0xfffffu));
}

void main() {
    uint i = group_index() * 256u + gl_LocalInvocationIndex, place = QLORA_BASE(1u) + 2u * i;
    if (i >= count) return;
    float sum = sums[QLORA_BASE(0u) + i];
    vec2 h = finite(sum) ? multiply(vec2(alpha_high, alpha_low), vec2(sum, 0.0)) : vec2(sum, 0.0);
    if (ACCUMULATE != 0u) {
        vec2 old = unpack(hessian[place], hessian[place + 1u]);
        if (finite(old.x) && finite(h.x)) h = add(multiply(old, vec2(before_high, before_low)), h);
        else h = vec2(old.x + h.x, 0.0);
    }
    uvec2 packed = pack(h);
    hessian[place] = packed.x;
    hessian[place + 1u] = packed.y;
}
