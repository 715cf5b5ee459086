// y[i] (+)= scale * W[ids[i]], rounded after each operation: one row of the grid per token, eight elements per thread.
#include "backends/cuda/decode.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = 128;

template <class D> static __global__ void embedding_kernel(WeightView w, const int32_t *ids, View y, float scale, bool accumulate) {
    __shared__ float tables[D::shared_values];
    D decoder;
    decoder.prepare(w, tables);
    __syncthreads();
    const int64_t c = (int64_t(blockIdx.x) * threads + threadIdx.x) * 8;
    if (c >= y.cols) return;
    for (int64_t r = blockIdx.y; r < y.rows; r += gridDim.y) {
        const int64_t id = ids[r];
        float values[8] = {};
        if (id >= 0 && id < w.rows) decode8(decoder, w, id * w.cols + c, y.cols - c, values);
        float old[8] = {};
        if (accumulate) load8(y, r, c, old);
#pragma unroll
        for (int i = 0; i < 8; i++) {
            values[i] = __fmul_rn(values[i], scale);
            if (accumulate) values[i] = __fadd_rn(old[i], values[i]);
        }
        store8(y, r, c, values);
    }
}

uint64_t embedding_scratch(Context &, const qlora_embedding_args &) { return 0; }

int32_t embedding(Context &context, const qlora_embedding_args &args) {
    DeviceScope scope(context);
    const View y = view_of(args.y);
    const Grid grid = {dim3(unsigned(ceil_divide(uint64_t(y.cols), threads * 8)), unsigned(y.rows < 65535 ? y.rows : 65535)), threads};
    return with_decoder(args.weight->format, [&](auto decoder) {
        return launch(context, stream_of(context, args), grid, embedding_kernel<decltype(decoder)>, view_of(*args.weight), address<const int32_t>(args.ids), y, args.scale,
                      (args.flags & QLORA_FLAG_ACCUMULATE) != 0);
    });
}

} // namespace cuda
} // namespace qlora
