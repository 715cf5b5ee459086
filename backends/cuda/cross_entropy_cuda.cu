// Head and loss in chunks of tokens: logits = x W^T + bias in f32, soft cap, losses, dlogits = grad_scale * (softmax -
// onehot) times the slope of the cap, dx = dlogits W. With a 16-bit compute type dlogits are rounded to it in a buffer of
// their own.
#include "backends/cuda/product.cuh"

#include <algorithm>

namespace qlora {
namespace cuda {

constexpr int threads = 512;
constexpr uint64_t chunk_bytes = uint64_t(64) << 20; // of logits and dlogits together, when the caller names no chunk

static __device__ __forceinline__ float block_max(float value, float *shared) {
    for (int half = 16; half >= 1; half /= 2) value = fmaxf(value, __shfl_xor_sync(0xffffffffu, value, half));
    __syncthreads();
    if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
    __syncthreads();
    for (int warp = 0; warp < threads / 32; warp++) value = fmaxf(value, shared[warp]);
    return value;
}

// What comes between a product and its logit; a cap of 0 is none.
struct LogitShaping {
    const float *bias; // or null
    float soft_cap;
};

// One block per token. logits and dlogits are [tokens][stride]; dlogits null: loss only. SHAPED: products become logits in
// place while their maximum is found.
template <bool SHAPED>
static __global__ void __launch_bounds__(threads)
    loss_kernel(float *logits, int64_t stride, int64_t vocabulary, LogitShaping shaping, const int32_t *targets, float *losses, void *dlogits, int type, float grad_scale) {
    __shared__ float shared[32];
    const int64_t t = blockIdx.x, target = targets[t];
    float *row = logits + t * stride;
    if (target < 0 || target >= vocabulary) { // the same for the whole block
        if (threadIdx.x == 0) losses[t] = 0;
        if (dlogits)
            for (int64_t v = threadIdx.x; v < vocabulary; v += threads) store1(dlogits, type, t * stride + v, 0.0f);
        return;
    }
    float maximum = -INFINITY, sum = 0;
    for (int64_t v = threadIdx.x; v < vocabulary; v += threads) {
        float logit = row[v];
        if (SHAPED) {
            if (shaping.bias) logit += shaping.bias[v];
            if (shaping.soft_cap > 0) logit = shaping.soft_cap * tanhf(logit / shaping.soft_cap);
            row[v] = logit;
        }
        maximum = fmaxf(maximum, logit);
    }
    maximum = block_max(maximum, shared);
    for (int64_t v = threadIdx.x; v < vocabulary; v += threads) sum += expf(row[v] - maximum);
    sum = block_sum(sum, shared);
    if (threadIdx.x == 0) losses[t] = logf(sum) + (maximum - row[target]);
    if (!dlogits) return;
    __syncthreads(); // row[target] is read before dlogits may take its place
    const float factor = 1 / sum;
    for (int64_t v = threadIdx.x; v < vocabulary; v += threads) {
        float difference = expf(row[v] - maximum) * factor;
        if (v == target) difference -= 1;
        if (SHAPED && shaping.soft_cap > 0) {
            const float bent = row[v] / shaping.soft_cap;
            difference *= 1 - bent * bent;
        }
        store1(dlogits, type, t * stride + v, grad_scale * difference);
    }
}

namespace {

struct Chunk {
    int64_t tokens, stride;
    bool separate; // dlogits have their own buffer
    Carver carver;
    float *logits;
    void *dlogits;
    explicit Chunk(const qlora_cross_entropy_args &args) : carver(args.scratch) {
        const uint64_t vocabulary = args.weight->rows;
        separate = args.compute_type != QLORA_FORMAT_F32 && args.dx.type;
        stride = int64_t(ceil_divide(vocabulary, 8) * 8);
        // The same chunk with and without dx, so that an evaluation fits into the scratch of a step.
        const uint64_t fitting = chunk_bytes / (uint64_t(stride) * (args.compute_type != QLORA_FORMAT_F32 ? 6 : 4));
        const uint64_t chosen = args.chunk_rows ? args.chunk_rows : std::max<uint64_t>(128, fitting / 128 * 128);
        tokens = int64_t(std::min<uint64_t>(chosen, args.x.rows));
        logits = carver.take<float>(uint64_t(tokens * stride));
        dlogits = separate ? static_cast<void *>(carver.take<uint16_t>(uint64_t(tokens * stride))) : logits;
    }
    Product forward(const qlora_cross_entropy_args &args, int64_t first, int64_t count) const {
        Product product = product_of(count, int64_t(args.weight->rows), int64_t(args.weight->cols), args.compute_type);
        product.a = operand_of(address<char>(args.x.data) + first * int64_t(args.x.stride) * type_bytes(args.x.type), args.x.type, int64_t(args.x.stride));
        product.weight = args.weight;
        product.y = logits;
        product.y_stride = stride;
        product.y_type = QLORA_FORMAT_F32;
        return product;
    }
    Product backward(const qlora_cross_entropy_args &args, int64_t first, int64_t count) const {
        Product product = product_of(count, int64_t(args.weight->cols), int64_t(args.weight->rows), args.compute_type);
        product.a = operand_of(dlogits, separate ? args.compute_type : QLORA_FORMAT_F32, stride);
        product.weight = args.weight;
        product.b.turned = true;
        set_y(product, args.dx, false);
        product.y = address<char>(args.dx.data) + first * int64_t(args.dx.stride) * type_bytes(args.dx.type);
        return product;
    }
};

} // namespace

uint64_t cross_entropy_scratch(Context &context, const qlora_cross_entropy_args &args) {
    qlora_cross_entropy_args sizes = args;
    sizes.scratch = qlora_span{};
    const Chunk chunk(sizes);
    const uint64_t forward = multiply_scratch(context, chunk.forward(args, 0, chunk.tokens));
    return chunk.carver.bytes + std::max(forward, args.dx.type ? multiply_scratch(context, chunk.backward(args, 0, chunk.tokens)) : 0);
}

int32_t cross_entropy(Context &context, const qlora_cross_entropy_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    const Chunk chunk(args);
    const int64_t tokens = int64_t(args.x.rows);
    const LogitShaping shaping = {args.bias.handle ? address<const float>(args.bias) : nullptr, args.soft_cap};
    const auto kernel = shaping.bias || shaping.soft_cap > 0 ? loss_kernel<true> : loss_kernel<false>;
    for (int64_t t = 0; t < tokens; t += chunk.tokens) {
        const int64_t count = std::min(chunk.tokens, tokens - t);
        QLORA_TRY(multiply(context, stream, chunk.forward(args, t, count), chunk.carver));
        QLORA_TRY(launch(context, stream, Grid{dim3(unsigned(count)), threads}, kernel, chunk.logits, chunk.stride, int64_t(args.weight->rows), shaping,
                         address<const int32_t>(args.targets) + t, address<float>(args.losses) + t, args.dx.type ? chunk.dlogits : nullptr,
                         chunk.separate ? args.compute_type : QLORA_FORMAT_F32, args.grad_scale));
        if (args.dx.type) QLORA_TRY(multiply(context, stream, chunk.backward(args, t, count), chunk.carver));
    }
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
