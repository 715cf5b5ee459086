// y = silu(gate) * up with silu(g) = g * sigmoid(g); silu'(g) = sigmoid(g) * (1 + g * (1 - sigmoid(g))).
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = 256;

// The grid covers [rows][cols / 8]; a matrix without gaps arrives as one long row.
static __global__ void __launch_bounds__(threads) swiglu_kernel(View gate, View up, View y) {
    for (int64_t r = blockIdx.y; r < gate.rows; r += gridDim.y)
        for (int64_t c = (int64_t(blockIdx.x) * threads + threadIdx.x) * 8; c < gate.cols; c += int64_t(gridDim.x) * threads * 8) {
            float gates[8], ups[8];
            load8(gate, r, c, gates);
            load8(up, r, c, ups);
#pragma unroll
            for (int i = 0; i < 8; i++) ups[i] *= gates[i] / (1 + expf(-gates[i]));
            store8(y, r, c, ups);
        }
}

static __global__ void __launch_bounds__(threads) swiglu_grad_kernel(View gate, View up, View dy, View dgate, View dup) {
    for (int64_t r = blockIdx.y; r < gate.rows; r += gridDim.y)
        for (int64_t c = (int64_t(blockIdx.x) * threads + threadIdx.x) * 8; c < gate.cols; c += int64_t(gridDim.x) * threads * 8) {
            float gates[8], ups[8], slopes[8];
            load8(gate, r, c, gates);
            load8(up, r, c, ups);
            load8(dy, r, c, slopes);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const float sigmoid = 1 / (1 + expf(-gates[i]));
                ups[i] *= slopes[i] * sigmoid * (1 + gates[i] * (1 - sigmoid));
                slopes[i] *= gates[i] * sigmoid;
            }
            store8(dgate, r, c, ups);
            store8(dup, r, c, slopes);
        }
}

// All views as one row when none has gaps; the grid of what is left.
template <class... Views> static Grid flatten(Views &...views) {
    View *list[] = {&views...};
    bool dense = true;
    for (View *view : list) dense = dense && view->stride == view->cols;
    for (View *view : list)
        if (dense) {
            view->cols *= view->rows;
            view->rows = 1;
            view->vector = reinterpret_cast<uint64_t>(view->data) % 16 == 0;
        }
    const uint64_t blocks = ceil_divide(uint64_t(list[0]->cols), threads * 8), rows = uint64_t(list[0]->rows);
    return Grid{dim3(unsigned(blocks < 1u << 20 ? blocks : 1u << 20), unsigned(rows < 65535 ? rows : 65535)), threads};
}

uint64_t swiglu_scratch(Context &, const qlora_swiglu_args &) { return 0; }
uint64_t swiglu_grad_scratch(Context &, const qlora_swiglu_grad_args &) { return 0; }

int32_t swiglu(Context &context, const qlora_swiglu_args &args) {
    DeviceScope scope(context);
    View gate = view_of(args.gate), up = view_of(args.up), y = view_of(args.y);
    const Grid grid = flatten(gate, up, y);
    return launch(context, stream_of(context, args), grid, swiglu_kernel, gate, up, y);
}

int32_t swiglu_grad(Context &context, const qlora_swiglu_grad_args &args) {
    DeviceScope scope(context);
    View gate = view_of(args.gate), up = view_of(args.up), dy = view_of(args.dy), dgate = view_of(args.dgate), dup = view_of(args.dup);
    const Grid grid = flatten(gate, up, dy, dgate, dup);
    return launch(context, stream_of(context, args), grid, swiglu_grad_kernel, gate, up, dy, dgate, dup);
}

} // namespace cuda
} // namespace qlora
