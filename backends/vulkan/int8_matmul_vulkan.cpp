// Products in int8: rows of activations become bytes in scratch, outlier columns a list, then one product over both.
#include "backends/vulkan/int8_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

constexpr uint64_t tile_k = 32; // of int8_product_vulkan.comp

// Where a product keeps what it makes of x[tokens][depth]: codes in rows of padded bytes, a scale and its inverse for each row,
// bits and list of outlier columns.
struct Places {
    uint64_t padded, codes, scales, inverses, bits, list;
    uint64_t total() const { return codes + 2 * scales + bits + list; }
};

Places places_of(uint64_t tokens, uint64_t depth, bool outliers) {
    Places places = {};
    places.padded = (depth + tile_k - 1) / tile_k * tile_k;
    places.codes = align_scratch(tokens * places.padded);
    places.scales = align_scratch(tokens * 4);
    places.bits = outliers ? align_scratch((depth + 31) / 32 * 4) : 0;
    places.list = outliers ? align_scratch((depth + 1) * 4) : 0;
    return places;
}

struct Tile {
    uint32_t m, n, each_m, each_n;
};

// The largest tile that leaves work for many workgroups. A processor needs one workgroup only.
Tile tile_for(const State &state, uint64_t m, uint64_t n) {
    constexpr Tile large = {128, 128, 8, 8}, medium = {64, 64, 4, 4}, flat = {32, 128, 4, 4};
    if (m <= 32) return flat;
    const bool processor = state.properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
    return m > 64 && n > 64 && (processor || groups_of(m, large.m) * groups_of(n, large.n) >= 96) ? large : medium;
}

struct Job {
    const char *entry;
    uint64_t stream;
    qlora_span scratch;
    const qlora_weight *weight;
    qlora_tensor x, y;
    qlora_span bias;
    float threshold;
    bool turned, accumulate;
};

int32_t enqueue_int8(Context &context, const Job &job) {
    struct Push {
        PushHeader header;
        uint32_t m, n, k, w_stride, x_vectors, last_word, x_stride, y_stride, tiles_m;
    };
    State &state = state_of(context);
    const qlora_weight &weight = *job.weight;
    const bool outliers = job.threshold > 0;
    const uint64_t m = job.x.rows, n = job.y.cols, k = job.x.cols, bytes = element_count(weight);
    const Places places = places_of(m, k, outliers);
    QLORA_TRY(check_elements(context, job.entry, bytes));
    QLORA_TRY(check_elements(context, job.entry, job.y.rows * job.y.stride));
    RowCodes rows = {};
    rows.x = job.x;
    rows.fold = job.turned ? job.weight : nullptr;
    rows.threshold = job.threshold;
    rows.padded = places.padded;
    rows.codes = part(job.scratch, 0, m * places.padded);
    rows.absmax = part(job.scratch, places.codes, m * 4);
    rows.inverse = part(job.scratch, places.codes + places.scales, m * 4);
    const uint64_t words = (k + 31) / 32;
    qlora_span list = {};
    if (outliers) {
        rows.outliers = part(job.scratch, places.codes + 2 * places.scales, words * 4);
        list = part(job.scratch, places.codes + 2 * places.scales + places.bits, (k + 1) * 4);
        QLORA_TRY(enqueue_fill(context, job.stream, rows.outliers, words * 4));
    }
    QLORA_TRY(enqueue_row_codes(context, job.stream, job.entry, rows));
    if (outliers) {
        struct ListPush {
            PushHeader header;
            uint32_t words;
        };
        QLORA_TRY(enqueue(context, job.stream, Shader::int8_outliers, {}, {rows.outliers, list}, ListPush{{}, uint32_t(words)}, 1));
    }
    const Tile tile = tile_for(state, m, n);
    const uint64_t tiles_m = groups_of(m, tile.m);
    const WeightSpans planes = spans_of(weight);
    return enqueue(context, job.stream, state.dot_product ? Shader::int8_product_dot : Shader::int8_product,
                   {uint32_t(job.x.type), uint32_t(job.y.type), job.accumulate, job.bias.handle != 0, outliers, job.turned, one_scale(weight), weight.cols % 4 == 0, tile.m, tile.n,
                    tile.each_m, tile.each_n},
                   {planes.code, planes.scale, rows.codes, rows.absmax, exact(job.x), exact(job.y), part(job.bias, 0, n * 4), list},
                   Push{{},
                        uint32_t(m),
                        uint32_t(n),
                        uint32_t(k),
                        uint32_t(weight.cols),
                        uint32_t(places.padded / 16),
                        uint32_t(bytes ? (bytes - 1) / 4 : 0),
                        uint32_t(job.x.stride),
                        uint32_t(job.y.stride),
                        uint32_t(tiles_m)},
                   tiles_m * groups_of(n, tile.n));
}

} // namespace

uint64_t int8_matmul_scratch(Context &, const qlora_int8_matmul_args &args) { return places_of(args.x.rows, args.weight->cols, true).total(); }
uint64_t int8_matmul_grad_scratch(Context &, const qlora_int8_matmul_grad_args &args) { return places_of(args.dy.rows, args.weight->rows, false).total(); }

int32_t int8_matmul(Context &context, const qlora_int8_matmul_args &args) {
    return enqueue_int8(context, {"qlora_int8_matmul", args.stream, args.scratch, args.weight, args.x, args.y, args.bias, args.threshold, false, (args.flags & QLORA_FLAG_ACCUMULATE) != 0});
}

int32_t int8_matmul_grad(Context &context, const qlora_int8_matmul_grad_args &args) {
    return enqueue_int8(context, {"qlora_int8_matmul_grad", args.stream, args.scratch, args.weight, args.dy, args.dx, qlora_span{}, 0, true, (args.flags & QLORA_FLAG_ACCUMULATE) != 0});
}

} // namespace vulkan
} // namespace qlora
