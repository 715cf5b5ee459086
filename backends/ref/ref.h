// What the scalar reference shares: element access, rounding, and matrices in double. Slow on purpose and by permission;
// the oracle must be easy to believe.
#pragma once
#include "backends/backend.h"

#include <cmath>
#include <cstring>
#include <initializer_list>

namespace qlora {
namespace ref {

typedef uint32_t uint;
#define QLORA_FUNCTION inline
#define QLORA_PRECISE const
#define QLORA_PRODUCT(a, b) ((a) * (b))
#include "backends/numeric.inc"
#include "backends/affine.inc"
#include "backends/bilevel.inc"
#undef QLORA_FUNCTION
#undef QLORA_PRECISE
#undef QLORA_PRODUCT

inline uint32_t bits_of(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }
inline float float_of(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }

// Element index of a plain array of the given type, as f32 (exact).
inline float load(const void *data, int32_t type, uint64_t index) {
    if (type == QLORA_FORMAT_F32) { float value; std::memcpy(&value, static_cast<const char *>(data) + index * 4, 4); return value; }
    uint16_t half;
    std::memcpy(&half, static_cast<const char *>(data) + index * 2, 2);
    return float_of(type == QLORA_FORMAT_F16 ? qlora_f32_from_f16(half) : qlora_f32_from_bf16(half));
}

// Stores with one rounding to nearest even.
inline void store(void *data, int32_t type, uint64_t index, float value) {
    if (type == QLORA_FORMAT_F32) { std::memcpy(static_cast<char *>(data) + index * 4, &value, 4); return; }
    const uint16_t half = uint16_t(type == QLORA_FORMAT_F16 ? qlora_f16_from_f32(bits_of(value)) : qlora_bf16_from_f32(bits_of(value)));
    std::memcpy(static_cast<char *>(data) + index * 2, &half, 2);
}

// A value rounded once to a compute type and back.
inline float round_to(int32_t type, float value) {
    if (type == QLORA_FORMAT_F16) return float_of(qlora_f32_from_f16(qlora_f16_from_f32(bits_of(value))));
    if (type == QLORA_FORMAT_BF16) return float_of(qlora_f32_from_bf16(qlora_bf16_from_f32(bits_of(value))));
    return value;
}

inline float get(const qlora_tensor &tensor, uint64_t r, uint64_t c) {
    return load(address<const void>(tensor.data), tensor.type, r * tensor.stride + c);
}
inline void set(const qlora_tensor &tensor, uint64_t r, uint64_t c, double value) {
    store(address<void>(tensor.data), tensor.type, r * tensor.stride + c, float(value));
}
// Overwrites or adds, with one rounding to the tensor's type.
inline void put(const qlora_tensor &tensor, uint64_t r, uint64_t c, double value, bool accumulate) {
    set(tensor, r, c, accumulate ? double(get(tensor, r, c)) + value : value);
}

// ERROR_VALUE naming the first NaN or infinity of what an operation is about to quantize.
inline int32_t refuse_not_finite(Context &context, const char *entry, const qlora_tensor &src) {
    for (uint64_t r = 0; r < src.rows; r++)
        for (uint64_t c = 0; c < src.cols; c++)
            if ((bits_of(get(src, r, c)) & 0x7f800000u) == 0x7f800000u)
                return context.fail(QLORA_ERROR_VALUE, "%s: src element %llu (row %llu, column %llu) is NaN or infinite; clean the tensor first", entry,
                                    (unsigned long long)(r * src.cols + c), (unsigned long long)r, (unsigned long long)c);
    return QLORA_OK;
}

// A matrix of doubles in host memory, freed at the end of its scope.
struct Grid {
    Context &context;
    uint64_t rows, cols;
    double *data;
    Grid(Context &context, uint64_t rows, uint64_t cols)
        : context(context), rows(rows), cols(cols),
          data(static_cast<double *>(context.allocate(bytes(), "ref matrix"))) {
        if (data) std::memset(data, 0, bytes());
    }
    ~Grid() { context.release(data, bytes()); }
    Grid(const Grid &) = delete;
    size_t bytes() const { return size_t(rows > 0 && cols > 0 ? rows * cols : 1) * sizeof(double); }
    double *operator[](uint64_t r) { return data + r * cols; }
    int32_t status() const {
        return data ? QLORA_OK : context.fail(QLORA_ERROR_MEMORY, "ref: no host memory for a %llu x %llu matrix", (unsigned long long)rows, (unsigned long long)cols);
    }
};

// Fills grid with a tensor, each element rounded to a compute type; transposed if grid is its transpose.
inline void fill(Grid &grid, const qlora_tensor &tensor, int32_t compute_type, bool transposed = false) {
    for (uint64_t r = 0; r < tensor.rows; r++)
        for (uint64_t c = 0; c < tensor.cols; c++)
            (transposed ? grid[c][r] : grid[r][c]) = round_to(compute_type, get(tensor, r, c));
}

// y += x w, with w[k][n]: plain products summed in double.
inline void multiply(Grid &x, Grid &w, Grid &y) {
    for (uint64_t m = 0; m < x.rows; m++)
        for (uint64_t k = 0; k < w.rows; k++) {
            const double value = x[m][k];
            const double *row = w[k];
            double *out = y[m];
            for (uint64_t n = 0; n < w.cols; n++) out[n] += value * row[n];
        }
}

// INT8: absmax of row r of a weight, what a code of it is worth, and what one divided by absmax is worth in codes.
constexpr float int8_part = 1.0f / 127.0f;
constexpr float int8_least = 0x1p-119f; // an absmax below it counts as zero, so that its 127th part is normal
inline float int8_absmax(const qlora_weight &weight, uint64_t r) {
    return load(address<const void>(weight.planes[QLORA_PLANE_SCALE]), QLORA_FORMAT_F32, row_scale(weight, r));
}
inline float int8_scale(const qlora_weight &weight, uint64_t r) { return int8_absmax(weight, r) * int8_part; }
inline float int8_inverse(float absmax) { return absmax > 0 ? 127.0f / absmax : 0.0f; }
// To nearest even.
inline int8_t int8_code(float x, float inverse) { return int8_t(std::nearbyint(x * inverse)); }

// Decoded element index (flattened) of a weight, in f32. Defined in decode_ref.cpp over formats.def.
typedef float (*Decode)(const qlora_weight &weight, uint64_t index);
Decode decoder(int32_t format);
// Fills grid with a weight, rounded to a compute type; transposed if grid is [cols][rows].
void fill(Grid &grid, const qlora_weight &weight, int32_t compute_type, bool transposed);

} // namespace ref
} // namespace qlora
