// Streams of codes in words. The includer has BITS, the constant of codes of the code plane.
#include "backends/affine.inc"

// The code that begins at a bit (0..31) of a word; following is the next word, of no meaning where the code ends in the first.
uint stream_code(uint word, uint following, uint bit, uint bits) {
    uint byte = bit >> 3;
    return qlora_stream_code((word >> (byte * 8u)) & 255u, byte == 3u ? following & 255u : (word >> (byte * 8u + 8u)) & 255u, bit & 7u, bits);
}

// Defines name(i): code i of the stream at a binding; nothing is read behind it.
#define QLORA_STREAM(name, words, binding, bits)                                                              \
    uint name(uint i) {                                                                                       \
        uint bit = (i & 31u) * (bits), place = QLORA_BASE(binding) + (i >> 5) * (bits) + (bit >> 5);              \
        bit &= 31u;                                                                                           \
        return stream_code(words[place], bit + (bits) > 32u ? words[place + 1u] : 0u, bit, bits);               \
    }
QLORA_STREAM(stream_code_at, code_words, 0u, BITS)

// Codes i to i + 7 of the code plane, i a multiple of 8: as many bytes as a code has bits.
void stream_codes(uint i, out uint codes[8]) {
    uint byte = (i >> 3) * BITS, place = QLORA_BASE(0u) + (byte >> 2), shift = (byte & 3u) * 8u;
    uint low = code_words[place], high = shift + BITS * 8u > 32u ? code_words[place + 1u] : 0u, mask = (1u << BITS) - 1u;
    if (BITS == 3u && shift != 0u) low = (low >> shift) | (high << (32u - shift));
    if (BITS == 2u) low >>= shift;
    [[unroll]] for (uint e = 0u; e < 8u; e++) codes[e] = ((BITS == 8u && e > 3u ? high : low) >> (e * BITS & 31u)) & mask;
}

