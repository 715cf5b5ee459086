// Sums down the columns of a tensor, for gradients of biases and norm weights.
#pragma once
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {

// sum f32[cols] = column sums of dy, or of dy * x * rstd when x is present; added to sum or instead of it. centers: what center.glsl
// takes from the rows of x, f32[rows][2], or absent.
struct ColumnSum {
    qlora_tensor dy, x;
    qlora_span rstd, sum;
    bool accumulate;
    qlora_span centers = {};
};

uint64_t column_sum_scratch(uint64_t rows, uint64_t cols);
int32_t enqueue_column_sum(Context &context, uint64_t stream, const ColumnSum &job, const qlora_span &partial, Order order);

} // namespace vulkan
} // namespace qlora
