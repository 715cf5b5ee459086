// y[tokens][rows] = x W^T and dx[tokens][cols] = dy W: one product each, the weight decoded in the orientation it needs.
#include "backends/cpu/gemm_cpu.h"

namespace qlora {
namespace cpu {

namespace {

Product forward(const qlora_matmul_args &args) {
    Product product = product_into(args.y, args.compute_type, args.flags & QLORA_FLAG_ACCUMULATE);
    add_term(product, operand(args.x, true), operand(*args.weight, true), args.weight->cols);
    return product;
}

// In the gradient call y holds dy and x receives dx.
Product backward(const qlora_matmul_args &args) {
    Product product = product_into(args.x, args.compute_type, args.flags & QLORA_FLAG_ACCUMULATE);
    add_term(product, operand(args.y, true), operand(*args.weight, false), args.weight->rows);
    return product;
}

} // namespace

uint64_t matmul_scratch(Context &context, const qlora_matmul_args &args) { return product_scratch(context, forward(args)); }
uint64_t matmul_grad_scratch(Context &context, const qlora_matmul_args &args) { return product_scratch(context, backward(args)); }

int32_t matmul(Context &context, const qlora_matmul_args &args) {
    multiply_product(context, forward(args), address<void>(args.scratch));
    return QLORA_OK;
}

int32_t matmul_grad(Context &context, const qlora_matmul_args &args) {
    multiply_product(context, backward(args), address<void>(args.scratch));
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
