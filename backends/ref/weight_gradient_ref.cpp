// dw[r][c] = sum_t dy[t][r] x[t][c] and dbias[r] = sum_t dy[t][r]
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

uint64_t weight_gradient_scratch(Context &, const qlora_weight_gradient_args &) { return 0; }

int32_t weight_gradient(Context &context, const qlora_weight_gradient_args &args) {
    const uint64_t tokens = args.dy.rows, rows = args.dw.rows, cols = args.dw.cols;
    const bool accumulate = args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS;
    Grid dy(context, rows, tokens), x(context, tokens, cols), dw(context, rows, cols);
    for (Grid *grid : {&dy, &x, &dw}) QLORA_TRY(grid->status());
    fill(dy, args.dy, args.compute_type, true);
    if (args.saved) fill(x, *args.saved, args.compute_type, false);
    else fill(x, args.x, args.compute_type);
    multiply(dy, x, dw);
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t c = 0; c < cols; c++) put(args.dw, r, c, dw[r][c], accumulate);
    for (uint64_t r = 0; args.dbias.handle && r < rows; r++) {
        double sum = accumulate ? address<const float>(args.dbias)[r] : 0;
        for (uint64_t t = 0; t < tokens; t++) sum += get(args.dy, t, r);
        address<float>(args.dbias)[r] = float(sum);
    }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
