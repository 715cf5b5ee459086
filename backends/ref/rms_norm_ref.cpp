// y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + epsilon); with g = dy * weight:
// dx = rstd * (g - x * rstd^2 * mean(g x)),  dweight = column sums of dy * x * rstd.
#include "backends/ref/ref.h"

#include <cmath>

namespace qlora {
namespace ref {

uint64_t rms_norm_scratch(Context &, const qlora_rms_norm_args &) { return 0; }
uint64_t rms_norm_grad_scratch(Context &, const qlora_rms_norm_grad_args &) { return 0; }

int32_t rms_norm(Context &, const qlora_rms_norm_args &args) {
    for (uint64_t r = 0; r < args.x.rows; r++) {
        double sum = 0;
        for (uint64_t c = 0; c < args.x.cols; c++) sum += double(get(args.x, r, c)) * get(args.x, r, c);
        const double rstd = 1 / std::sqrt(sum / double(args.x.cols) + args.epsilon);
        if (args.rstd.handle) address<float>(args.rstd)[r] = float(rstd);
        for (uint64_t c = 0; c < args.x.cols; c++) set(args.y, r, c, get(args.x, r, c) * rstd * get(args.weight, 0, c));
    }
    return QLORA_OK;
}

int32_t rms_norm_grad(Context &context, const qlora_rms_norm_grad_args &args) {
    const uint64_t rows = args.x.rows, cols = args.x.cols;
    Grid dweight(context, 1, cols);
    QLORA_TRY(dweight.status());
    for (uint64_t r = 0; r < rows; r++) {
        const double rstd = address<const float>(args.rstd)[r];
        double sum = 0;
        for (uint64_t c = 0; c < cols; c++) {
            sum += double(get(args.dy, r, c)) * get(args.weight, 0, c) * get(args.x, r, c);
            dweight[0][c] += double(get(args.dy, r, c)) * get(args.x, r, c) * rstd;
        }
        const double slope = sum / double(cols) * rstd * rstd;
        for (uint64_t c = 0; c < cols; c++) {
            const double g = double(get(args.dy, r, c)) * get(args.weight, 0, c);
            put(args.dx, r, c, rstd * (g - get(args.x, r, c) * slope), args.flags & QLORA_FLAG_ACCUMULATE);
        }
    }
    if (args.dweight.handle)
        for (uint64_t c = 0; c < cols; c++) {
            float &out = address<float>(args.dweight)[c];
            out = float(dweight[0][c] + (args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS ? double(out) : 0));
        }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
