// y[m][r] = sum_c x[m][c] W[r][c]     and     dx[m][c] = sum_r dy[m][r] W[r][c]
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

uint64_t matmul_scratch(Context &, const qlora_matmul_args &) { return 0; }
uint64_t matmul_grad_scratch(Context &, const qlora_matmul_args &) { return 0; }

namespace {

int32_t product(Context &context, const qlora_matmul_args &args, const qlora_tensor &src, const qlora_tensor &dst, bool forward) {
    Grid in(context, src.rows, src.cols), out(context, dst.rows, dst.cols), w(context, src.cols, dst.cols);
    QLORA_TRY(in.status());
    QLORA_TRY(out.status());
    QLORA_TRY(w.status());
    fill(in, src, args.compute_type);
    fill(w, *args.weight, args.compute_type, forward);
    multiply(in, w, out);
    for (uint64_t r = 0; r < dst.rows; r++)
        for (uint64_t c = 0; c < dst.cols; c++) put(dst, r, c, out[r][c], args.flags & QLORA_FLAG_ACCUMULATE);
    return QLORA_OK;
}

} // namespace

int32_t matmul(Context &context, const qlora_matmul_args &args) { return product(context, args, args.x, args.y, true); }
int32_t matmul_grad(Context &context, const qlora_matmul_args &args) { return product(context, args, args.y, args.x, false); }

} // namespace ref
} // namespace qlora
