// y = activation(gate) * up, or the activation alone; dgate = dy * up * activation'(gate), dup = dy * activation(gate).
#include "backends/cuda/device.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = 256;

struct Activation {
    float value, slope;
};

// With s = sigmoid(x): silu = x s, silu' = s (1 + x (1 - s)). gelu = x P, gelu' = P + x p, of the normal distribution P and its
// density p. The tanh form is x sigmoid(2u), since (1 + tanh u) / 2 = sigmoid(2u); both s and 1 - s come from one exponential
// that does not overflow, and past a square of 1e4 s is 0 or 1 anyway.
template <int KIND> static __device__ __forceinline__ Activation activate(float x) {
    if (KIND == QLORA_ACTIVATION_GELU) {
        const float share = 0.5f * (1 + erff(x * 0.70710678118654752f)), density = 0.39894228040143268f * expf(-0.5f * x * x);
        return {x * share, share + x * density};
    }
    if (KIND == QLORA_ACTIVATION_GELU_TANH) {
        const float root = 0.79788456080286536f, square = fminf(x * x, 1e4f), u = root * x * (1 + 0.044715f * square);
        const float small = expf(-2 * fabsf(u)), most = 1 / (1 + small), least = small * most, s = u > 0 ? most : least;
        return {x * s, s + 2 * x * most * least * root * (1 + 3 * 0.044715f * square)};
    }
    if (KIND == QLORA_ACTIVATION_RELU) return x > 0 ? Activation{x, 1} : Activation{0, 0};
    const float s = 1 / (1 + expf(-x));
    return {x * s, s * (1 + x * (1 - s))};
}

// The grid covers [rows][cols / 8]; a matrix without gaps arrives as one long row. Without gate's partner up has no data.
template <int KIND> static __global__ void __launch_bounds__(threads) swiglu_kernel(View gate, View up, View y) {
    wait_for_previous();
    for (int64_t r = blockIdx.y; r < gate.rows; r += gridDim.y)
        for (int64_t c = (int64_t(blockIdx.x) * threads + threadIdx.x) * 8; c < gate.cols; c += int64_t(gridDim.x) * threads * 8) {
            float gates[8], ups[8] = {1, 1, 1, 1, 1, 1, 1, 1};
            load8(gate, r, c, gates);
            if (up.data) load8(up, r, c, ups);
#pragma unroll
            for (int i = 0; i < 8; i++) ups[i] *= activate<KIND>(gates[i]).value;
            store8(y, r, c, ups);
        }
}

template <int KIND> static __global__ void __launch_bounds__(threads) swiglu_grad_kernel(View gate, View up, View dy, View dgate, View dup) {
    wait_for_previous();
    for (int64_t r = blockIdx.y; r < gate.rows; r += gridDim.y)
        for (int64_t c = (int64_t(blockIdx.x) * threads + threadIdx.x) * 8; c < gate.cols; c += int64_t(gridDim.x) * threads * 8) {
            float gates[8], ups[8] = {1, 1, 1, 1, 1, 1, 1, 1}, slopes[8];
            load8(gate, r, c, gates);
            if (up.data) load8(up, r, c, ups);
            load8(dy, r, c, slopes);
#pragma unroll
            for (int i = 0; i < 8; i++) {
                const Activation at = activate<KIND>(gates[i]);
                ups[i] *= slopes[i] * at.slope;
                slopes[i] *= at.value;
            }
            store8(dgate, r, c, ups);
            if (dup.data) store8(dup, r, c, slopes);
        }
}

// Calls run(kind constant) for QLORA_ACTIVATION_*.
template <int N> struct Kind { static constexpr int value = N; };
template <class Run> static int32_t with_activation(int32_t kind, Run &&run) {
    switch (kind) {
    case QLORA_ACTIVATION_GELU: return run(Kind<QLORA_ACTIVATION_GELU>());
    case QLORA_ACTIVATION_GELU_TANH: return run(Kind<QLORA_ACTIVATION_GELU_TANH>());
    case QLORA_ACTIVATION_RELU: return run(Kind<QLORA_ACTIVATION_RELU>());
    default: return run(Kind<QLORA_ACTIVATION_SILU>());
    }
}

// All views as one row when none has gaps, as views of absent tensors have none; the grid of what is left.
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
    return with_activation(args.activation, [&](auto kind) { return launch_early(context, stream_of(context, args), grid, swiglu_kernel<decltype(kind)::value>, gate, up, y); });
}

int32_t swiglu_grad(Context &context, const qlora_swiglu_grad_args &args) {
    DeviceScope scope(context);
    View gate = view_of(args.gate), up = view_of(args.up), dy = view_of(args.dy), dgate = view_of(args.dgate), dup = view_of(args.dup);
    const Grid grid = flatten(gate, up, dy, dgate, dup);
    return with_activation(args.activation,
                           [&](auto kind) { return launch_early(context, stream_of(context, args), grid, swiglu_grad_kernel<decltype(kind)::value>, gate, up, dy, dgate, dup); });
}

} // namespace cuda
} // namespace qlora
