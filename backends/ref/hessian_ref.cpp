// H[i][j] = H[i][j] * count / (count + batch) + 2 / (count + batch) * sum_t x[t][i] x[t][j]
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

uint64_t hessian_scratch(Context &, const qlora_hessian_args &) { return 0; }

int32_t hessian(Context &context, const qlora_hessian_args &args) {
    const uint64_t cols = args.x.cols;
    const double seen = double(args.count), all = double(args.count) + double(args.batch);
    Grid sum(context, cols, cols);
    QLORA_TRY(sum.status());
    for (uint64_t t = 0; t < args.x.rows; t++)
        for (uint64_t i = 0; i < cols; i++) {
            const double value = get(args.x, t, i);
            for (uint64_t j = 0; j < cols; j++) sum[i][j] += value * get(args.x, t, j);
        }
    for (uint64_t i = 0; i < cols * cols; i++) {
        double h = all > 0 ? 2 / all * sum.data[i] : 0;
        if (args.flags & QLORA_FLAG_WIDE) {
            double *place = address<double>(args.hessian) + i;
            *place = args.count ? *place * (seen / all) + h : h;
        } else {
            float *place = address<float>(args.hessian) + i;
            *place = float(args.count ? *place * (seen / all) + h : h);
        }
    }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
