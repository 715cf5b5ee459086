// The LoRA-fused linear layer and its gradients, as products with the adapter in the accumulation of the base.
#include "backends/vulkan/product_vulkan.h"
#include "backends/vulkan/sums_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

// Where linear_grad keeps dxa, xa when the caller brings none, and the partial sums of dbias.
struct Places {
    uint64_t dxa_bytes, xa_bytes, bias_bytes;
    uint64_t total() const { return dxa_bytes + xa_bytes + bias_bytes; }
};

Places places_of(const qlora_linear_grad_args &args) {
    const uint64_t low = align_scratch(args.dy.rows * args.a.rows * 4);
    Places places = {};
    if (args.a.type && (args.dx.type || args.da.type)) places.dxa_bytes = low;
    if (args.db.type && args.xa.handle == 0) places.xa_bytes = low;
    places.bias_bytes = column_sum_scratch(args.dy.rows, args.dy.cols); // dbias may be absent when sizes are asked
    return places;
}

} // namespace

uint64_t linear_scratch(Context &, const qlora_linear_args &) { return 0; }
uint64_t linear_grad_scratch(Context &, const qlora_linear_grad_args &args) {
    // xa may be absent when sizes are asked and present in the call; the larger answer serves both.
    return places_of(args).total();
}

int32_t linear(Context &context, const qlora_linear_args &args) {
    constexpr const char *entry = "qlora_linear_forward";
    Product product = product_of(*args.weight, false, args.x, args.y, args.compute_type);
    product.accumulate = args.flags & QLORA_FLAG_ACCUMULATE;
    product.bias = args.bias;
    if (args.a.type) {
        const qlora_tensor xa = float_tensor(args.xa, args.x.rows, args.a.rows);
        QLORA_TRY(enqueue_product(context, args.stream, entry, product_of(args.a, false, args.x, xa, args.compute_type)));
        product.xa = args.xa;
        product.b = args.b;
        product.rank = args.a.rows;
        product.xa_scale = args.scale;
    }
    return enqueue_product(context, args.stream, entry, product);
}

int32_t linear_grad(Context &context, const qlora_linear_grad_args &args) {
    constexpr const char *entry = "qlora_linear_grad";
    const uint64_t tokens = args.dy.rows, rank = args.a.rows;
    const bool accumulate = args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS;
    const Places places = places_of(args);
    const qlora_tensor dxa = float_tensor(part(args.scratch, 0, places.dxa_bytes), tokens, rank);
    qlora_tensor xa = float_tensor(args.xa, tokens, rank);
    Order order = Order::AFTER_PREVIOUS; // what follows a first dispatch is independent of it until the next barrier
    if (places.dxa_bytes) {
        Product product = product_of(args.b, true, args.dy, dxa, args.compute_type);
        product.alpha = args.scale;
        QLORA_TRY(enqueue_product(context, args.stream, entry, product, order));
        order = Order::WITH_PREVIOUS;
    }
    if (places.xa_bytes) {
        xa.data = part(args.scratch, places.dxa_bytes, places.xa_bytes);
        QLORA_TRY(enqueue_product(context, args.stream, entry, product_of(args.a, false, args.x, xa, args.compute_type), order));
    }
    order = Order::AFTER_PREVIOUS;
    if (args.dx.type) {
        Product product = product_of(*args.weight, true, args.dy, args.dx, args.compute_type);
        product.accumulate = args.flags & QLORA_FLAG_ACCUMULATE;
        if (args.a.type) {
            product.xa = dxa.data;
            product.b = args.a;
            product.rank = rank;
        }
        QLORA_TRY(enqueue_product(context, args.stream, entry, product, order));
        order = Order::WITH_PREVIOUS;
    }
    if (args.da.type) {
        Product product = product_of(args.x, true, dxa, args.da, args.compute_type);
        product.x_turned = true;
        product.accumulate = accumulate;
        QLORA_TRY(enqueue_product(context, args.stream, entry, product, order));
        order = Order::WITH_PREVIOUS;
    }
    if (args.db.type) {
        Product product = product_of(xa, true, args.dy, args.db, args.compute_type);
        product.x_turned = true;
        product.accumulate = accumulate;
        product.alpha = args.scale;
        QLORA_TRY(enqueue_product(context, args.stream, entry, product, order));
        order = Order::WITH_PREVIOUS;
    }
    if (!args.dbias.handle) return QLORA_OK;
    const qlora_span partial = part(args.scratch, places.dxa_bytes + places.xa_bytes, places.bias_bytes);
    return enqueue_column_sum(context, args.stream, {args.dy, qlora_tensor{}, qlora_span{}, part(args.dbias, 0, args.dy.cols * 4), accumulate}, partial, order);
}

} // namespace vulkan
} // namespace qlora
