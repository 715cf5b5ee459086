// dw[rows][cols] = dy^T x: the product that linear_grad forms for da, in the same order; and the column sums of dy.
#include "backends/cpu/gemm_cpu.h"

namespace qlora {
namespace cpu {

namespace {

Product product_dw(const qlora_weight_gradient_args &args) {
    Product product = product_into(args.dw, args.compute_type, args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS);
    add_term(product, operand(args.dy, false), args.saved ? operand(*args.saved, false) : operand(args.x, false), args.dy.rows);
    return product;
}

} // namespace

uint64_t weight_gradient_scratch(Context &context, const qlora_weight_gradient_args &args) { return product_scratch(context, product_dw(args)); }

int32_t weight_gradient(Context &context, const qlora_weight_gradient_args &args) {
    multiply_product(context, product_dw(args), address<void>(args.scratch));
    if (args.dbias.handle) sum_columns(context, args.dy, args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS, address<float>(args.dbias));
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
