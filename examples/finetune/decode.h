// The few values that are decoded on the host: norms, adapters, and what the library does not take as it is.
#pragma once

#include <cstdint>
#include <vector>

namespace finetune {

float half_to_float(uint16_t half);
float bfloat_to_float(uint16_t bfloat);

// ggml's Q6_K, in which quantized files keep their head or embedding. elements is a multiple of 256.
std::vector<float> decode_q6_k(const uint8_t *blocks, uint64_t elements);

} // namespace finetune
