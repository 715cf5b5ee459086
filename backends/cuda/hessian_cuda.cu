// H = H * count / (count + batch) + 2 / (count + batch) * x^T x: a panel of rows of x^T x in f32 at a time, then H in double.
#include "backends/cuda/product.cuh"

#include <algorithm>

namespace qlora {
namespace cuda {

constexpr int threads = 256;
constexpr uint64_t panel_bytes = uint64_t(32) << 20; // at most, but for one tile of rows

// keep: what stays of H, 0 when what it held is not read.
template <class T> static __global__ void __launch_bounds__(threads) fold_kernel(T *hessian, const float *sums, int64_t count, double keep, double factor) {
    for (int64_t i = int64_t(blockIdx.x) * threads + threadIdx.x; i < count; i += int64_t(gridDim.x) * threads) {
        const double added = factor != 0 ? factor * double(sums[i]) : 0;
        hessian[i] = T(keep != 0 ? double(hessian[i]) * keep + added : added);
    }
}

// Rows r .. r + rows of x^T x.
static Product panel_of(const qlora_hessian_args &args, int64_t r, int64_t rows, float *sums) {
    const int64_t cols = int64_t(args.x.cols);
    Product product = product_of(rows, cols, int64_t(args.x.rows), QLORA_FORMAT_F32);
    product.a = operand_of(address<const char>(args.x.data) + r * type_bytes(args.x.type), args.x.type, int64_t(args.x.stride), true);
    product.b = operand_of(args.x, true);
    product.y = sums;
    product.y_stride = cols;
    product.y_type = QLORA_FORMAT_F32;
    return product;
}
static int64_t panel_rows(const qlora_hessian_args &args) {
    const uint64_t cols = args.x.cols, most = std::max<uint64_t>(simt_m, panel_bytes / (cols * sizeof(float)) / simt_m * simt_m);
    return int64_t(std::min(cols, most));
}

uint64_t hessian_scratch(Context &context, const qlora_hessian_args &args) {
    Carver carver;
    carver.take<float>(uint64_t(panel_rows(args)) * args.x.cols);
    return carver.bytes + multiply_scratch(context, panel_of(args, 0, panel_rows(args), nullptr));
}

int32_t hessian(Context &context, const qlora_hessian_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    const int64_t cols = int64_t(args.x.cols), most = panel_rows(args);
    const double all = double(args.count) + double(args.batch), keep = args.count ? double(args.count) / all : 0, factor = all > 0 ? 2 / all : 0;
    Carver carver(args.scratch);
    float *sums = carver.take<float>(uint64_t(most) * uint64_t(cols));
    for (int64_t r = 0; r < cols; r += most) {
        const int64_t rows = std::min(most, cols - r), count = rows * cols;
        QLORA_TRY(multiply(context, stream, panel_of(args, r, rows, sums), carver));
        const Grid grid = {dim3(unsigned(std::min<uint64_t>(ceil_divide(uint64_t(count), threads), 65536))), threads};
        if (args.flags & QLORA_FLAG_WIDE) QLORA_TRY(launch(context, stream, grid, fold_kernel<double>, address<double>(args.hessian) + r * cols, sums, count, keep, factor));
        else QLORA_TRY(launch(context, stream, grid, fold_kernel<float>, address<float>(args.hessian) + r * cols, sums, count, keep, factor));
    }
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
