// Byte layout of interleaved blocks (ggml formats). Little-endian, no padding, aligned to 2 bytes.
#pragma once
#include <cstdint>

namespace qlora {

struct BlockQ4_0 { uint16_t scale; uint8_t codes[16]; }; // element j: low nibble of byte j, j + 16: high nibble
struct BlockQ8_0 { uint16_t scale; int8_t codes[32]; };

static_assert(sizeof(BlockQ4_0) == 18, "ggml block_q4_0");
static_assert(sizeof(BlockQ8_0) == 34, "ggml block_q8_0");

} // namespace qlora
