// y = activation(gate) up and its gradients, by pieces of rows.
#include "backends/cpu/cpu.h"

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t piece = 1 << 13; // columns per task at most, and elements per task about

// Calls task(r, c, count) for every row in pieces of columns.
template <class Task> void each_piece(Context &context, const qlora_tensor &shape, const Task &task) {
    const uint64_t pieces = divide_up(shape.cols, piece), unit_rows = most(1, piece / shape.cols);
    parallel(context, divide_up(shape.rows, unit_rows) * pieces, [&](uint64_t unit, uint32_t) {
        const uint64_t first = unit / pieces * unit_rows, c = unit % pieces * piece;
        for (uint64_t r = first; r < least(first + unit_rows, shape.rows); r++) task(r, c, least(piece, shape.cols - c));
    });
}

// The place of element (r, c) of a tensor that may be absent.
char *optional_element(const qlora_tensor &tensor, uint64_t r, uint64_t c) { return tensor.type ? element(tensor, r, c) : nullptr; }

} // namespace

uint64_t swiglu_scratch(Context &, const qlora_swiglu_args &) { return 0; }
uint64_t swiglu_grad_scratch(Context &, const qlora_swiglu_grad_args &) { return 0; }

int32_t swiglu(Context &context, const qlora_swiglu_args &args) {
    const auto kernel = kernels_of(context).swiglu[args.activation][type_index(args.gate.type)];
    each_piece(context, args.gate, [&](uint64_t r, uint64_t c, uint64_t count) { kernel(element(args.gate, r, c), optional_element(args.up, r, c), element(args.y, r, c), count); });
    return QLORA_OK;
}

int32_t swiglu_grad(Context &context, const qlora_swiglu_grad_args &args) {
    const auto kernel = kernels_of(context).swiglu_grad[args.activation][type_index(args.gate.type)];
    each_piece(context, args.gate, [&](uint64_t r, uint64_t c, uint64_t count) {
        kernel(element(args.gate, r, c), optional_element(args.up, r, c), element(args.dy, r, c), element(args.dgate, r, c), optional_element(args.dup, r, c), count);
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
