// xa = x A^T; y = [x | scale xa] [W | B]^T + bias, one product over a longer depth; and the gradients.
#include "backends/cpu/gemm_cpu.h"

namespace qlora {
namespace cpu {

namespace {

// low[tokens][rank] in f32, for xa and dxa
Product product_into_low(float *low, uint64_t tokens, uint64_t rank, int32_t compute_type, float factor) {
    return Product{tokens, rank, {}, 0, compute_type, low, QLORA_FORMAT_F32, rank, factor, nullptr, false};
}

// xa = x A^T
Product product_xa(const qlora_tensor &x, const qlora_tensor &a, int32_t compute_type, float *xa) {
    Product product = product_into_low(xa, x.rows, a.rows, compute_type, 1);
    add_term(product, operand(x, true), operand(a, true), x.cols);
    return product;
}

// y = x W^T + bias + scale xa B^T
Product product_y(const qlora_linear_args &args) {
    Product product = product_into(args.y, args.compute_type, args.flags & QLORA_FLAG_ACCUMULATE);
    product.bias = optional<const float>(args.bias);
    add_term(product, operand(args.x, true), operand(*args.weight, true), args.weight->cols);
    if (args.a.type) add_term(product, operand(address<const float>(args.xa), args.a.rows, true), operand(args.b, true), args.a.rows, args.scale);
    return product;
}

} // namespace

uint64_t linear_scratch(Context &context, const qlora_linear_args &args) {
    const uint64_t bytes = product_scratch(context, product_y(args));
    return args.a.type ? most(bytes, product_scratch(context, product_xa(args.x, args.a, args.compute_type, nullptr))) : bytes;
}

int32_t linear(Context &context, const qlora_linear_args &args) {
    void *scratch = address<void>(args.scratch);
    if (args.a.type) multiply_product(context, product_xa(args.x, args.a, args.compute_type, address<float>(args.xa)), scratch);
    multiply_product(context, product_y(args), scratch);
    return QLORA_OK;
}

namespace {

// dxa = scale dy B
Product product_dxa(const qlora_linear_grad_args &args, float *dxa) {
    Product product = product_into_low(dxa, args.dy.rows, args.a.rows, args.compute_type, args.scale);
    add_term(product, operand(args.dy, true), operand(args.b, false), args.dy.cols);
    return product;
}

// dx = dy W + dxa A
Product product_dx(const qlora_linear_grad_args &args, const float *dxa) {
    Product product = product_into(args.dx, args.compute_type, args.flags & QLORA_FLAG_ACCUMULATE);
    add_term(product, operand(args.dy, true), operand(*args.weight, false), args.dy.cols);
    if (args.a.type) add_term(product, operand(dxa, args.a.rows, true), operand(args.a, false), args.a.rows);
    return product;
}

// da = dxa^T x
Product product_da(const qlora_linear_grad_args &args, const float *dxa) {
    Product product = product_into(args.da, args.compute_type, args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS);
    add_term(product, operand(dxa, args.a.rows, false), operand(args.x, false), args.dy.rows);
    return product;
}

// db = scale dy^T xa
Product product_db(const qlora_linear_grad_args &args, const float *xa) {
    Product product = product_into(args.db, args.compute_type, args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS);
    product.factor = args.scale;
    add_term(product, operand(args.dy, false), operand(xa, args.a.rows, false), args.dy.rows);
    return product;
}

// Pieces of scratch of linear_grad. xa counts even when the forward call's is given: types, shapes and flags decide.
struct Pieces {
    uint64_t dxa, xa, product, bytes;
    Pieces(Context &context, const qlora_linear_grad_args &args) {
        const uint64_t low = args.a.type ? align_scratch(args.dy.rows * args.a.rows * 4) : 0;
        dxa = 0;
        xa = dxa + low;
        product = xa + low;
        uint64_t needed = 0;
        if (args.a.type) needed = product_scratch(context, product_dxa(args, nullptr));
        if (args.dx.type) needed = most(needed, product_scratch(context, product_dx(args, nullptr)));
        if (args.da.type) needed = most(needed, product_scratch(context, product_da(args, nullptr)));
        if (args.db.type) needed = most(needed, product_scratch(context, product_db(args, nullptr)));
        if (args.db.type && args.x.type) needed = most(needed, product_scratch(context, product_xa(args.x, args.a, args.compute_type, nullptr)));
        bytes = product + needed;
    }
};

} // namespace

constexpr uint64_t strip = 256; // columns of dbias per task

void sum_columns(Context &context, const qlora_tensor &dy, bool accumulate, float *dbias) {
    const auto load = kernels_of(context).load[type_index(dy.type)];
    parallel(context, (dy.cols + strip - 1) / strip, [&](uint64_t unit, uint32_t) {
        const uint64_t begin = unit * strip, count = dy.cols - begin < strip ? dy.cols - begin : strip;
        double sum[strip];
        float row[strip];
        for (uint64_t c = 0; c < count; c++) sum[c] = accumulate ? double(dbias[begin + c]) : 0;
        for (uint64_t t = 0; t < dy.rows; t++) {
            load(element(dy, t, begin), count, row);
            for (uint64_t c = 0; c < count; c++) sum[c] += double(row[c]);
        }
        for (uint64_t c = 0; c < count; c++) dbias[begin + c] = float(sum[c]);
    });
}

uint64_t linear_grad_scratch(Context &context, const qlora_linear_grad_args &args) { return Pieces(context, args).bytes; }

int32_t linear_grad(Context &context, const qlora_linear_grad_args &args) {
    const Pieces pieces(context, args);
    char *place = address<char>(args.scratch);
    float *dxa = reinterpret_cast<float *>(place + pieces.dxa), *xa = optional<float>(args.xa);
    void *scratch = place + pieces.product;
    if (args.a.type && (args.dx.type || args.da.type)) multiply_product(context, product_dxa(args, dxa), scratch);
    if (args.da.type) multiply_product(context, product_da(args, dxa), scratch);
    if (args.db.type && !xa) {
        xa = reinterpret_cast<float *>(place + pieces.xa);
        multiply_product(context, product_xa(args.x, args.a, args.compute_type, xa), scratch);
    }
    if (args.db.type) multiply_product(context, product_db(args, xa), scratch);
    if (args.dbias.handle) sum_columns(context, args.dy, args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS, address<float>(args.dbias));
    if (args.dx.type) multiply_product(context, product_dx(args, dxa), scratch);
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
