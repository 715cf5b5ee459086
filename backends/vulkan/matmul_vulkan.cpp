// The products: which shader, which tile.
#include "backends/vulkan/product_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

struct ProductPush {
    PushHeader header;
    uint32_t m, n, k, x_stride, w_stride, y_stride, x_begin, y_begin, rank, b_stride, tiles_m;
    float alpha, beta, xa_scale;
    uint32_t w_factor;
};

struct Tile {
    uint32_t m, n, each_m, each_n;
};

constexpr uint32_t tile_k = 16;
constexpr uint64_t vector_tokens = 8;

// The largest tile that leaves work for many workgroups and fits the shared memory next to the tables. A processor needs one
// workgroup only, and there reading shared memory is what takes the time.
Tile tile_for(const State &state, uint64_t m, uint64_t n) {
    constexpr Tile huge = {256, 128, 16, 8}, large = {128, 128, 8, 8}, medium = {64, 64, 4, 4}, flat = {32, 128, 4, 4}, tall = {128, 32, 4, 4};
    const bool processor = state.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    const auto fits = [&](const Tile &tile) { return (tile.m + tile.n) * tile_k * 4 + 2048 <= state.properties.limits.maxComputeSharedMemorySize; };
    if (n <= 32) return tall;
    if (m <= 32) return flat;
    if (processor && m > 128 && n > 64 && fits(huge)) return huge;
    if (m > 64 && n > 64 && (processor || groups_of(m, large.m) * groups_of(n, large.n) >= 96) && fits(large)) return large;
    return medium;
}

// How a workgroup of cooperative matrices makes a tile: its subgroups as groups_m x groups_n, and as many times along k as are left.
struct CooperativeTile {
    uint32_t m, n, k, groups_m, groups_n, subgroups;
};

uint64_t shared_bytes(const CooperativeTile &tile, const Product &product) {
    const uint64_t x = product.x_turned ? tile.k * (tile.m / 8 + 1) : tile.m * (tile.k / 8 + 1), w = product.weight_turned ? tile.k * (tile.n / 8 + 1) : tile.n * (tile.k / 8 + 1);
    return 2 * 16 * (x + w) + 2048; // two pairs, and tables
}

bool fits(const State &state, const CooperativeTile &tile, const Product &product) {
    const VkPhysicalDeviceLimits &limits = state.properties.limits;
    const uint32_t threads = tile.subgroups * state.cooperative.subgroup;
    return shared_bytes(tile, product) <= limits.maxComputeSharedMemorySize && threads <= limits.maxComputeWorkGroupSize[0] && threads <= limits.maxComputeWorkGroupInvocations;
}

// Thin products share k among subgroups where that makes more workgroups; others take the largest tile that leaves work for
// many of them. It may be one that does not fit a small device.
CooperativeTile cooperative_tile(const State &state, const Product &product, uint64_t m, uint64_t n) {
    constexpr CooperativeTile large = {128, 128, 32, 2, 4, 8}, medium = {128, 64, 32, 2, 2, 4}, small = {64, 64, 32, 2, 2, 4};
    const uint32_t width = n <= 16 ? 16 : 32, height = m <= 16 ? 16 : 32;
    if (n <= 32) {
        const CooperativeTile deep = {16, width, width == 16 ? 256u : 128u, 1, 1, 8};
        return m < 4096 && fits(state, deep, product) ? deep : CooperativeTile{64, width, 64, 4, 1, 4};
    }
    if (m <= 32) return {height, 64, 64, 1, 4, 4};
    if (m > 64 && groups_of(m, large.m) * groups_of(n, large.n) >= 512 && fits(state, large, product)) return large;
    if (m > 64 && groups_of(m, medium.m) * groups_of(n, medium.n) >= 96 && fits(state, medium, product)) return medium;
    return small;
}

bool fits_octets(const Product &product) { return product.weight.cols % 8 == 0 && product.weight_stride % 8 == 0; }

bool fits_vectors(const Product &product) {
    return vectors(product.x) && product.x_first * product.x.stride % 8 == 0;
}

} // namespace

