// y = silu(gate) * up with silu(g) = g * sigmoid(g); silu'(g) = sigmoid(g) * (1 + g * (1 - sigmoid(g))).
#include "backends/ref/ref.h"

#include <cmath>

namespace qlora {
namespace ref {

uint64_t swiglu_scratch(Context &, const qlora_swiglu_args &) { return 0; }
uint64_t swiglu_grad_scratch(Context &, const qlora_swiglu_grad_args &) { return 0; }

int32_t swiglu(Context &, const qlora_swiglu_args &args) {
    for (uint64_t r = 0; r < args.gate.rows; r++)
        for (uint64_t c = 0; c < args.gate.cols; c++) {
            const double gate = get(args.gate, r, c), sigmoid = 1 / (1 + std::exp(-gate));
            set(args.y, r, c, gate * sigmoid * get(args.up, r, c));
        }
    return QLORA_OK;
}

int32_t swiglu_grad(Context &, const qlora_swiglu_grad_args &args) {
    for (uint64_t r = 0; r < args.gate.rows; r++)
        for (uint64_t c = 0; c < args.gate.cols; c++) {
            const double gate = get(args.gate, r, c), up = get(args.up, r, c), dy = get(args.dy, r, c);
            const double sigmoid = 1 / (1 + std::exp(-gate));
            set(args.dgate, r, c, dy * up * sigmoid * (1 + gate * (1 - sigmoid)));
            set(args.dup, r, c, dy * gate * sigmoid);
        }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
