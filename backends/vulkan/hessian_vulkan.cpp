// H = H * count / (count + batch) + 2 / (count + batch) * x^T x: a product of x with itself, in f32. Of f64, rows of H at a
// time go through scratch.
#include "backends/vulkan/product_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

constexpr uint64_t chunk_bytes = uint64_t(64) << 20; // of sums in scratch

uint64_t chunk_of(const State &state, uint64_t cols) {
    const uint64_t reach = state.properties.limits.maxStorageBufferRange - scratch_alignment, bytes = chunk_bytes < reach / 2 ? chunk_bytes : reach / 2;
    const uint64_t chunk = bytes / (cols * 4) / 8 * 8; // whole octets, so that columns of x stay aligned
    return chunk == 0 ? 8 : chunk < cols ? chunk : cols;
}

} // namespace

// Flags may change after sizes are asked.
uint64_t hessian_scratch(Context &context, const qlora_hessian_args &args) {
    return args.x.cols ? align_scratch(chunk_of(state_of(context), args.x.cols) * args.x.cols * 4) : 0;
}

int32_t hessian(Context &context, const qlora_hessian_args &args) {
    struct Push {
        PushHeader header;
        uint32_t count;
        float before_high, before_low, alpha_high, alpha_low;
    };
    constexpr const char *entry = "qlora_hessian_accumulate";
    const uint64_t cols = args.x.cols;
    const double all = double(args.count) + double(args.batch), before = all > 0 ? double(args.count) / all : 0, alpha = all > 0 ? 2 / all : 0;
    if (!(args.flags & QLORA_FLAG_WIDE)) {
        Product product = product_of(args.x, true, args.x, float_tensor(args.hessian, cols, cols), QLORA_FORMAT_F32);
        product.x_turned = true;
        product.accumulate = args.count != 0;
        product.alpha = float(alpha);
        product.beta = float(before);
        return enqueue_product(context, args.stream, entry, product);
    }
    const uint64_t chunk = cols ? chunk_of(state_of(context), cols) : 1;
    for (uint64_t first = 0; first < cols; first += chunk) {
        const uint64_t rows = cols - first < chunk ? cols - first : chunk;
        qlora_tensor x = args.x;
        x.cols = rows;
        x.data.offset += first * type_bytes(x.type);
        x.data.size -= first * type_bytes(x.type);
        Product product = product_of(args.x, true, x, float_tensor(part(args.scratch, 0, rows * cols * 4), rows, cols), QLORA_FORMAT_F32);
        product.x_turned = true;
        QLORA_TRY(enqueue_product(context, args.stream, entry, product));
        const Push push = {{}, uint32_t(rows * cols), float(before), float(before - double(float(before))), float(alpha), float(alpha - double(float(alpha)))};
        QLORA_TRY(enqueue(context, args.stream, Shader::hessian, {args.count != 0}, {product.y.data, part(args.hessian, first * cols * 8, rows * cols * 8)}, push,
                          groups_of(rows * cols, 256)));
    }
    return QLORA_OK;
}

} // namespace vulkan
} // namespace qlora
