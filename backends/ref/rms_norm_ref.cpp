// y = x * rstd * weight + bias, rstd = 1 / sqrt(mean(x^2) + epsilon); with g = dy * weight:
// dx = rstd * (g - x * rstd^2 * mean(g x)),  dweight = column sums of dy * x * rstd,  dbias = column sums of dy.
// Centered, x is x minus its mean, and dx loses its mean, which is that of rstd * g.
#include "backends/ref/ref.h"

#include <cmath>

namespace qlora {
namespace ref {

uint64_t rms_norm_scratch(Context &, const qlora_rms_norm_args &) { return 0; }
uint64_t rms_norm_grad_scratch(Context &, const qlora_rms_norm_grad_args &) { return 0; }

namespace {

// What is taken from the values of a row: 0 unless centered.
template <class Args> double center(const Args &args, uint64_t r) {
    double sum = 0;
    if (args.flags & QLORA_FLAG_CENTERED)
        for (uint64_t c = 0; c < args.x.cols; c++) sum += get(args.x, r, c);
    return sum / double(args.x.cols);
}

} // namespace

int32_t rms_norm(Context &, const qlora_rms_norm_args &args) {
    for (uint64_t r = 0; r < args.x.rows; r++) {
        const double mean = center(args, r);
        double sum = 0;
        for (uint64_t c = 0; c < args.x.cols; c++) sum += (get(args.x, r, c) - mean) * (get(args.x, r, c) - mean);
        const double rstd = 1 / std::sqrt(sum / double(args.x.cols) + args.epsilon);
        if (args.rstd.handle) address<float>(args.rstd)[r] = float(rstd);
        for (uint64_t c = 0; c < args.x.cols; c++) {
            const double bias = args.bias.type ? get(args.bias, 0, c) : 0;
            put(args.y, r, c, (get(args.x, r, c) - mean) * rstd * get(args.weight, 0, c) + bias, args.flags & QLORA_FLAG_ACCUMULATE);
        }
    }
    return QLORA_OK;
}

int32_t rms_norm_grad(Context &context, const qlora_rms_norm_grad_args &args) {
    const uint64_t rows = args.x.rows, cols = args.x.cols;
    Grid dweight(context, 1, cols), dbias(context, 1, cols);
    for (Grid *grid : {&dweight, &dbias}) QLORA_TRY(grid->status());
    for (uint64_t r = 0; r < rows; r++) {
        const double rstd = address<const float>(args.rstd)[r];
        const double mean = center(args, r);
        double sum = 0, sum_g = 0;
        for (uint64_t c = 0; c < cols; c++) {
            const double dy = get(args.dy, r, c), x = get(args.x, r, c) - mean;
            sum += dy * get(args.weight, 0, c) * x;
            sum_g += dy * get(args.weight, 0, c);
            dweight[0][c] += dy * x * rstd;
            dbias[0][c] += dy;
        }
        const double slope = sum / double(cols) * rstd * rstd, mean_g = args.flags & QLORA_FLAG_CENTERED ? sum_g / double(cols) : 0;
        for (uint64_t c = 0; c < cols; c++) {
            const double g = double(get(args.dy, r, c)) * get(args.weight, 0, c);
            put(args.dx, r, c, rstd * (g - mean_g - (get(args.x, r, c) - mean) * slope), args.flags & QLORA_FLAG_ACCUMULATE);
        }
    }
    const auto deliver = [&](const qlora_span &span, Grid &sums) {
        for (uint64_t c = 0; span.handle && c < cols; c++) {
            float &out = address<float>(span)[c];
            out = float(sums[0][c] + (args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS ? double(out) : 0));
        }
    };
    deliver(args.dweight, dweight);
    deliver(args.dbias, dbias);
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
