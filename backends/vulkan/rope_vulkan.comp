// Pair i of every head of x[token] turns by positions[token] * f_i / factors[i], in place. Angles are turns in fixed point:
// f_i = (start + whole) * ratio^i as a fraction of 64 bits, built from the powers ratio^1, 2, 4, ... that the host made in
// double, so that the position's multiple wraps exactly and no large angle ever meets f32. An invocation turns one pair of
// every head, or in the half layout two neighbours.
#version 450
#extension GL_GOOGLE_include_directive : require
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/math.glsl"

layout(constant_id = 0) const uint TYPE = 0x100u;
layout(constant_id = 1) const uint ADJACENT = 1u;
layout(constant_id = 2) const uint INVERSE = 0u;
layout(constant_id = 3) const uint FACTORS = 0u;
layout(constant_id = 4) const uint REVERSED = 0u; // powers count from the last pair: a freq_base below 1

layout(binding = 0, std430) buffer X { uint x_words[]; };
layout(binding = 1, std430) readonly buffer Positions { int positions[]; };
layout(binding = 2, std430) readonly buffer Factors { float factors[]; };

QLORA_PUSH
    uint rows, heads, head_dim, pairs, stride;
    float magnitude;
    uint whole, start_high, start_low, unused;
    uint powers[18]; // nine of {high, low}
};
QLORA_READ(read_x, x_words, 0u, TYPE)
QLORA_WRITE(write_x, x_words, 0u, TYPE)

// {whole turns, high, low}: a number with 64 fractional bits.
struct Turns { uint whole, high, low; };

void add(inout uint high, inout uint low, uint more_high, uint more_low) {
    uint carry;
    low = uaddCarry(low, more_low, carry);
    high += more_high + carry;
}

Turns times(Turns t, uint high, uint low) {
    uint p_high, p_low, q_high, q_low, r_high, r_low;
    Turns result;
    umulExtended(t.high, high, result.high, result.low);
    umulExtended(t.high, low, p_high, p_low);
    umulExtended(t.low, high, q_high, q_low);
    add(result.high, result.low, 0u, p_high);
    add(result.high, result.low, 0u, q_high);
    result.whole = 0u;
    if (t.whole != 0u) { // whole * fraction has 32 whole and 64 fractional bits
        umulExtended(t.whole, high, p_high, p_low);
        umulExtended(t.whole, low, q_high, q_low);
        uint carry, more;
        result.low = uaddCarry(result.low, q_low, carry);
        result.high = uaddCarry(result.high, carry, carry);
        result.high = uaddCarry(result.high, q_high, more);
        carry += more;
        result.high = uaddCarry(result.high, p_low, more);
        result.whole = p_high + carry + more;
    }
    return result;
}

// A float as fixed point, whole turns dropped.
void add_float(inout uint high, inout uint low, float value) {
    uint bits = floatBitsToUint(value), mantissa = (bits & 0x7fffffu) | 0x800000u;
    int shift = int((bits >> 23) & 255u) - 150 + 64;
    uint more_high = 0u, more_low = 0u;
    if (shift >= 64 || shift <= -24) return;
    if (shift >= 32) more_high = mantissa << uint(shift - 32);
    else if (shift > 0) { more_high = mantissa >> uint(32 - shift); more_low = mantissa << uint(shift); }
    else more_low = mantissa >> uint(-shift);
    if (value < 0.0) { // two's complement
        more_high = ~more_high;
        more_low = ~more_low;
        add(more_high, more_low, 0u, 1u);
    }
    add(high, low, more_high, more_low);
}

// t / factor, as the sum of two floats: the remainder of the first quotient is exact by splitting (Dekker 1971).
Turns divide(Turns t, float factor) {
    precise float head = float(t.whole) + float(t.high >> 8) * 5.9604644775390625e-8;
    precise float lost = float(t.high >> 8) * 5.9604644775390625e-8 - (head - float(t.whole));
    precise float tail = lost + float(((t.high & 255u) << 16) | (t.low >> 16)) * 3.552713678800501e-15;
    precise float quotient = head / factor;
    precise float q_split = quotient * 4097.0, q_high = q_split - (q_split - quotient), q_low = quotient - q_high;
    precise float f_split = factor * 4097.0, f_high = f_split - (f_split - factor), f_low = factor - f_high;
    precise float product = quotient * factor;
    precise float rest = ((q_high * f_high - product) + q_high * f_low + q_low * f_high) + q_low * f_low;
    precise float second = (((head - product) - rest) + tail) / factor;
    Turns result = Turns(0u, 0u, 0u);
    add_float(result.high, result.low, quotient);
    add_float(result.high, result.low, second);
    return result;
}

// {cosine, sine} of pair i at a position, with magnitude and direction.
vec2 rotation(uint i, int position) {
    Turns t = Turns(whole, start_high, start_low);
    uint steps = REVERSED != 0u ? pairs - 1u - i : i;
    for (uint b = 0u; b < 9u; b++)
        if (((steps >> b) & 1u) != 0u) t = times(t, powers[2u * b], powers[2u * b + 1u]);
    if (FACTORS != 0u) t = divide(t, factors[QLORA_BASE(2u) + i]);
    uint high, low, p = uint(position);
    umulExtended(t.low, p, high, low);
    uint phase = t.high * p + high + (position < 0 ? ~t.low + 1u : 0u);
    return cosine_sine(phase) * vec2(magnitude, INVERSE != 0u ? -magnitude : magnitude);
}

void main() {
    uint each = ADJACENT != 0u ? 1u : 2u, per_row = (pairs + each - 1u) / each, item = group_index() * 256u + gl_LocalInvocationIndex;
    uint r = item / per_row, i = (item - r * per_row) * each;
    if (r >= rows) return;
    int position = positions[QLORA_BASE(1u) + r];
    bool two = ADJACENT == 0u && i + 1u < pairs;
    vec2 left = rotation(i, position), right = two ? rotation(i + 1u, position) : vec2(0.0);
    for (uint h = 0u; h < heads; h++) {
        uint first = r * stride + h * head_dim + (ADJACENT != 0u ? 2u * i : i), second = first + (ADJACENT != 0u ? 1u : pairs);
        float x0 = read_x(first), x1 = read_x(second);
        float y0 = x0 * left.x - x1 * left.y, y1 = x0 * left.y + x1 * left.x;
        if (ADJACENT != 0u) {
            write_x_pair(first, y0, y1);
        } else if (two) {
            float z0 = read_x(first + 1u), z1 = read_x(second + 1u);
            write_x_pair(first, y0, z0 * right.x - z1 * right.y);
            write_x_pair(second, y1, z0 * right.y + z1 * right.x);
        } else {
            write_x(first, y0);
            write_x(second, y1);
        }
    }
}
