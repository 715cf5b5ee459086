// Rows of floats as signed bytes with a scale each: for weights of format INT8, and for the activations that meet them.
#pragma once
#include "backends/vulkan/weight_vulkan.h"

namespace qlora {
namespace vulkan {

// codes[r][c] = x[r][c] / absmax[r] * 127, rows padded bytes apart. inverse is f32[rows] of the caller's scratch.
struct RowCodes {
    qlora_tensor x;
    const qlora_weight *fold;            // x[r][c] counts times the scale of this weight's row c; null = as it is
    float threshold;                     // elements that reach it make outliers of their columns; 0 = none
    qlora_span outliers;                 // a bit for each column, zero before
    qlora_span absmax, inverse, codes;
    uint64_t padded;
    bool one;                            // one absmax in all; then maxima holds f32[rows]
    qlora_span maxima;
};

int32_t enqueue_row_codes(Context &context, uint64_t stream, const char *entry, const RowCodes &job);

} // namespace vulkan
} // namespace qlora