int32_t enqueue_product(Context &context, uint64_t stream, const char *entry, const Product &product, Order order) {
    State &state = state_of(context);
    const qlora_tensor &x = product.x, &y = product.y;
    const uint64_t n = y.cols, m = product.rows ? product.rows : y.rows, k = product.x_turned ? x.rows : x.cols;
    if (m == 0 || n == 0) return QLORA_OK;
    QLORA_TRY(check_elements(context, entry, product.weight.rows * product.weight_stride));
    QLORA_TRY(check_elements(context, entry, x.rows * x.stride));
    QLORA_TRY(check_elements(context, entry, y.rows * y.stride));
    const bool extended = product.xa.handle != 0;
    const bool vector = m <= vector_tokens && !product.weight_turned && !product.x_turned;
    const Cooperative::Size matrix = state.cooperative.of(product.compute_type);
    const CooperativeTile shared = cooperative_tile(state, product, m, n);
    const bool cooperative = matrix.m != 0 && !vector && fits(state, shared, product);
    const Tile tile = tile_for(state, m, n);
    const uint64_t tiles_m = groups_of(m, cooperative ? shared.m : tile.m), tiles_n = groups_of(n, cooperative ? shared.n : tile.n);
    Constants constants = constants_of(product.weight);
    constants.add({uint32_t(x.type), uint32_t(y.type), uint32_t(product.compute_type), product.accumulate, product.bias.handle != 0, extended,
                   uint32_t(extended ? product.b.type : QLORA_FORMAT_F32), fits_octets(product), fits_vectors(product)});
    if (vector) constants.add({uint32_t(m)});
    else if (cooperative)
        constants.add({product.weight_turned, product.x_turned, shared.m, shared.n, shared.k, shared.groups_m, shared.groups_n, shared.subgroups * state.cooperative.subgroup, state.cooperative.subgroup,
                       matrix.m, matrix.n, matrix.k});
    else constants.add({product.weight_turned, product.x_turned, tile.m, tile.n, tile.each_m, tile.each_n, tile_k});
    const WeightSpans planes = spans_of(product.weight);
    const ProductPush push = {{},
                              uint32_t(m),
                              uint32_t(n),
                              uint32_t(k),
                              uint32_t(x.stride),
                              uint32_t(product.weight_stride),
                              uint32_t(y.stride),
                              uint32_t(product.x_first * x.stride),
                              uint32_t(product.y_first * y.stride),
                              uint32_t(product.rank),
                              uint32_t(product.b.stride),
                              uint32_t(tiles_m),
                              product.alpha,
                              product.beta,
                              product.xa_scale,
                              factor_bits(product.weight)};
    const Shader shader = vector ? shader_for(product.weight, Shader::matmul_vector, Shader::matmul_vector_blocks, Shader::matmul_vector_affine, Shader::matmul_vector_bilevel)
        : cooperative ? shader_for(product.weight, Shader::matmul_cooperative, Shader::matmul_cooperative_blocks, Shader::matmul_cooperative_affine, Shader::matmul_cooperative_bilevel)
                      : shader_for(product.weight, Shader::matmul, Shader::matmul_blocks, Shader::matmul_affine, Shader::matmul_bilevel);
    Spans spans = {code_span(product.weight, product.weight_stride), planes.scale, planes.nested, planes.offset, exact(x), exact(y), part(product.bias, 0, n * 4),
                   part(product.xa, 0, m * product.rank * 4), exact(product.b)};
    put_sparse(spans, product.weight);
    return enqueue(context, stream, shader, constants, spans, push, vector ? groups_of(n, 2) : tiles_m * tiles_n, order);
}

uint64_t matmul_scratch(Context &, const qlora_matmul_args &) { return 0; }
uint64_t matmul_grad_scratch(Context &, const qlora_matmul_args &) { return 0; }

int32_t matmul(Context &context, const qlora_matmul_args &args) {
    Product product = product_of(*args.weight, false, args.x, args.y, args.compute_type);
    product.accumulate = args.flags & QLORA_FLAG_ACCUMULATE;
    return enqueue_product(context, args.stream, "qlora_weight_matmul", product);
}

int32_t matmul_grad(Context &context, const qlora_matmul_args &args) {
    Product product = product_of(*args.weight, true, args.y, args.x, args.compute_type);
    product.accumulate = args.flags & QLORA_FLAG_ACCUMULATE;
    return enqueue_product(context, args.stream, "qlora_weight_matmul_grad", product);
}

} // namespace vulkan
} // namespace qlora
