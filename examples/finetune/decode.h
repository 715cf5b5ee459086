// The few values that are decoded on the host: norms and adapters.
#pragma once

#include <cstdint>

namespace finetune {

float half_to_float(uint16_t half);
float bfloat_to_float(uint16_t bfloat);

} // namespace finetune
