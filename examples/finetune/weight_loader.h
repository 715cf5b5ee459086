// A base's tensors on their way to their places: as the file holds them, quantized, or decoded and quantized anew; one at a
// time, and large ones in parts where their format allows, so that no weight is in memory twice.
#pragma once

#include "base_model.h"
#include "placed_weight.h"

namespace finetune {

// Writes a weight's planes as they are.
void load_stored(Device &device, const BaseTensor &tensor, const PlacedWeight &weight, qlora_span home);
void load_ready(Device &device, const HostWeight &ready, const PlacedWeight &weight, qlora_span home);

// Quantizes a tensor to the weight's format. `home` is where the planes shall lie: where the weight is placed, or host
// memory that the device copies to.
void load_quantized(Device &device, const BaseTensor &tensor, const PlacedWeight &weight, qlora_span home, bool on_host);

// The values of a weight that is quantized in its file.
std::vector<float> decode_weight(const StoredWeight &stored);

} // namespace finetune
