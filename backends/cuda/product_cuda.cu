// How to compute a product. Few rows: gemv. A rank on one side: low_rank_cuda.cu. A 16-bit compute type: cuBLASLt on a dequantized panel of the weight when
// it is there and the product is large, else our tensor core kernels, which decode on the way or, where they were not
// compiled for the codec, read a panel as well. Otherwise f32 SIMT, on a panel.
#include "backends/cuda/cublaslt.cuh"
#include "backends/cuda/dequantize.cuh"
#include "backends/cuda/mma.cuh"
#include "backends/cuda/product.cuh"

#include <algorithm>

namespace qlora {
namespace cuda {

constexpr int64_t lt_rows = 128;                   // from here a dequantized panel pays
constexpr uint64_t panel_bytes = uint64_t(128) << 20; // at most, for a panel of dequantized weight

static bool is_float(const qlora_weight &weight) { return format_row(weight.format)->codec == Codec::FLOAT; }
// Whether tensor core kernels decode this weight themselves. A kernel for each row of formats.def would take minutes to compile.
constexpr bool decodes_in_mma(Codec codec) { return codec != Codec::BLOCK && codec != Codec::NARROW && codec != Codec::AFFINE && codec != Codec::BILEVEL && codec != Codec::ABSMAX8; }
static int64_t round_up(int64_t value, int64_t step) { return (value + step - 1) / step * step; }

// Columns of y per dequantized panel: all, or equal parts within panel_bytes.
static int64_t panel_columns(const Product &p, int32_t type) {
    const int64_t most = std::max<int64_t>(128, int64_t(panel_bytes / (uint64_t(p.k) * type_bytes(type) + 1)) / 128 * 128);
    return p.n <= most ? p.n : round_up(int64_t(ceil_divide(uint64_t(p.n), ceil_divide(uint64_t(p.n), uint64_t(most)))), 128);
}
static uint64_t panel_elements(const Product &p, int64_t columns) {
    return p.b.turned ? uint64_t(p.k) * round_up(columns, 8) : uint64_t(columns) * round_up(p.k, 8);
}

// Whether the kernels of a compute type (tensor cores or SIMT) want a panel of this type, and the first of its parts, which
// is the widest: it decides the slices of all of them.
static bool takes_panel(const Product &p, bool mma) { return p.weight && (mma ? !decodes_in_mma(format_row(p.weight->format)->codec) : !is_float(*p.weight)); }
static Product widest_part(const Product &p, bool mma) {
    Product part = p;
    if (takes_panel(p, mma)) part.n = std::min(p.n, panel_columns(p, mma ? p.compute_type : QLORA_FORMAT_F32));
    return part;
}

// ---- slices of k, for products with too few tiles to fill the device ------------------------------------------

struct Tiling {
    int64_t m, n, k;
};
constexpr Tiling simt_tiling = {simt_m, simt_n, simt_k}, mma_tiling = {mma_m, mma_n, mma_k};

static int64_t slice_limit(Context &context, const Product &p, int64_t tiles) {
    const int64_t wanted = int64_t(state_of(context).multiprocessors) * 2 / std::max<int64_t>(tiles, 1);
    return std::max<int64_t>(1, std::min({wanted, (p.k + p.low_k) / 256, int64_t(64)}));
}
static int slices_of(Context &context, const Product &p, const Tiling &tiling) {
    return int(slice_limit(context, p, int64_t(ceil_divide(uint64_t(p.m), uint64_t(tiling.m)) * ceil_divide(uint64_t(p.n), uint64_t(tiling.n)))));
}
// A bound that does not fall when m grows.
static uint64_t partial_elements(Context &context, const Product &p, const Tiling &tiling) {
    const int64_t columns = int64_t(ceil_divide(uint64_t(p.n), uint64_t(tiling.n)));
    const int64_t slices = slice_limit(context, p, columns), target = int64_t(state_of(context).multiprocessors) * 2 / std::max<int64_t>(columns, 1);
    return slices <= 1 ? 0 : uint64_t(std::min(slices * p.m, target * tiling.m)) * uint64_t(p.n);
}

static __global__ void __launch_bounds__(256) finish_kernel(Epilogue y, const float *partial, int slices) {
    const int64_t groups = (y.n + 7) / 8;
    for (int64_t i = blockIdx.x * 256ll + threadIdx.x; i < y.m * groups; i += gridDim.x * 256ll) {
        const int64_t r = i / groups, c = i % groups * 8;
        float sum[8] = {}, values[8];
        for (int s = 0; s < slices; s++) {
            load8(partial, QLORA_FORMAT_F32, (s * y.m + r) * y.n + c, y.n - c, y.n % 8 == 0, values);
#pragma unroll
            for (int j = 0; j < 8; j++) sum[j] += values[j];
        }
        y.finish8(r, c, sum, values);
    }
}

static int32_t finish(Context &context, cudaStream_t stream, const Product &p, int slices, const float *partial) {
    if (slices <= 1) return QLORA_OK;
    const uint64_t blocks = ceil_divide(uint64_t(p.m) * ceil_divide(uint64_t(p.n), 8), 256);
    return launch(context, stream, Grid{dim3(unsigned(std::min<uint64_t>(blocks, 4096))), 256}, finish_kernel, epilogue_of(p, nullptr), partial, slices);
}

// ---- routes -----------------------------------------------------------------------------------------------------

static bool takes_gemv(const Product &p) { return p.weight && !p.b.turned && p.m <= gemv_rows; }

static bool stages_a(const Product &p) { return p.a.type != p.compute_type || p.a.stride % 8 != 0; }

// By shapes and types; alignment is looked at when the addresses are known. Without a weight: the gradient of one.
static bool takes_lt(Context &context, const Product &p) {
    if (!state_of(context).lt || !has_mma(context, p.compute_type) || p.m < lt_rows || p.n < 64 || p.k < 64) return false;
    if (p.a.turned && stages_a(p)) return false;
    return p.weight || (p.a.turned && p.b.turned && p.n >= lt_rows && p.low_k == 0 && p.b.type == p.compute_type && p.b.stride % 8 == 0);
}
static bool stages_weight(const Product &p) { return p.weight && (p.weight->format != p.compute_type || p.weight->cols % 8 != 0); }
static uint64_t lt_workspace(Context &context) { return uint64_t(state_of(context).capability >= 90 ? 32 : 8) << 20; }

// Whether a product with a low-rank one can be one product over [a | low_a] [W | low_b]^T, by shapes and types: where one panel holds W, and
// tokens are few enough for a copy of a.
static int64_t padded_rank(const Product &p) { return round_up(p.low_k, 8); }
static int64_t augmented_stride(const Product &p) { return round_up(p.k + padded_rank(p), 64); }
static int64_t augmented_rows(const Product &p) { return std::min(p.m, int64_t(panel_bytes / (uint64_t(augmented_stride(p)) * 2))); }
static uint64_t augmented_panel(const Product &p) {
    return p.b.turned ? uint64_t(p.k + padded_rank(p)) * round_up(p.n, 8) : uint64_t(p.n) * augmented_stride(p);
}
static bool may_augment(const Product &p) {
    return stages_weight(p) && !stages_a(p) && p.low_k > 0 && p.low_k <= most_rank && p.k % 8 == 0 && (!p.b.turned || p.n % 8 == 0) && augmented_panel(p) * 2 <= panel_bytes;
}
// The same for one whose low_a a companion makes.
static bool augments(const Product &p) {
    return may_augment(p) && augmented_rows(p) == p.m && !p.bias && p.companions && p.companions->first && low_rank_kind(*p.companions->first) == LowRank::NARROW &&
           p.companions->first->a.data == p.a.data && p.companions->first->m == p.m && p.companions->first->k == p.k && p.low_b.type != 0 &&
           (p.low_b.type == QLORA_FORMAT_F32 || p.low_b.type == p.compute_type);
}

namespace {
// Scratch of a product over [a | low_a] [W | low_b]^T; with no base it only adds up.
struct AugmentedSpace {
    void *workspace;
    uint16_t *a, *panel;
    uint64_t bytes;
    AugmentedSpace(Context &context, const Product &p, Carver scratch) {
        workspace = scratch.take<char>(lt_workspace(context));
        a = scratch.take<uint16_t>(uint64_t(augmented_rows(p)) * augmented_stride(p));
        panel = scratch.take<uint16_t>(augmented_panel(p));
        bytes = scratch.bytes;
    }
};
} // namespace

// The n columns from c of a product, which is all of it but b.
static Product part_of(const Product &p, int64_t c, int64_t n) {
    Product part = p;
    part.n = n;
    part.y = static_cast<char *>(p.y) + c * type_bytes(p.y_type);
    if (p.bias) part.bias = p.bias + c;
    if (p.low_k) {
        part.low_b.data = static_cast<const char *>(p.low_b.data) + (p.b.turned ? c : c * p.low_b.stride) * type_bytes(p.low_b.type);
        part.low_b.vector = p.low_b.vector && reinterpret_cast<uint64_t>(part.low_b.data) % 16 == 0;
    }
    return part;
}

// The weight's part for columns c .. c + n of y, as a plain operand in memory.
static int32_t dequantize_part(Context &context, cudaStream_t stream, const Product &p, int64_t c, int64_t n, int32_t type, void *memory, Operand *b) {
    const int64_t rows = p.b.turned ? p.k : n, cols = p.b.turned ? n : p.k;
    const View panel = {memory, rows, cols, round_up(cols, 8), type, true};
    *b = operand_of(memory, type, panel.stride, p.b.turned);
    return dequantize_panel(context, stream, *p.weight, p.b.turned ? 0 : c, p.b.turned ? c : 0, panel);
}

// run(part) for the parts of a product whose weight is dequantized to panels of a type.
template <class Run> static int32_t run_panels(Context &context, cudaStream_t stream, const Product &p, int32_t type, Carver &scratch, Run &&run) {
    const int64_t columns = panel_columns(p, type);
    void *panel = scratch.take<char>(panel_elements(p, columns) * type_bytes(type));
    for (int64_t c = 0; c < p.n; c += columns) {
        Product part = part_of(p, c, std::min(columns, p.n - c));
        part.weight = nullptr;
        QLORA_TRY(dequantize_part(context, stream, p, c, part.n, type, panel, &part.b));
        QLORA_TRY(run(part));
    }
    return QLORA_OK;
}

static int32_t run_simt(Context &context, cudaStream_t stream, const Product &p, Carver scratch) {
    const Product widest = widest_part(p, false);
    const int slices = slices_of(context, widest, simt_tiling);
    float *partial = scratch.take<float>(partial_elements(context, widest, simt_tiling));
    const auto run = [&](const Product &part) -> int32_t {
        QLORA_TRY(multiply_simt(context, stream, part, slices, partial));
        return finish(context, stream, part, slices, partial);
    };
    if (!p.weight) return run(p);
    if (is_float(*p.weight)) {
        Product plain = p;
        plain.b = operand_of(address<const void>(p.weight->planes[QLORA_PLANE_CODE]), p.weight->format, int64_t(p.weight->cols), p.b.turned);
        return run(plain);
    }
    return run_panels(context, stream, p, QLORA_FORMAT_F32, scratch, run);
}

static int32_t multiply_weight(Context &context, cudaStream_t stream, const Product &p, int slices, float *partial) {
    return with_format(p.weight->format, int32_t(QLORA_ERROR_FORMAT), [&](auto row) -> int32_t {
        using F = decltype(row);
        if constexpr (F::codec == Codec::FLOAT) {
            Product plain = p;
            plain.weight = nullptr;
            plain.b = operand_of(address<const void>(p.weight->planes[QLORA_PLANE_CODE]), p.weight->format, int64_t(p.weight->cols), p.b.turned);
            return multiply_plain_mma(context, stream, plain, slices, partial);
        } else if constexpr (decodes_in_mma(F::codec)) {
            return multiply_weight_mma<F::codec, F::scale>(context, stream, p, slices, partial);
        } else {
            return QLORA_ERROR_UNSUPPORTED; // takes_panel
        }
    });
}

static int32_t run_mma(Context &context, cudaStream_t stream, const Product &p, Carver scratch) {
    const Product widest = widest_part(p, true);
    const int slices = slices_of(context, widest, mma_tiling);
    float *partial = scratch.take<float>(partial_elements(context, widest, mma_tiling));
    if (low_rank_kind(p) != LowRank::NONE) return multiply_low_rank(context, stream, p);
    const auto run = [&](const Product &part) -> int32_t {
        QLORA_TRY(part.weight ? multiply_weight(context, stream, part, slices, partial) : multiply_plain_mma(context, stream, part, slices, partial));
        return finish(context, stream, part, slices, partial);
    };
    return takes_panel(p, true) ? run_panels(context, stream, p, p.compute_type, scratch, run) : run(p);
}

// Whether a product can run beside another: it needs no scratch.
static bool runs_beside(const Product *product) { return !product || low_rank_kind(*product) == LowRank::NARROW || low_rank_kind(*product) == LowRank::COLUMNS; }
static bool run_beside(const Companions &c) { return runs_beside(c.first) && runs_beside(c.after[0]) && runs_beside(c.after[1]); }

static int32_t run_companions_after(Context &context, const Companions &companions, Beside &beside) {
    QLORA_TRY(beside.mark());
    for (const Product *product : companions.after)
        if (product) QLORA_TRY(multiply_low_rank(context, beside.stream(), *product));
    return QLORA_OK;
}

// y = a b^T by cuBLASLt, or where this shape is not for it, by our kernel.
static int32_t multiply_dense(Context &context, cudaStream_t stream, const Product &part, LtProduct lt, const void *a, const Operand &b, void *workspace) {
    lt.n = part.n;
    lt.b_stride = b.stride;
    const int32_t status = multiply_lt(context, stream, lt, a, b.data, part.y, workspace, lt_workspace(context));
    if (status != QLORA_ERROR_UNSUPPORTED) return status;
    Product plain = part;
    plain.weight = nullptr;
    plain.k = lt.k;
    plain.a = operand_of(a, part.compute_type, lt.a_stride, part.a.turned);
    plain.b = b;
    plain.bias = nullptr;
    plain.low_k = 0;
    plain.accumulate = lt.beta != 0;
    return multiply_plain_mma(context, stream, plain, 1, nullptr);
}

// Beside the decoding of the weight a companion makes low_a and puts it, and low_b, where they are part of the operands.
static int32_t run_augmented(Context &context, cudaStream_t stream, const Product &p, Carver scratch) {
    const AugmentedSpace space(context, p, scratch);
    const int64_t ranks = padded_rank(p), stride = augmented_stride(p), panel_stride = p.b.turned ? round_up(p.n, 8) : stride;
    Operand low_b = p.low_b;
    low_b.turned = p.b.turned;
    Beside beside(context, stream);
    QLORA_TRY(beside.fork());
    QLORA_TRY(multiply_augmenting(context, beside.stream(), *p.companions->first, Augmented{space.a, space.panel, stride, panel_stride, ranks, p.low_a.scale, low_b, p.n, p.k}));
    QLORA_TRY(run_companions_after(context, *p.companions, beside));
    const View weight = {space.panel, p.b.turned ? p.k : p.n, p.b.turned ? p.n : p.k, panel_stride, p.compute_type, true};
    QLORA_TRY(dequantize_panel(context, stream, *p.weight, 0, 0, weight));
    QLORA_TRY(beside.wait());
    const LtProduct lt = {p.m, 0, p.k + ranks, stride, 0, p.y_stride, p.compute_type, p.y_type, false, p.b.turned, p.accumulate, 0};
    QLORA_TRY(multiply_dense(context, stream, p, lt, space.a, operand_of(space.panel, p.compute_type, panel_stride, p.b.turned), space.workspace));
    return beside.join();
}

// Bias and low-rank product go to y first, then the base product is added by cuBLASLt: y of a 16-bit type is rounded
// twice, which stays far inside the tolerances of ops.def and saves an f32 copy of y.
static int32_t run_lt(Context &context, cudaStream_t stream, const Product &p, Carver scratch) {
    if (augments(p)) return run_augmented(context, stream, p, scratch);
    void *workspace = scratch.take<char>(lt_workspace(context));
    LtProduct lt = {p.m, 0, p.k, p.a.stride, 0, p.y_stride, p.compute_type, p.y_type, p.a.turned, p.b.turned, p.accumulate, 0};
    const void *a = p.a.data;
    if (stages_a(p)) {
        const View staged = {scratch.take<uint16_t>(uint64_t(p.m) * round_up(p.k, 8)), p.m, p.k, round_up(p.k, 8), p.compute_type, true};
        const qlora_span span = {reinterpret_cast<uint64_t>(p.a.data), 0, 0};
        qlora_weight plain = {};
        plain.format = p.a.type;
        plain.block = 1;
        plain.rows = uint64_t(p.m);
        plain.cols = uint64_t(p.a.stride); // rows of the panel are narrower than the matrix that holds them
        plain.planes[QLORA_PLANE_CODE] = span;
        QLORA_TRY(dequantize_panel(context, stream, plain, 0, 0, staged));
        a = staged.data;
        lt.a_stride = staged.stride;
    }
    Beside beside(context, stream);
    if (p.companions) {
        QLORA_TRY(beside.fork());
        if (p.companions->first) QLORA_TRY(multiply_low_rank(context, beside.stream(), *p.companions->first));
    }
    if (p.bias || p.low_k) {
        Product first = p;
        first.companions = nullptr;
        first.weight = nullptr;
        first.k = p.low_k;
        first.a = p.low_a;
        first.b = p.low_b;
        first.b.turned = p.b.turned;
        first.low_k = 0;
        QLORA_TRY(low_rank_kind(first) != LowRank::NONE ? multiply_low_rank(context, beside.stream(), first) : multiply_plain_mma(context, beside.stream(), first, 1, nullptr));
        lt.beta = 1;
    }
    if (p.companions) QLORA_TRY(run_companions_after(context, *p.companions, beside));
    const bool staged = stages_weight(p);
    const int64_t columns = staged ? panel_columns(p, p.compute_type) : p.n;
    uint16_t *panel = staged ? scratch.take<uint16_t>(panel_elements(p, columns)) : nullptr;
    for (int64_t c = 0; c < p.n; c += columns) {
        Operand b = p.weight ? operand_of(address<const void>(p.weight->planes[QLORA_PLANE_CODE]), p.weight->format, int64_t(p.weight->cols), p.b.turned) : p.b;
        const Product part = part_of(p, c, std::min(columns, p.n - c));
        if (staged) QLORA_TRY(dequantize_part(context, stream, p, c, part.n, p.compute_type, panel, &b));
        if (c == 0) QLORA_TRY(beside.wait());
        QLORA_TRY(multiply_dense(context, stream, part, lt, a, b, workspace));
    }
    return beside.join();
}

static bool lt_aligned(const Product &p) {
    const uint64_t y = reinterpret_cast<uint64_t>(p.y), a = reinterpret_cast<uint64_t>(p.a.data);
    return y % 16 == 0 && p.y_stride * type_bytes(p.y_type) % 16 == 0 && (stages_a(p) || a % 16 == 0) && p.alpha == 1 &&
           (stages_weight(p) || (p.weight ? (p.weight->planes[QLORA_PLANE_CODE].handle + p.weight->planes[QLORA_PLANE_CODE].offset) % 16 == 0 : p.b.vector));
}

uint64_t multiply_scratch(Context &context, const Product &p) {
    if (p.m == 0 || p.n == 0 || takes_gemv(p)) return 0;
    const bool mma = has_mma(context, p.compute_type);
    Carver own;
    own.take<float>(partial_elements(context, widest_part(p, mma), mma ? mma_tiling : simt_tiling));
    const int32_t type = mma ? p.compute_type : QLORA_FORMAT_F32;
    if (takes_panel(p, mma)) own.take<char>(panel_elements(p, panel_columns(p, type)) * type_bytes(type));
    if (!takes_lt(context, p)) return own.bytes;
    Carver lt;
    lt.take<char>(lt_workspace(context));
    if (stages_a(p)) lt.take<uint16_t>(uint64_t(p.m) * round_up(p.k, 8));
    if (stages_weight(p)) lt.take<uint16_t>(panel_elements(p, panel_columns(p, p.compute_type)));
    return std::max({own.bytes, lt.bytes, may_augment(p) ? AugmentedSpace(context, p, Carver()).bytes : 0});
}

static int32_t multiply_alone(Context &context, cudaStream_t stream, const Product &p, Carver scratch) {
    if (p.m == 0 || p.n == 0) return QLORA_OK;
    if (takes_gemv(p)) return multiply_gemv(context, stream, p);
    if (takes_lt(context, p) && lt_aligned(p)) return run_lt(context, stream, p, scratch);
    return has_mma(context, p.compute_type) ? run_mma(context, stream, p, scratch) : run_simt(context, stream, p, scratch);
}

int32_t multiply(Context &context, cudaStream_t stream, const Product &p, Carver scratch) {
    if (!p.companions || (takes_lt(context, p) && lt_aligned(p) && stages_weight(p) && run_beside(*p.companions))) return multiply_alone(context, stream, p, scratch);
    Product alone = p;
    alone.companions = nullptr;
    if (p.companions->first) QLORA_TRY(multiply_alone(context, stream, *p.companions->first, scratch));
    QLORA_TRY(multiply_alone(context, stream, alone, scratch));
    for (const Product *product : p.companions->after)
        if (product) QLORA_TRY(multiply_alone(context, stream, *product, scratch));
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
