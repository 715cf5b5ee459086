// The few values that are decoded and encoded on the host: norms and adapters.
#pragma once

#include <cstdint>

namespace finetune {

float half_to_float(uint16_t half);
float bfloat_to_float(uint16_t bfloat);
// To the nearest, ties to even; too large values become infinite.
uint16_t float_to_half(float value);
uint16_t float_to_bfloat(float value);

} // namespace finetune
