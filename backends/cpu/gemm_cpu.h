// The one matrix product behind matmul, linear, their gradients and cross_entropy: y[rows][cols] as a sum of terms x w,
// whose operands are weights or plain matrices in either orientation, decoded panel by panel.
#pragma once
#include "backends/cpu/cpu.h"

namespace qlora {
namespace cpu {

// Elements (r, c) of a weight, or of a plain matrix of an element type.
struct Operand {
    const qlora_weight *weight; // or null
    const void *data;
    int32_t type;
    uint64_t stride;
    // True when the contraction runs along a row: row r, column k. Else row k, column r.
    bool turned;
};
inline Operand operand(const qlora_weight &weight, bool turned) { return Operand{&weight, nullptr, 0, 0, turned}; }
inline Operand operand(const qlora_tensor &tensor, bool turned) {
    return Operand{nullptr, address<const void>(tensor.data), tensor.type, tensor.stride, turned};
}
inline Operand operand(const float *data, uint64_t stride, bool turned) { return Operand{nullptr, data, QLORA_FORMAT_F32, stride, turned}; }

struct Term {
    Operand x, w;
    uint64_t depth;
    float factor; // multiplies x before it is rounded to the compute type
};

// y = factor * (sum of terms) + bias + (accumulate ? y : 0), with one rounding to type.
struct Product {
    uint64_t rows, cols;
    Term terms[2];
    int term_count;
    int32_t compute_type;
    void *y;
    int32_t type;
    uint64_t stride;
    float factor;
    const float *bias;
    bool accumulate;
};

inline Product product_into(const qlora_tensor &y, int32_t compute_type, bool accumulate) {
    return Product{y.rows, y.cols, {}, 0, compute_type, address<void>(y.data), y.type, y.stride, 1, nullptr, accumulate};
}
inline void add_term(Product &product, const Operand &x, const Operand &w, uint64_t depth, float factor = 1) {
    product.terms[product.term_count++] = Term{x, w, depth, factor};
}

// Bytes of scratch for a product, whose addresses are not looked at. Monotone in rows.
uint64_t product_scratch(Context &context, const Product &product);
void multiply_product(Context &context, const Product &product, void *scratch);

} // namespace cpu
} // namespace qlora
