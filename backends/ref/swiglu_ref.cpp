// y = activation(gate) * up, or the activation alone; dgate = dy * up * activation'(gate), dup = dy * activation(gate).
#include "backends/ref/ref.h"

#include <cmath>

namespace qlora {
namespace ref {

uint64_t swiglu_scratch(Context &, const qlora_swiglu_args &) { return 0; }
uint64_t swiglu_grad_scratch(Context &, const qlora_swiglu_grad_args &) { return 0; }

namespace {

struct Activation {
    double value, slope;
};

Activation activate(int32_t kind, double x) {
    switch (kind) {
    case QLORA_ACTIVATION_GELU: {
        const double share = 0.5 * std::erfc(-x * std::sqrt(0.5)), density = std::exp(-0.5 * x * x) / std::sqrt(2 * 3.14159265358979323846);
        return {x * share, share + x * density};
    }
    case QLORA_ACTIVATION_GELU_TANH: {
        const double root = std::sqrt(2 / 3.14159265358979323846), t = std::tanh(root * (x + 0.044715 * x * x * x));
        return {0.5 * x * (1 + t), 0.5 * (1 + t) + 0.5 * x * (1 - t * t) * root * (1 + 3 * 0.044715 * x * x)};
    }
    case QLORA_ACTIVATION_RELU:
        return {x > 0 ? x : 0, x > 0 ? 1.0 : 0.0};
    default: {
        const double sigmoid = 1 / (1 + std::exp(-x));
        return {x * sigmoid, sigmoid * (1 + x * (1 - sigmoid))};
    }
    }
}

} // namespace

int32_t swiglu(Context &, const qlora_swiglu_args &args) {
    for (uint64_t r = 0; r < args.gate.rows; r++)
        for (uint64_t c = 0; c < args.gate.cols; c++)
            set(args.y, r, c, activate(args.activation, get(args.gate, r, c)).value * (args.up.type ? get(args.up, r, c) : 1));
    return QLORA_OK;
}

int32_t swiglu_grad(Context &, const qlora_swiglu_grad_args &args) {
    for (uint64_t r = 0; r < args.gate.rows; r++)
        for (uint64_t c = 0; c < args.gate.cols; c++) {
            const Activation at = activate(args.activation, get(args.gate, r, c));
            const double up = args.up.type ? get(args.up, r, c) : 1, dy = get(args.dy, r, c);
            set(args.dgate, r, c, dy * up * at.slope);
            if (args.dup.type) set(args.dup, r, c, dy * at.value);
        }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
