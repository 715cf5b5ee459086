// y = x W^T and dx = dy W in int8: absmax of the rows and outlier columns first, then one product.
#include "backends/cpu/int8_product_cpu.h"
#include "backends/cpu/quantize_cpu.h"

#include <cmath>

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t strip = 1024; // columns looked at for outliers by a task, and elements of a row at a time

// Absmax below limit of every row of activations, as they will be quantized. In *bad the first element that is not finite.
void find_absmax(Context &context, const Int8Rows &rows, float limit, float *absmax, FirstBad &bad) {
    const Kernels &kernels = kernels_of(context);
    parallel(context, rows.x.rows, [&](uint64_t r, uint32_t) {
        float x[strip], most = 0;
        for (uint64_t k = 0; k < rows.x.cols; k += strip) {
            const uint64_t here = least(strip, rows.x.cols - k);
            rows.read(kernels, r, k, here, x);
            bad.found(kernels.find_not_finite(x, here), here, r * rows.x.cols + k);
            most = std::fmax(most, kernels.absmax_below(x, here, limit));
        }
        absmax[r] = int8_absmax(most);
    });
}

// Columns in which any magnitude reaches limit, ascending.
uint64_t find_outliers(Context &context, const Int8Rows &rows, float limit, uint32_t *outliers) {
    const Kernels &kernels = kernels_of(context);
    const uint64_t cols = rows.x.cols;
    parallel(context, divide_up(cols, strip), [&](uint64_t unit, uint32_t) {
        const uint64_t first = unit * strip, here = least(strip, cols - first);
        float x[strip], most[strip] = {};
        for (uint64_t r = 0; r < rows.x.rows; r++) {
            rows.read(kernels, r, first, here, x);
            for (uint64_t i = 0; i < here; i++) {
                const float magnitude = x[i] < 0 ? -x[i] : x[i];
                most[i] = magnitude > most[i] ? magnitude : most[i];
            }
        }
        for (uint64_t i = 0; i < here; i++) outliers[first + i] = most[i] >= limit;
    });
    uint64_t count = 0;
    for (uint64_t c = 0; c < cols; c++)
        if (outliers[c]) outliers[count++] = uint32_t(c);
    return count;
}

int32_t status_of(Context &context, const FirstBad &bad, const char *thing, uint64_t cols) {
    const uint64_t i = bad.index.load();
    if (i == bad.none) return QLORA_OK;
    return context.fail(QLORA_ERROR_VALUE, "%s element %llu (row %llu, column %llu) is NaN or infinite in f32; clean the tensor first", thing, (unsigned long long)i,
                        (unsigned long long)(i / cols), (unsigned long long)(i % cols));
}

// Pieces of scratch in front of the product's.
struct Forward {
    uint64_t absmax, outliers, product;
    Forward(const qlora_int8_matmul_args &args) {
        absmax = 0;
        outliers = absmax + align_scratch(args.x.rows * 4);
        product = outliers + (args.threshold > 0 ? align_scratch(args.x.cols * 4) : 0);
    }
};
Int8Product forward(const qlora_int8_matmul_args &args) {
    return {{args.x, nullptr, nullptr, nullptr, 0}, *args.weight, true, args.y, optional<const float>(args.bias), (args.flags & QLORA_FLAG_ACCUMULATE) != 0};
}

struct Backward {
    uint64_t absmax, fold, product;
    Backward(const qlora_int8_matmul_grad_args &args) {
        absmax = 0;
        fold = absmax + align_scratch(args.dy.rows * 4);
        product = fold + align_scratch(args.dy.cols * 4);
    }
};
Int8Product backward(const qlora_int8_matmul_grad_args &args) {
    return {{args.dy, nullptr, nullptr, nullptr, 0}, *args.weight, false, args.dx, nullptr, (args.flags & QLORA_FLAG_ACCUMULATE) != 0};
}

} // namespace

uint64_t int8_matmul_scratch(Context &context, const qlora_int8_matmul_args &args) {
    return Forward(args).product + int8_product_scratch(context, forward(args), args.threshold > 0);
}

int32_t int8_matmul(Context &context, const qlora_int8_matmul_args &args) {
    const Forward pieces(args);
    char *place = address<char>(args.scratch);
    float *absmax = reinterpret_cast<float *>(place + pieces.absmax);
    const float limit = args.threshold > 0 ? args.threshold : INFINITY;
    Int8Product product = forward(args);
    FirstBad bad(args.x.rows * args.x.cols);
    find_absmax(context, product.rows, limit, absmax, bad);
    QLORA_TRY(status_of(context, bad, "qlora_int8_matmul: x", args.x.cols));
    product.rows.absmax = absmax;
    if (args.threshold > 0) {
        uint32_t *outliers = reinterpret_cast<uint32_t *>(place + pieces.outliers);
        product.rows.outlier_count = find_outliers(context, product.rows, limit, outliers);
        product.rows.outliers = outliers;
    }
    multiply_int8_product(context, product, args.threshold > 0, place + pieces.product);
    return QLORA_OK;
}

uint64_t int8_matmul_grad_scratch(Context &context, const qlora_int8_matmul_grad_args &args) {
    return Backward(args).product + int8_product_scratch(context, backward(args), false);
}

int32_t int8_matmul_grad(Context &context, const qlora_int8_matmul_grad_args &args) {
    const Backward pieces(args);
    char *place = address<char>(args.scratch);
    float *absmax = reinterpret_cast<float *>(place + pieces.absmax), *fold = reinterpret_cast<float *>(place + pieces.fold);
    const float *scales = optional<const float>(args.weight->planes[QLORA_PLANE_SCALE]);
    for (uint64_t r = 0; r < args.dy.cols; r++) fold[r] = scales[row_scale(*args.weight, r)] * (1.0f / 127.0f);
    Int8Product product = backward(args);
    product.rows.fold = fold;
    FirstBad bad(args.dy.rows * args.dy.cols);
    find_absmax(context, product.rows, INFINITY, absmax, bad);
    QLORA_TRY(status_of(context, bad, "qlora_int8_matmul_grad: dy times its row's scale: ", args.dy.cols));
    product.rows.absmax = absmax;
    multiply_int8_product(context, product, false, place + pieces.product);
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
