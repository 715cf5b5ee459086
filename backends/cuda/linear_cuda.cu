// xa = x A^T, y = x W^T + bias + scale * xa B^T, and the gradients. The low-rank product joins the base product's sum
// (product.cuh); its factor goes into xa before xa is rounded to the compute type.
#include "backends/cuda/product.cuh"
#include "backends/cuda/reduce.cuh"

#include <algorithm>

namespace qlora {
namespace cuda {

static void set_f32(Product &product, float *y, int64_t stride, bool accumulate = false) {
    product.y = y;
    product.y_stride = stride;
    product.y_type = QLORA_FORMAT_F32;
    product.accumulate = accumulate;
}

namespace {

// The products of one call; null pointers where only sizes are asked.
struct Forward {
    Product xa, y;
    explicit Forward(const qlora_linear_args &args) {
        const int64_t tokens = int64_t(args.x.rows), rank = int64_t(args.a.rows), rows = int64_t(args.weight->rows), cols = int64_t(args.weight->cols);
        xa = product_of(tokens, rank, cols, args.compute_type);
        xa.a = operand_of(args.x);
        xa.b = operand_of(args.a);
        set_f32(xa, address<float>(args.xa), rank);
        y = product_of(tokens, rows, cols, args.compute_type);
        y.a = operand_of(args.x);
        y.weight = args.weight;
        y.bias = args.bias.handle ? address<const float>(args.bias) : nullptr;
        y.low_k = rank;
        y.low_a = operand_of(xa.y, QLORA_FORMAT_F32, rank, false, args.scale);
        y.low_b = operand_of(args.b);
        set_y(y, args.y, args.flags & QLORA_FLAG_ACCUMULATE);
    }
};

struct Backward {
    bool adapter, needs_dxa, needs_xa;
    Carver carver;
    float *dxa_data, *xa_data, *partial;
    Product dxa, xa, dx, da, db;
    explicit Backward(const qlora_linear_grad_args &args) : carver(args.scratch) {
        const int64_t tokens = int64_t(args.dy.rows), rank = int64_t(args.a.rows), rows = int64_t(args.weight->rows), cols = int64_t(args.weight->cols);
        const bool accumulate = args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS;
        adapter = args.a.type != 0;
        needs_dxa = adapter && (args.dx.type || args.da.type);
        needs_xa = args.db.type && !args.xa.handle;
        dxa_data = needs_dxa ? carver.take<float>(uint64_t(tokens) * rank) : nullptr;
        // Room for xa by type alone: whether the caller has it is not known when sizes are asked with spans absent.
        xa_data = args.db.type ? carver.take<float>(uint64_t(tokens) * rank) : nullptr;
        partial = carver.take<float>(column_sums_partial(uint64_t(tokens), uint64_t(rows)));
        if (!needs_xa && args.xa.handle) xa_data = address<float>(args.xa);

        dxa = product_of(tokens, rank, rows, args.compute_type);
        dxa.a = operand_of(args.dy);
        dxa.b = operand_of(args.b, true);
        dxa.alpha = args.scale;
        set_f32(dxa, dxa_data, rank);

        xa = product_of(tokens, rank, cols, args.compute_type);
        xa.a = operand_of(args.x);
        xa.b = operand_of(args.a);
        set_f32(xa, xa_data, rank);

        dx = product_of(tokens, cols, rows, args.compute_type);
        dx.a = operand_of(args.dy);
        dx.weight = args.weight;
        dx.b.turned = true;
        dx.low_k = adapter ? rank : 0;
        dx.low_a = operand_of(dxa_data, QLORA_FORMAT_F32, rank);
        dx.low_b = operand_of(args.a, true);
        set_y(dx, args.dx, args.flags & QLORA_FLAG_ACCUMULATE);

        da = product_of(rank, cols, tokens, args.compute_type);
        da.a = operand_of(dxa_data, QLORA_FORMAT_F32, rank, true);
        da.b = operand_of(args.x, true);
        set_y(da, args.da, accumulate);

        db = product_of(rows, rank, tokens, args.compute_type);
        db.a = operand_of(args.dy, true);
        db.b = operand_of(xa_data, QLORA_FORMAT_F32, rank, true);
        db.alpha = args.scale;
        set_y(db, args.db, accumulate);
    }
};

} // namespace

uint64_t linear_scratch(Context &context, const qlora_linear_args &args) {
    const Forward forward(args);
    return std::max(multiply_scratch(context, forward.y), args.a.type ? multiply_scratch(context, forward.xa) : 0);
}

int32_t linear(Context &context, const qlora_linear_args &args) {
    DeviceScope scope(context);
    Forward forward(args);
    const Companions companions = {&forward.xa, {}};
    if (args.a.type) forward.y.companions = &companions;
    return multiply(context, stream_of(context, args), forward.y, Carver(args.scratch));
}

uint64_t linear_grad_scratch(Context &context, const qlora_linear_grad_args &args) {
    qlora_linear_grad_args sizes = args;
    sizes.scratch = qlora_span{};
    const Backward backward(sizes);
    uint64_t bytes = args.dx.type ? multiply_scratch(context, backward.dx) : 0;
    if (backward.needs_dxa) bytes = std::max(bytes, multiply_scratch(context, backward.dxa));
    if (args.da.type) bytes = std::max(bytes, multiply_scratch(context, backward.da));
    if (args.db.type) bytes = std::max({bytes, multiply_scratch(context, backward.db), multiply_scratch(context, backward.xa)});
    return backward.carver.bytes + bytes;
}

int32_t linear_grad(Context &context, const qlora_linear_grad_args &args) {
    DeviceScope scope(context);
    Backward backward(args);
    const Carver rest = backward.carver;
    const cudaStream_t stream = stream_of(context, args);
    if (args.db.type && backward.needs_xa) QLORA_TRY(multiply(context, stream, backward.xa, rest));
    const Companions companions = {backward.needs_dxa ? &backward.dxa : nullptr, {args.da.type ? &backward.da : nullptr, args.db.type ? &backward.db : nullptr}};
    if (args.dx.type) {
        backward.dx.companions = &companions;
        QLORA_TRY(multiply(context, stream, backward.dx, rest));
    } else {
        for (const Product *product : {companions.first, companions.after[0], companions.after[1]})
            if (product) QLORA_TRY(multiply(context, stream, *product, rest));
    }
    if (!args.dbias.handle) return QLORA_OK;
    return column_sums(context, stream, view_of(args.dy), nullptr, address<float>(args.dbias), args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS, backward.partial);
}

} // namespace cuda
} // namespace qlora
