// Rows of f32 values to signed bytes, for weights of format INT8 and for activations of the products in int8.
#pragma once
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

constexpr float int8_part = 1.0f / 127.0f;
constexpr float int8_least = 1.504632769052528e-36f; // 2^-119: an absmax below it counts as zero

// What is quantized: x[r][c], times scales[c] * (1 / 127) where scales are given (one_scale: scales[0] for every column).
struct Int8Rows {
    View x;
    const float *scales;
    bool one_scale;
    float limit;      // magnitudes from here on are no part of an absmax and have code 0
    int8_t *codes;    // [rows][stride], zero beyond the columns of x
    int64_t stride;
    float *absmax;    // of each row
    uint8_t *outliers; // set to 1 for columns where a magnitude reaches limit, or null
};
// absmax and codes of each row by itself.
int32_t quantize_rows(Context &context, cudaStream_t stream, const Int8Rows &rows);

} // namespace cuda
} // namespace qlora
