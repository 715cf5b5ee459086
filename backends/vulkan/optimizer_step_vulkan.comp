// The step itself: a workgroup takes a granule of a piece in four turns of four blocks; an invocation takes four neighbours,
// which are a word of 8-bit codes, and 64 invocations share a block.
#version 450
#extension GL_GOOGLE_include_directive : require
#extension GL_EXT_control_flow_attributes : enable
layout(local_size_x = 256) in;

#include "backends/vulkan/common.glsl"
#include "backends/vulkan/codebooks.glsl"
#include "backends/vulkan/pairs.glsl"
#include "backends/vulkan/optimizer.glsl"

// Rounds a new value to its tensor's type: 16 bits of a half, or 32.
uint rounded_value(Piece piece, float moved, uint i) {
    uint bits = floatBitsToUint(moved);
    if (piece.value_type == F32) return bits;
    if (stochastic == 0u) return narrow(piece.value_type, bits);
    uint carry, low = uaddCarry(piece.place_low, i, carry);
    uint word = qlora_random(seed_low, seed_high ^ piece.tensor, low, piece.place_high + carry);
    return piece.value_type == F16 ? qlora_f16_from_f32_random(bits, word) : qlora_bf16_from_f32_random(bits, word);
}

// Nearest entry of a table of 256 from begin on; a tie goes to the even index. Signed states keep their sign.
uint state_code(float value, float absmax, bool is_signed) {
    uint begin = is_signed ? 0u : 256u, upper = 0u;
    float y = absmax > 0.0 ? divide(value, absmax) : 0.0;
    if (absmax == 0.0) return 0u;
    [[unroll]] for (uint half_way = 128u; half_way >= 1u; half_way >>= 1) upper += y > state_table[begin + upper + half_way - 1u] ? half_way : 0u;
    uint code;
    if (upper == 0u) code = 0u;
    else if (y > state_table[begin + upper]) code = 255u; // above all
    else {
        precise float middle = (state_table[begin + upper - 1u] + state_table[begin + upper]) * 0.5;
        code = y == middle ? upper & ~1u : y > middle ? upper : upper - 1u;
    }
    uint sign = floatBitsToUint(value) >> 31;
    if (is_signed && floatBitsToUint(state_table[code]) >> 31 != sign) code += value > 0.0 ? 1u : 255u;
    return code & 255u;
}

shared float block_maxima[256];
// The largest of a block's values, which are not negative.
float block_maximum(float value) {
    uint lane = gl_LocalInvocationIndex;
    barrier();
    block_maxima[lane] = value;
    barrier();
    for (uint half_way = 32u; half_way >= 1u; half_way >>= 1) {
        if ((lane & 63u) < half_way) block_maxima[lane] = max(block_maxima[lane], block_maxima[lane + half_way]);
        barrier();
    }
    return block_maxima[lane & ~63u];
}

void put_state(uint k, uint place, uint word) {
    if (k == 0u) state1_words[place] = word;
    else if (k == 1u) state2_words[place] = word;
    else state3_words[place] = word;
}
void put_absmax(uint k, uint place, float value) {
    if (k == 0u) absmax1[place] = value;
    else if (k == 1u) absmax2[place] = value;
    else absmax3[place] = value;
}

// Writes count (at most 4) codes from element i on, which is a multiple of 4.
void put_codes(Piece piece, uint k, uint i, uint count, uint word) {
    uint place = piece.state[k] + (i >> 2);
    if (count < 4u) {
        uint mask = (1u << (count * 8u)) - 1u;
        word = (word & mask) | (state_word(k, place) & ~mask);
    }
    put_state(k, place, word);
}

// Writes count rounded values from element i on, which is a multiple of 4.
void put_values(Piece piece, uint i, uint count, uint rounded[4]) {
    if (piece.value_type == F32) {
        for (uint e = 0u; e < count; e++) value_words[piece.value + i + e] = rounded[e];
        return;
    }
    [[unroll]] for (uint e = 0u; e < 4u; e += 2u) {
        uint place = piece.value + ((i + e) >> 1);
        if (count > e + 1u) value_words[place] = rounded[e] | (rounded[e + 1u] << 16);
        else if (count == e + 1u) value_words[place] = (value_words[place] & 0xffff0000u) | rounded[e];
    }
}
void put_zeros(Piece piece, uint i, uint count) {
    if (piece.gradient_type == F32) {
        for (uint e = 0u; e < count; e++) gradient_words[piece.gradient + i + e] = 0u;
        return;
    }
    for (uint e = 0u; e < count; e += 2u) {
        uint place = piece.gradient + ((i + e) >> 1);
        gradient_words[place] = count > e + 1u ? 0u : gradient_words[place] & 0xffff0000u;
    }
}

void main() {
    tables_begin();
    uint first;
    Piece piece = find_piece(first);
    if (first >= piece.count) return;
    for (uint turn = 0u; turn < 4u; turn++) {
        uint i = first + turn * 1024u + gl_LocalInvocationIndex * 4u, count = i < piece.count ? min(piece.count - i, 4u) : 0u;
        float fresh[3][4] = float[3][4](float[4](0.0, 0.0, 0.0, 0.0), float[4](0.0, 0.0, 0.0, 0.0), float[4](0.0, 0.0, 0.0, 0.0));
        if (skipped == 0u) {
            uint rounded[4] = uint[4](0u, 0u, 0u, 0u);
            [[dont_unroll]] for (uint e = 0u; e < count; e++) {
                uint p_bits = value_bits(piece, i + e), raw_bits = gradient_bits(piece, i + e);
                float p = uintBitsToFloat(p_bits), raw = uintBitsToFloat(raw_bits), s[3] = float[3](0.0, 0.0, 0.0);
                for (uint k = 0u; k < states; k++) s[k] = state_value(piece, k, i + e);
                bool lost = SMALL != 0u && !is_number(raw_bits), stays = skip_zeros != 0u && (raw_bits & 0x7fffffffu) == 0u;
                rounded[e] = piece.value_type == F32 ? p_bits : (value_words[piece.value + ((i + e) >> 1)] >> ((e & 1u) * 16u)) & 0xffffu;
                if (!lost && !stays) {
                    float g = gradient_of(piece, raw, p, true), old = s[0];
                    advance(g, p, s);
                    rounded[e] = rounded_value(piece, move(piece, p, direction(raw, g, p, s, old)), i + e);
                }
                for (uint k = 0u; k < 3u; k++) fresh[k][e] = lost ? 0.0 : s[k];
            }
            put_values(piece, i, count, rounded);
        }
        if (skipped == 0u)
            for (uint k = 0u; k < states; k++) {
                if (SMALL == 0u) {
                    for (uint e = 0u; e < count; e++) put_state(k, piece.state[k] + i + e, floatBitsToUint(fresh[k][e]));
                    continue;
                }
                float absmax = block_maximum(max(max(abs(fresh[k][0]), abs(fresh[k][1])), max(abs(fresh[k][2]), abs(fresh[k][3]))));
                uint word = 0u;
                for (uint e = 0u; e < count; e++) word |= state_code(fresh[k][e], absmax, k != 1u) << (e * 8u);
                if (count != 0u) put_codes(piece, k, i, count, word);
                if (count != 0u && (gl_LocalInvocationIndex & 63u) == 0u) put_absmax(k, piece.absmax[k] + (i >> 8), absmax);
            }
        if (zero_gradients != 0u && count != 0u) put_zeros(piece, i, count);
    }
}
