// Byte layout of interleaved blocks, as files hold them: little-endian, no padding. blocks.inc says what the fields mean.
#pragma once
#include <cstdint>

namespace qlora {

// f16 values are held as bit patterns. In 32-blocks element j is the low nibble of byte j and element j + 16 the high one.
struct BlockQ4_0 { uint16_t scale; uint8_t codes[16]; };
struct BlockQ4_1 { uint16_t scale, minimum; uint8_t codes[16]; };
struct BlockQ5_0 { uint16_t scale; uint8_t high[4], codes[16]; };
struct BlockQ5_1 { uint16_t scale, minimum; uint8_t high[4], codes[16]; };
struct BlockQ8_0 { uint16_t scale; int8_t codes[32]; };
struct BlockIQ4_NL { uint16_t scale; uint8_t codes[16]; };
struct BlockMXFP4 { uint8_t power, codes[16]; };
struct BlockNVFP4 { uint8_t scales[4], codes[32]; };

// Super-blocks of 256.
struct BlockQ2_K { uint8_t scales[16], codes[64]; uint16_t scale, minimum; };
struct BlockQ3_K { uint8_t high[32], codes[64], scales[12]; uint16_t scale; };
struct BlockQ4_K { uint16_t scale, minimum; uint8_t scales[12], codes[128]; };
struct BlockQ5_K { uint16_t scale, minimum; uint8_t scales[12], high[32], codes[128]; };
struct BlockQ6_K { uint8_t codes[128], high[64]; int8_t scales[16]; uint16_t scale; };
struct BlockIQ4_XS { uint16_t scale, scales_high; uint8_t scales_low[4], codes[128]; };

static_assert(sizeof(BlockQ4_0) == 18, "ggml block_q4_0");
static_assert(sizeof(BlockQ8_0) == 34, "ggml block_q8_0");
// The sizes of the others are asserted against their rows in formats.h.

} // namespace qlora
