// Column sums in a fixed order, shared by gradients of bias and norm weights.
#pragma once
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

constexpr int reduce_cols = 32, reduce_lanes = 8, reduce_rows = 1024; // of one block: 32 columns, 8 lanes over 1024 rows

// Partial sums f32[ceil(rows / reduce_rows)][cols] of column_sums.
inline uint64_t column_sums_partial(uint64_t rows, uint64_t cols) { return ceil_divide(rows, reduce_rows) * cols; }

// Rows as a norm leaves them before its weight: (x[r][c] - mean[r]) * factor[r]; mean null: 0.
struct Normed {
    View x;
    const float *factor, *mean;
};

// dst[c] (+)= sum over r of x[r][c] * (normed ? that of normed : 1).
int32_t column_sums(Context &context, cudaStream_t stream, const View &x, const Normed *normed, float *dst, bool accumulate, float *partial);

} // namespace cuda
} // namespace qlora
