// Matrix products, the engine under matmul, linear and cross_entropy. Operations describe a product; product_cuda.cu
// chooses how to compute it.
#pragma once
#include "backends/cuda/decode.cuh"

namespace qlora {
namespace cuda {

// Element (i, k) of a plain operand: data[i * stride + k], or data[k * stride + i] when turned. Its value, times scale
// (F32 only), is rounded to the compute type.
struct Operand {
    const void *data;
    int64_t stride;
    int32_t type;
    bool turned;
    bool vector; // eight neighbours at a multiple of eight are aligned to 16 bytes
    float scale;
};

inline Operand operand_of(const void *data, int32_t type, int64_t stride, bool turned = false, float scale = 1) {
    const int64_t bytes = type_bytes(type);
    return Operand{data, stride, type, turned, reinterpret_cast<uint64_t>(data) % 16 == 0 && stride * bytes % 16 == 0, scale};
}
inline Operand operand_of(const qlora_tensor &tensor, bool turned = false) {
    return operand_of(address<const void>(tensor.data), tensor.type, int64_t(tensor.stride), turned);
}

struct Product;

// Products around another: `first` makes its low_a, and `after` need what first made, but not what the other makes. So all of them
// can run while the weight of the other is decoded. Null where there is none.
struct Companions {
    const Product *first, *after[2];
};

// y[m][n] = (old y) + bias[n] + alpha * (sum over k of a[m][k] b[n][k] + sum over low_k of low_a[m][k] low_b[n][k]):
// one product with a low-rank one added before the only rounding. a and low_a agree in turned, and b and low_b too.
struct Product {
    int64_t m, n, k, low_k;
    Operand a, b, low_a, low_b;
    const qlora_weight *weight; // takes the place of b: W[n][k], or W[k][n] with b.turned
    const float *bias;          // or null
    const Companions *companions; // or null
    void *y;
    int64_t y_stride;
    int32_t y_type, compute_type;
    float alpha;
    bool accumulate;
};

inline Product product_of(int64_t m, int64_t n, int64_t k, int32_t compute_type) {
    Product product = {};
    product.m = m;
    product.n = n;
    product.k = k;
    product.compute_type = compute_type;
    product.alpha = 1;
    return product;
}
inline void set_y(Product &product, const qlora_tensor &y, bool accumulate) {
    product.y = address<void>(y.data);
    product.y_stride = int64_t(y.stride);
    product.y_type = y.type;
    product.accumulate = accumulate;
}

// Scratch is decided by shapes and types, and fewer rows m never need more. That of companions is not counted: they need theirs
// at other times.
uint64_t multiply_scratch(Context &context, const Product &product);
int32_t multiply(Context &context, cudaStream_t stream, const Product &product, Carver scratch);

// The kernels behind it. slices > 1 cut k; their sums go to partial, f32 [slices][m][n].
int32_t multiply_simt(Context &context, cudaStream_t stream, const Product &product, int slices, float *partial);
int32_t multiply_plain_mma(Context &context, cudaStream_t stream, const Product &product, int slices, float *partial);
template <Codec C, Scale S> int32_t multiply_weight_mma(Context &context, cudaStream_t stream, const Product &product, int slices, float *partial);
int32_t multiply_gemv(Context &context, cudaStream_t stream, const Product &product); // y = a W^T, m at most gemv_rows
int32_t multiply_gemv_blocks(Context &context, cudaStream_t stream, const Product &product); // for BLOCK and NARROW
// Products one side of which is a rank (low_rank_cuda.cu), on the tensor cores: what kind one is, by shapes, types and alignment.
enum class LowRank { NONE, NARROW, COLUMNS, WIDE };
constexpr int64_t most_rank = 32;
LowRank low_rank_kind(const Product &product);
int32_t multiply_low_rank(Context &context, cudaStream_t stream, const Product &product);

// One product [a | scale y] [W | B]^T in place of two, where y = a A^T is a NARROW product: what multiply_augmenting() does besides, which
// is to copy a to `a` with scale * y after each of its rows, and B to its place in the panel of W, both filled up with zeros to `ranks`
// columns, a multiple of eight. Elements are of the compute type.
struct Augmented {
    uint16_t *a, *b;    // b: the whole panel
    int64_t a_stride, b_stride, ranks;
    float scale;
    Operand low_b;
    int64_t n, k;       // of the product with W
};
int32_t multiply_augmenting(Context &context, cudaStream_t stream, const Product &narrow, const Augmented &augmented);
constexpr int64_t gemv_rows = 8, simt_m = 64, simt_n = 128, simt_k = 16, mma_m = 128, mma_n = 128, mma_k = 32;

// A range of k, in tiles, for one of several slices.
__device__ __forceinline__ void slice_of(int64_t tiles, int64_t &begin, int64_t &end) {
    const int64_t each = (tiles + gridDim.z - 1) / gridDim.z;
    begin = blockIdx.z * each;
    end = begin + each < tiles ? begin + each : tiles;
}

// What is done with a finished sum.
struct Epilogue {
    void *y;
    const float *bias;
    float *partial; // f32 [slices][m][n] instead of y, when not null
    int64_t m, n, stride;
    int32_t type;
    float alpha;
    bool accumulate, vector; // vector: eight columns from a multiple of eight are aligned to 16 bytes
    // Columns c .. c + 7 of row r, as far as they exist.
    __device__ __forceinline__ void put8(int64_t r, int64_t c, const float *sums) const {
        float values[8], old[8];
#pragma unroll
        for (int i = 0; i < 8; i++) values[i] = sums[i];
        if (partial) {
            store8(partial, QLORA_FORMAT_F32, (blockIdx.z * m + r) * n + c, n - c, vector, values);
            return;
        }
        finish8(r, c, values, old);
    }
    __device__ __forceinline__ void put(int64_t r, int64_t c, float sum) const {
        float value = alpha * sum;
        if (bias) value += bias[c];
        if (accumulate) value += load1(y, type, r * stride + c);
        store1(y, type, r * stride + c, value);
    }
    __device__ __forceinline__ void finish8(int64_t r, int64_t c, float (&values)[8], float (&old)[8]) const {
        const int64_t place = r * stride + c;
        if (accumulate) load8(y, type, place, n - c, vector, old);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            values[i] *= alpha;
            if (bias && c + i < n) values[i] += bias[c + i];
            if (accumulate) values[i] += old[i];
        }
        store8(y, type, place, n - c, vector, values);
    }
};
inline Epilogue epilogue_of(const Product &product, float *partial) {
    const bool vector = partial ? product.n % 8 == 0 : product.y_stride % 8 == 0 && reinterpret_cast<uint64_t>(product.y) % 16 == 0;
    return Epilogue{product.y, product.bias, partial, product.m, product.n, product.y_stride, product.y_type, product.alpha, product.accumulate, vector};
}

// The plain operands of a product as a kernel parameter: [0] of the product itself, [1] of the low-rank one. Indexed at
// run time, hence in constant memory (__grid_constant__).
struct Operands {
    Operand a[2], b[2];
};
inline Operands operands_of(const Product &product) { return Operands{{product.a, product.low_a}, {product.b, product.low_b}}; }

} // namespace cuda
} // namespace qlora
