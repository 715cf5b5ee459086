// H = H * count / (count + batch) + 2 / (count + batch) * x^T x: the product of matmul, over the tokens.
#include "backends/cpu/gemm_cpu.h"

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t unit_elements = 1 << 16; // per task

bool is_wide(const qlora_hessian_args &args) { return (args.flags & QLORA_FLAG_WIDE) != 0; }

Product square_of(const qlora_hessian_args &args, float *y) {
    const uint64_t cols = args.x.cols;
    const double all = double(args.count) + double(args.batch);
    Product product = {cols, cols, {}, 0, QLORA_FORMAT_F32, y, QLORA_FORMAT_F32, cols, float(all > 0 ? 2 / all : 0), nullptr, args.count && !is_wide(args)};
    add_term(product, operand(args.x, false), operand(args.x, false), args.x.rows);
    return product;
}

// A wide H takes its product from scratch.
uint64_t narrow_bytes(const qlora_hessian_args &args) { return is_wide(args) ? align_scratch(args.x.cols * args.x.cols * 4) : 0; }

} // namespace

uint64_t hessian_scratch(Context &context, const qlora_hessian_args &args) { return narrow_bytes(args) + product_scratch(context, square_of(args, nullptr)); }

int32_t hessian(Context &context, const qlora_hessian_args &args) {
    const uint64_t count = args.x.cols * args.x.cols, units = divide_up(count, unit_elements);
    const double kept = args.count ? double(args.count) / (double(args.count) + double(args.batch)) : 0;
    char *scratch = address<char>(args.scratch);
    if (!is_wide(args)) {
        float *h = address<float>(args.hessian);
        parallel(context, args.count ? units : 0, [&](uint64_t unit, uint32_t) {
            for (uint64_t i = unit * unit_elements; i < least((unit + 1) * unit_elements, count); i++) h[i] = float(h[i] * kept);
        });
        multiply_product(context, square_of(args, h), scratch);
        return QLORA_OK;
    }
    float *square = reinterpret_cast<float *>(scratch);
    double *h = address<double>(args.hessian);
    multiply_product(context, square_of(args, square), scratch + narrow_bytes(args));
    parallel(context, units, [&](uint64_t unit, uint32_t) {
        for (uint64_t i = unit * unit_elements; i < least((unit + 1) * unit_elements, count); i++) h[i] = (args.count ? h[i] * kept : 0) + square[i];
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
