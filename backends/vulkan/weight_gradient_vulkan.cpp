// dw = dy^T x and dbias = column sums of dy: the product of linear_grad, with bytes as its second operand when x was saved so.
#include "backends/vulkan/product_vulkan.h"
#include "backends/vulkan/sums_vulkan.h"

namespace qlora {
namespace vulkan {

// dbias may be absent when sizes are asked.
uint64_t weight_gradient_scratch(Context &, const qlora_weight_gradient_args &args) { return column_sum_scratch(args.dy.rows, args.dy.cols); }

int32_t weight_gradient(Context &context, const qlora_weight_gradient_args &args) {
    constexpr const char *entry = "qlora_weight_gradient";
    const bool accumulate = args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS;
    Product product = args.saved ? product_of(*args.saved, true, args.dy, args.dw, args.compute_type) : product_of(args.x, true, args.dy, args.dw, args.compute_type);
    product.x_turned = true;
    product.accumulate = accumulate;
    QLORA_TRY(enqueue_product(context, args.stream, entry, product));
    if (!args.dbias.handle) return QLORA_OK;
    const Order order = args.dw.cols == 0 ? Order::AFTER_PREVIOUS : Order::WITH_PREVIOUS;
    return enqueue_column_sum(context, args.stream, {args.dy, qlora_tensor{}, qlora_span{}, part(args.dbias, 0, args.dy.cols * 4), accumulate}, args.scratch, order);
}

} // namespace vulkan
} // namespace qlora
