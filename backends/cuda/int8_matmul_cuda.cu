// y = x W^T and dx = dy W in int8: rows of activations to bytes, outlier columns aside, then one product.
#include "backends/cuda/int8_product.cuh"
#include "backends/cuda/int8_rows.cuh"

#include <algorithm>
#include <cmath>

namespace qlora {
namespace cuda {

constexpr float int8_product = 6.200012e-05f; // 1 / 127^2, as LLM.int8() writes it
constexpr int threads = 256, flags_at_once = 16;
constexpr uint64_t turned_bytes = uint64_t(32) << 20; // at most, of a weight turned at a time

static int64_t padded(int64_t bytes) { return (bytes + 15) / 16 * 16; }

namespace {

// What the gathering of outlier columns reads and writes.
struct Gathering {
    const uint8_t *flags; // [cols], padded with zeros to 16
    int64_t cols;
    int32_t *count, *columns;
    View x;
    WeightView w;
    int8_t *codes; // of x: set to 0 in the outlier columns
    int64_t stride;
    void *x_compact, *w_compact;
};

} // namespace

// Every block counts the flags for itself, which is quicker than one more kernel; the first writes the list. Then rows of x and of W: the
// first `compact_outliers` columns side by side.
static __global__ void __launch_bounds__(threads) gather_kernel(const __grid_constant__ Gathering g) {
    __shared__ int32_t list[compact_outliers];
    __shared__ int totals[threads / 32];
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    int count = 0;
    for (int64_t first = 0; first < g.cols; first += threads * flags_at_once) {
        const int64_t c = first + threadIdx.x * flags_at_once;
        uint4 flags = make_uint4(0, 0, 0, 0);
        if (c < g.cols) flags = *reinterpret_cast<const uint4 *>(g.flags + c);
        const uint32_t words[4] = {flags.x, flags.y, flags.z, flags.w};
        const int mine = __popc(words[0]) + __popc(words[1]) + __popc(words[2]) + __popc(words[3]); // a flag is 0 or 1
        int before = mine;
#pragma unroll
        for (int step = 1; step < 32; step *= 2) {
            const int other = __shfl_up_sync(0xffffffffu, before, step);
            if (lane >= step) before += other;
        }
        if (lane == 31) totals[warp] = before;
        __syncthreads();
        int place = count + before - mine;
        for (int i = 0; i < threads / 32; i++) {
            if (i < warp) place += totals[i];
            count += totals[i];
        }
        __syncthreads();
        if (mine == 0) continue;
        for (int i = 0; i < flags_at_once; i++)
            if (words[i / 4] >> (i % 4 * 8) & 1) {
                if (place < compact_outliers) list[place] = int32_t(c + i);
                if (blockIdx.x == 0) g.columns[place] = int32_t(c + i);
                place++;
            }
    }
    if (blockIdx.x == 0 && threadIdx.x == 0) *g.count = count;
    __syncthreads();
    const int64_t first = int64_t(blockIdx.x) * threads + threadIdx.x, step = int64_t(gridDim.x) * threads;
    if (count > compact_outliers) { // the product reads x and W themselves
        for (int64_t i = first; i < g.x.rows * g.cols; i += step)
            if (g.flags[i % g.cols]) g.codes[i / g.cols * g.stride + i % g.cols] = 0;
        return;
    }
    const int wide = (count + 31) / 32 * 32; // the product takes 32 at a time
    if (wide == 0) return;
    const int64_t rows = g.x.rows + g.w.rows;
    for (int64_t row = first / 32; row < rows; row += step / 32) // a warp each
        for (int j = lane; j < wide; j += 32) {
            if (row < g.x.rows) {
                store1(g.x_compact, g.x.type, row * compact_outliers + j, j < count ? load1(g.x.data, g.x.type, row * g.x.stride + list[j]) : 0.0f);
                if (j < count) g.codes[row * g.stride + list[j]] = 0;
            } else {
                const int64_t r = row - g.x.rows;
                store1(g.w_compact, g.x.type, r * compact_outliers + j, j < count ? ByteDecoder().at(g.w, r * g.cols + list[j]) : 0.0f);
            }
        }
}

namespace {

struct Forward {
    int8_t *codes;
    float *absmax;
    uint8_t *flags = nullptr;
    int32_t *count = nullptr, *columns = nullptr;
    void *x_compact = nullptr, *w_compact = nullptr;
    uint64_t bytes;
    explicit Forward(const qlora_int8_matmul_args &args, Carver carver) {
        const uint64_t tokens = args.x.rows, cols = args.weight->cols, rows = args.weight->rows, size = type_bytes(args.x.type);
        codes = carver.take<int8_t>(tokens * uint64_t(padded(int64_t(cols))));
        absmax = carver.take<float>(tokens);
        if (args.threshold > 0) {
            flags = carver.take<uint8_t>(uint64_t(padded(int64_t(cols))));
            count = carver.take<int32_t>(1);
            columns = carver.take<int32_t>(cols);
            x_compact = carver.take<char>(tokens * compact_outliers * size);
            w_compact = carver.take<char>(rows * compact_outliers * size);
        }
        bytes = carver.bytes;
    }
};

// Columns of dx whose part of W is turned at a time.
int64_t turned_columns(const qlora_weight &weight) {
    const int64_t most = std::max<int64_t>(256, int64_t(turned_bytes) / std::max<int64_t>(1, padded(int64_t(weight.rows))) / 256 * 256);
    return std::min<int64_t>(int64_t(weight.cols), most);
}
struct Backward {
    int8_t *codes, *turned;
    float *absmax;
    uint64_t bytes;
    explicit Backward(const qlora_int8_matmul_grad_args &args, Carver carver) {
        const uint64_t depth = uint64_t(padded(int64_t(args.weight->rows)));
        codes = carver.take<int8_t>(args.dy.rows * depth);
        absmax = carver.take<float>(args.dy.rows);
        turned = carver.take<int8_t>(uint64_t(turned_columns(*args.weight)) * depth);
        bytes = carver.bytes;
    }
};

Epilogue epilogue_of(const qlora_tensor &y, const float *bias, bool accumulate) {
    Product product = {};
    product.m = int64_t(y.rows);
    product.n = int64_t(y.cols);
    product.alpha = 1;
    product.bias = bias;
    set_y(product, y, accumulate);
    return cuda::epilogue_of(product, nullptr);
}

} // namespace

uint64_t int8_matmul_scratch(Context &context, const qlora_int8_matmul_args &args) {
    return Forward(args, Carver()).bytes + multiply_int8_scratch(context, int64_t(args.x.rows), int64_t(args.weight->rows), int64_t(args.weight->cols));
}

int32_t int8_matmul(Context &context, const qlora_int8_matmul_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    const Forward pieces(args, Carver(args.scratch));
    const qlora_weight &weight = *args.weight;
    const WeightView w = view_of(weight);
    Int8Rows rows = {};
    rows.x = view_of(args.x);
    rows.limit = args.threshold > 0 ? args.threshold : INFINITY;
    rows.codes = pieces.codes;
    rows.stride = padded(w.cols);
    rows.absmax = pieces.absmax;
    rows.outliers = pieces.flags;
    if (pieces.flags && w.cols) QLORA_CUDA(context, "cudaMemsetAsync", cudaMemsetAsync(pieces.flags, 0, size_t(padded(w.cols)), stream));
    QLORA_TRY(quantize_rows(context, stream, rows));
    Int8Product product = {};
    if (pieces.flags) {
        const Gathering gathering = {pieces.flags, w.cols, pieces.count, pieces.columns, rows.x, w, pieces.codes, rows.stride, pieces.x_compact, pieces.w_compact};
        const uint64_t blocks = std::min<uint64_t>(ceil_divide(args.x.rows + weight.rows, 32), uint64_t(state_of(context).multiprocessors) * 4);
        QLORA_TRY(launch(context, stream, Grid{dim3(unsigned(blocks)), threads}, gather_kernel, gathering));
        product.outliers = Int8Outliers{pieces.count, pieces.columns, pieces.x_compact, pieces.w_compact, rows.x, w, 0};
    }
    product.m = rows.x.rows;
    product.n = w.rows;
    product.k = w.cols;
    product.a = pieces.codes;
    product.a_stride = rows.stride;
    product.b = reinterpret_cast<const int8_t *>(w.code);
    product.b_stride = w.cols;
    product.b_words = w.cols % 16 == 0 && reinterpret_cast<uint64_t>(w.code) % 16 == 0;
    product.a_scale = pieces.absmax;
    product.b_scale = static_cast<const float *>(w.scale);
    product.one_b_scale = one_scale(weight);
    product.factor = int8_product;
    product.y = epilogue_of(args.y, args.bias.handle ? address<const float>(args.bias) : nullptr, args.flags & QLORA_FLAG_ACCUMULATE);
    Carver rest(args.scratch);
    rest.bytes = pieces.bytes;
    return multiply_int8(context, stream, product, rest);
}

uint64_t int8_matmul_grad_scratch(Context &context, const qlora_int8_matmul_grad_args &args) {
    return Backward(args, Carver()).bytes + multiply_int8_scratch(context, int64_t(args.dy.rows), turned_columns(*args.weight), padded(int64_t(args.weight->rows)));
}

int32_t int8_matmul_grad(Context &context, const qlora_int8_matmul_grad_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    const Backward pieces(args, Carver(args.scratch));
    const WeightView w = view_of(*args.weight);
    Int8Rows rows = {};
    rows.x = view_of(args.dy);
    rows.scales = static_cast<const float *>(w.scale);
    rows.one_scale = one_scale(*args.weight);
    rows.limit = INFINITY;
    rows.codes = pieces.codes;
    rows.stride = padded(w.rows);
    rows.absmax = pieces.absmax;
    QLORA_TRY(quantize_rows(context, stream, rows));
    Int8Product product = {};
    product.m = rows.x.rows;
    product.k = rows.stride; // zeros at the end change nothing
    product.a = pieces.codes;
    product.a_stride = product.b_stride = rows.stride;
    product.b = pieces.turned;
    product.b_words = true;
    product.a_scale = pieces.absmax;
    product.factor = int8_part;
    const int64_t columns = turned_columns(*args.weight);
    Carver rest(args.scratch);
    rest.bytes = pieces.bytes;
    for (int64_t c = 0; c < w.cols; c += columns) { // W^T a part at a time: bytes have no other way into the tensor cores
        product.n = std::min(columns, w.cols - c);
        QLORA_TRY(turn_bytes(context, stream, reinterpret_cast<const int8_t *>(w.code) + c, w.cols, w.rows, product.n, pieces.turned, rows.stride));
        qlora_tensor part = args.dx;
        part.cols = uint64_t(product.n);
        part.data.offset += uint64_t(c) * type_bytes(part.type);
        product.y = epilogue_of(part, nullptr, args.flags & QLORA_FLAG_ACCUMULATE);
        QLORA_TRY(multiply_int8(context, stream, product, rest));
    }
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
