// y = x W^T and dx = dy W.
#include "backends/cuda/product.cuh"

namespace qlora {
namespace cuda {

static Product forward(const qlora_matmul_args &args) {
    Product product = product_of(int64_t(args.x.rows), int64_t(args.weight->rows), int64_t(args.weight->cols), args.compute_type);
    product.a = operand_of(args.x);
    product.weight = args.weight;
    set_y(product, args.y, args.flags & QLORA_FLAG_ACCUMULATE);
    return product;
}

static Product backward(const qlora_matmul_args &args) {
    Product product = product_of(int64_t(args.y.rows), int64_t(args.weight->cols), int64_t(args.weight->rows), args.compute_type);
    product.a = operand_of(args.y);
    product.weight = args.weight;
    product.b.turned = true;
    set_y(product, args.x, args.flags & QLORA_FLAG_ACCUMULATE);
    return product;
}

uint64_t matmul_scratch(Context &context, const qlora_matmul_args &args) { return multiply_scratch(context, forward(args)); }
uint64_t matmul_grad_scratch(Context &context, const qlora_matmul_args &args) { return multiply_scratch(context, backward(args)); }

int32_t matmul(Context &context, const qlora_matmul_args &args) {
    DeviceScope scope(context);
    return multiply(context, stream_of(context, args), forward(args), Carver(args.scratch));
}

int32_t matmul_grad(Context &context, const qlora_matmul_args &args) {
    DeviceScope scope(context);
    return multiply(context, stream_of(context, args), backward(args), Carver(args.scratch));
}

} // namespace cuda
} // namespace qlora
