// dw = dy^T x and dbias = column sums of dy.
#include "backends/cuda/product.cuh"
#include "backends/cuda/reduce.cuh"

namespace qlora {
namespace cuda {

static Product product_of(const qlora_weight_gradient_args &args) {
    Product product = product_of(int64_t(args.dw.rows), int64_t(args.dw.cols), int64_t(args.dy.rows), args.compute_type);
    product.a = operand_of(args.dy, true);
    if (args.saved) product.weight = args.saved;
    else product.b = operand_of(args.x, true);
    product.b.turned = true;
    set_y(product, args.dw, args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS);
    return product;
}
static float *take_partial(const qlora_weight_gradient_args &args, Carver &carver) { return carver.take<float>(column_sums_partial(args.dy.rows, args.dw.rows)); }

uint64_t weight_gradient_scratch(Context &context, const qlora_weight_gradient_args &args) {
    Carver carver;
    take_partial(args, carver);
    return carver.bytes + multiply_scratch(context, product_of(args));
}

int32_t weight_gradient(Context &context, const qlora_weight_gradient_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    Carver carver(args.scratch);
    float *partial = take_partial(args, carver);
    QLORA_TRY(multiply(context, stream, product_of(args), carver));
    if (!args.dbias.handle) return QLORA_OK;
    return column_sums(context, stream, view_of(args.dy), nullptr, address<float>(args.dbias), args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS, partial);
}

} // namespace cuda
} // namespace qlora
