// Every matrix product of this backend is one of these: weights, adapters, gradients, logits.
#pragma once
#include "backends/vulkan/weight_vulkan.h"

namespace qlora {
namespace vulkan {

// y[m][n] = alpha * sum_k x[m][k] w[n][k] + bias[n] + scale * sum_j xa[m][j] b[n][j], added to beta * y or instead of it.
// turned operands are read the other way: x[k][m]; w[k][n] together with b[j][n].
struct Product {
    qlora_weight weight;
    uint64_t weight_stride;
    bool weight_turned, x_turned, accumulate;
    qlora_tensor x, y;
    uint64_t x_first, y_first, rows; // rows of x and y in use, from these on; rows 0 = all of y
    int32_t compute_type;
    float alpha, beta;
    qlora_span bias, xa;             // xa: f32 [rows][rank], absent = no extension
    qlora_tensor b;
    uint64_t rank;
    float xa_scale;
};

inline Product product_of(const qlora_weight &weight, bool turned, const qlora_tensor &x, const qlora_tensor &y, int32_t compute_type) {
    Product product = {};
    product.weight = weight;
    product.weight_stride = weight.cols;
    product.weight_turned = turned;
    product.x = x;
    product.y = y;
    product.compute_type = compute_type;
    product.alpha = product.beta = product.xa_scale = 1;
    return product;
}
// The same with plain floats in the place of the weight.
inline Product product_of(const qlora_tensor &w, bool turned, const qlora_tensor &x, const qlora_tensor &y, int32_t compute_type) {
    Product product = product_of(weight_of(w), turned, x, y, compute_type);
    product.weight_stride = w.stride;
    return product;
}

int32_t enqueue_product(Context &context, uint64_t stream, const char *entry, const Product &product, Order order = Order::AFTER_PREVIOUS);

} // namespace vulkan
} // namespace qlora
