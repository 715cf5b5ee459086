// dst[r][c] = decode(W[r][c]): bound by memory, so each thread has several groups of eight elements in flight.
#include "backends/cuda/dequantize.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = 256;
template <class D> constexpr int groups_in_flight = 4;
template <class F> constexpr int groups_in_flight<BlockDecoder<F>> = 1; // bytes are loads of their own, and enough of them

// One row of the grid's y axis per row of dst; the contiguous case arrives here as a single long row.
template <class D>
static __global__ void __launch_bounds__(threads) dequantize_kernel(WeightView w, int64_t row, int64_t col, View dst) {
    constexpr int in_flight = groups_in_flight<D>;
    __shared__ float tables[D::shared_values];
    D decoder;
    decoder.prepare(w, tables);
    __syncthreads();
    const int64_t step = int64_t(gridDim.x) * threads * in_flight * 8;
    for (int64_t r = blockIdx.y; r < dst.rows; r += gridDim.y) {
        const int64_t source = (row + r) * w.cols + col;
        int64_t c = (int64_t(blockIdx.x) * threads * in_flight + threadIdx.x) * 8;
        for (; c < dst.cols; c += step) {
            float values[in_flight][8];
#pragma unroll
            for (int i = 0; i < in_flight; i++) {
                const int64_t place = c + i * threads * 8;
                if (place < dst.cols) decode8(decoder, w, source + place, dst.cols - place, values[i]);
            }
#pragma unroll
            for (int i = 0; i < in_flight; i++) {
                const int64_t place = c + i * threads * 8;
                if (place < dst.cols) store8(dst, r, place, values[i]);
            }
        }
    }
}

// The same where nothing is in the way: groups of eight of one long aligned row, from element `first` of the weight on. What a thread
// reads is all on the way before the tables are filled and the first group is decoded. dst has a gap of `gap` elements after every
// `row_groups` groups.
template <class D, class = void> constexpr bool has_load = false;
template <class D> constexpr bool has_load<D, decltype(void(&D::load))> = true;
template <class D>
static __global__ void __launch_bounds__(threads) dequantize_stream_kernel(const __grid_constant__ WeightView w, int64_t first, int64_t total, unsigned row_groups, int gap, void *dst,
                                                                         int type) {
    constexpr int in_flight = groups_in_flight<D>, step = threads * 8;
    __shared__ float tables[D::shared_values];
    D decoder;
    const int64_t place = int64_t(blockIdx.x) * (step * in_flight) + threadIdx.x * 8;
    const auto store = [&](int64_t index, const float (&values)[8]) {
        if (index < total) store8(dst, type, gap ? index + int64_t(unsigned(index / 8) / row_groups) * gap : index, 8, true, values);
    };
    float values[8];
    wait_for_previous();
    if constexpr (has_load<D>) {
        Raw raw[in_flight];
#pragma unroll
        for (int i = 0; i < in_flight; i++) raw[i] = decoder.load(w, first + (place + i * step < total ? place + i * step : 0));
        decoder.prepare(w, tables);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < in_flight; i++) {
            decoder.settle(raw[i], w);
            decoder.decode(raw[i], values);
            store(place + i * step, values);
        }
    } else {
        decoder.prepare(w, tables);
        __syncthreads();
#pragma unroll
        for (int i = 0; i < in_flight; i++) {
            decoder.group(w, first + (place + i * step < total ? place + i * step : 0), values);
            store(place + i * step, values);
        }
    }
}

int32_t dequantize_panel(Context &context, cudaStream_t stream, const qlora_weight &weight, int64_t row, int64_t col, const View &dst) {
    const WeightView w = view_of(weight);
    View out = dst;
    if (out.cols == w.cols && (out.stride == out.cols || out.rows == 1)) { // whole rows, close together: one long row
        const int64_t first = row * w.cols;
        if (first % 8 == 0 || w.rows == 1) {
            out.cols = out.rows * out.cols;
            out.rows = 1;
            out.vector = reinterpret_cast<uint64_t>(out.data) % 16 == 0;
        }
    }
    const uint64_t most = uint64_t(state_of(context).multiprocessors) * 16;
    const uint64_t rows = uint64_t(out.rows) < 65535 ? uint64_t(out.rows) : 65535;
    const bool whole = out.vector && out.cols == w.cols && out.cols % 8 == 0 && out.stride - out.cols <= INT32_MAX; // rows, with gaps between them
    return with_decoder(weight.format, [&](auto decoder) -> int32_t {
        using D = decltype(decoder);
        constexpr int64_t tile = threads * groups_in_flight<D> * 8;
        const int64_t begin = row * w.cols + col, total = (out.rows == 1 || whole ? out.rows : 0) * (out.cols / 8 * 8), tiles = (total + tile - 1) / tile;
        if (total > 0 && out.vector && begin % 8 == 0 && tiles <= INT32_MAX && total / 8 <= UINT32_MAX && (w.grouped || whole_groups<D>)) {
            QLORA_TRY(launch_early(context, stream, Grid{dim3(unsigned(tiles)), threads}, dequantize_stream_kernel<D>, w, begin, total, unsigned(out.cols / 8),
                                   out.rows > 1 ? int(out.stride - out.cols) : 0, out.data, out.type));
            if (total == out.rows * out.cols) return QLORA_OK;
            View rest = out; // the end of the one row
            rest.cols -= total;
            rest.data = static_cast<char *>(out.data) + total * type_bytes(out.type);
            const Grid end = {dim3(1), threads};
            return launch(context, stream, end, dequantize_kernel<D>, w, row, col + total, rest);
        }
        const uint64_t blocks = ceil_divide(uint64_t(out.cols), threads * groups_in_flight<D> * 8);
        const Grid grid = {dim3(unsigned(blocks < most ? blocks : most), unsigned(rows)), threads};
        return launch(context, stream, grid, dequantize_kernel<D>, w, row, col, out);
    });
}

uint64_t dequantize_scratch(Context &, const qlora_dequantize_args &) { return 0; }

int32_t dequantize(Context &context, const qlora_dequantize_args &args) {
    DeviceScope scope(context);
    return dequantize_panel(context, stream_of(context, args), *args.weight, 0, 0, view_of(args.dst));
}

} // namespace cuda
} // namespace qlora
