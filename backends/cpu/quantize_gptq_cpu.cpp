// GPTQ in double by the U of factor_cpu.h: rows of W in tiles, panel of columns by panel. Every element is summed in ref's order,
// without fused operations, so codes are ref's to the bit, for any instruction set and number of threads.
#include "backends/cpu/factor_cpu.h"

#include <cmath>
#include <limits>

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t tile_rows = 32; // of W per task; a multiple of stream_rows
static_assert(tile_rows % stream_rows == 0, "tasks share no byte of a stream");

// Pieces of scratch.
struct Pieces {
    uint64_t losses, workers, tile, worker_bytes, bytes;
    Pieces(uint32_t threads, const qlora_quantize_gptq_args &args) {
        const uint64_t cols = args.weight->cols;
        losses = Factor::bytes(cols);
        workers = losses + align_scratch(args.weight->rows * 8);
        // A tile of W, its errors in a panel, the same as it lags, one row in f32.
        tile = align_scratch(tile_rows * cols * 8);
        worker_bytes = tile * (args.flags & QLORA_FLAG_LAGGING ? 2 : 1) + tile_rows * panel_cols * 8 + align_scratch(cols * 4);
        bytes = workers + worker_bytes * threads;
    }
};

struct Run {
    Context &context;
    const qlora_quantize_gptq_args &args;
    const qlora_weight &weight;
    const Kernels &kernels;
    const AffinePlanes planes;
    const uint64_t cols, block;
    const Pieces pieces;
    char *scratch;
    Factor factor;
    double *losses;
    const double *u;
    const uint32_t *order;
    const uint8_t *dead;
    Run(Context &context, const qlora_quantize_gptq_args &args)
        : context(context), args(args), weight(*args.weight), kernels(kernels_of(context)), planes(weight), cols(weight.cols), block(weight.block), pieces(state_of(context).threads, args),
          scratch(address<char>(args.scratch)), factor(context, args.hessian, (args.flags & QLORA_FLAG_WIDE) != 0, cols, scratch), losses(reinterpret_cast<double *>(scratch + pieces.losses)),
          u(factor.u), order(factor.order), dead(factor.dead) {}
    bool flag(uint32_t bit) const { return (args.flags & bit) != 0; }
    bool scattered() const { return flag(QLORA_FLAG_ACT_ORDER) && !flag(QLORA_FLAG_STATIC_GROUPS); }
};

int32_t refuse_not_finite(const Run &run) {
    FirstBad src(element_count(run.weight));
    parallel(run.context, run.weight.rows, [&](uint64_t r, uint32_t worker) {
        float *row = reinterpret_cast<float *>(run.scratch + run.pieces.workers + worker * run.pieces.worker_bytes);
        run.kernels.load[type_index(run.args.src.type)](element(run.args.src, r, 0), run.cols, row);
        src.found(run.kernels.find_not_finite(row, run.cols), run.cols, r * run.cols);
    });
    QLORA_TRY(src.status(run.context, run.weight, "qlora_weight_quantize_gptq"));
    return run.factor.refuse_not_finite("qlora_weight_quantize_gptq");
}

// Rows of W under way.
struct Tile {
    uint64_t first, rows;
    double *w, *errors, *lagging;
    float *room;
};

// Where the panel that begins at i ends: at the next place where scales or lagging values are found from whole columns.
uint64_t panel_end(const Run &run, uint64_t i) {
    uint64_t end = least(i + panel_cols, run.cols);
    if (!run.flag(QLORA_FLAG_STATIC_GROUPS)) end = run.block < panel_cols ? least(end, i + panel_cols / run.block * run.block) : least(end, (i / run.block + 1) * run.block);
    if (run.flag(QLORA_FLAG_LAGGING)) end = least(end, (i / run.args.lag + 1) * uint64_t(run.args.lag));
    return end;
}

search::AffineGrid fit(const Run &run, const double *values, uint64_t count, float *room) {
    for (uint64_t i = 0; i < count; i++) room[i] = float(values[i]);
    return search::affine_fit(room, count, run.planes.bits, run.flag(QLORA_FLAG_SYMMETRIC), run.flag(QLORA_FLAG_SEARCH));
}

// One row through one panel; its errors for the columns behind.
void quantize_panel(const Run &run, const Tile &tile, uint64_t i, uint64_t begin, uint64_t end, double *loss) {
    const uint64_t r = tile.first + i, n = run.cols;
    double *w = tile.w + i * n, *errors = tile.errors + i * panel_cols;
    const double *source = run.flag(QLORA_FLAG_LAGGING) ? tile.lagging + i * n : w;
    const bool is_static = run.flag(QLORA_FLAG_STATIC_GROUPS);
    search::AffineGrid grid = {};
    uint64_t known = run.planes.groups;
    for (uint64_t k = begin; k < end; k++) {
        const uint64_t column = run.order[k], group = (run.scattered() ? k : column) / run.block;
        if (!is_static && k % run.block == 0) {
            grid = fit(run, source + k, least(run.block, n - k), tile.room);
            run.planes.put_grid(r, group, grid);
        } else if (group != known) {
            grid = run.planes.grid(r, group);
        }
        known = group;
        const int code = search::affine_code(float(w[k]), grid, run.planes.bits);
        run.planes.put_code(r, column, code);
        const double e = (w[k] - search::affine_value(code, grid)) / run.u[k * n + k];
        errors[k - begin] = e;
        *loss += e * e / 2;
        run.kernels.subtract_product({w + k + 1, &errors[k - begin], run.u + k * n + k + 1, n, 1, n, 1, end - k - 1, 1, false});
    }
}

void quantize_tile(const Run &run, const Tile &tile) {
    const uint64_t n = run.cols;
    for (uint64_t i = 0; i < tile.rows; i++) {
        const uint64_t r = tile.first + i;
        double *w = tile.w + i * n;
        run.kernels.load[type_index(run.args.src.type)](element(run.args.src, r, 0), n, tile.room);
        for (uint64_t c = 0; c < n; c++)
            if (run.dead[c]) tile.room[c] = 0;
        for (uint64_t k = 0; k < n; k++) w[k] = tile.room[run.order[k]];
        for (uint64_t begin = 0; run.flag(QLORA_FLAG_STATIC_GROUPS) && begin < n; begin += run.block)
            run.planes.put_grid(r, begin / run.block,
                                search::affine_fit(tile.room + begin, least(run.block, n - begin), run.planes.bits, run.flag(QLORA_FLAG_SYMMETRIC), run.flag(QLORA_FLAG_SEARCH)));
        run.losses[r] = 0;
    }
    for (uint64_t begin = 0; begin < n;) {
        const uint64_t end = panel_end(run, begin);
        if (run.flag(QLORA_FLAG_LAGGING) && begin % run.args.lag == 0) std::memcpy(tile.lagging, tile.w, tile.rows * n * 8);
        for (uint64_t i = 0; i < tile.rows; i++) quantize_panel(run, tile, i, begin, end, run.losses + tile.first + i);
        run.kernels.subtract_product({tile.w + end, tile.errors, run.u + begin * n + end, n, panel_cols, n, tile.rows, n - end, end - begin, false});
        begin = end;
    }
}

double quantize_rows(const Run &run) {
    run.planes.begin();
    parallel(run.context, divide_up(run.weight.rows, tile_rows), [&](uint64_t unit, uint32_t worker) {
        char *own = run.scratch + run.pieces.workers + worker * run.pieces.worker_bytes, *errors = own + run.pieces.tile;
        char *lagging = errors + tile_rows * panel_cols * 8, *room = lagging + (run.flag(QLORA_FLAG_LAGGING) ? run.pieces.tile : 0);
        const uint64_t first = unit * tile_rows;
        quantize_tile(run, Tile{first, least(tile_rows, run.weight.rows - first), reinterpret_cast<double *>(own), reinterpret_cast<double *>(errors), reinterpret_cast<double *>(lagging),
                                reinterpret_cast<float *>(room)});
    });
    for (uint64_t i = 0; (run.weight.flags & QLORA_WEIGHT_INDEXED) && i < run.cols; i++)
        address<int32_t>(run.weight.planes[QLORA_PLANE_INDEX])[run.order[i]] = int32_t((run.scattered() ? i : run.order[i]) / run.block);
    double loss = 0;
    for (uint64_t r = 0; r < run.weight.rows; r++) loss += run.losses[r];
    return loss;
}

// Without a factor: every group on its own, dead columns zero.
void round_rows(const Run &run) {
    run.planes.begin();
    parallel(run.context, divide_up(run.weight.rows, stream_rows), [&](uint64_t unit, uint32_t worker) {
        float *w = reinterpret_cast<float *>(run.scratch + run.pieces.workers + worker * run.pieces.worker_bytes);
        for (uint64_t r = unit * stream_rows; r < least((unit + 1) * stream_rows, run.weight.rows); r++) {
            run.kernels.load[type_index(run.args.src.type)](element(run.args.src, r, 0), run.cols, w);
            for (uint64_t c = 0; c < run.cols; c++)
                if (run.dead[c]) w[c] = 0;
            encode_affine_row(run.planes, r, w, run.flag(QLORA_FLAG_SYMMETRIC), run.flag(QLORA_FLAG_SEARCH));
        }
    });
    straight_index(run.weight);
}

} // namespace

uint64_t quantize_gptq_scratch(Context &context, const qlora_quantize_gptq_args &args) { return Pieces(state_of(context).threads, args).bytes; }

int32_t quantize_gptq(Context &context, const qlora_quantize_gptq_args &args) {
    Run run(context, args);
    QLORA_TRY(refuse_not_finite(run));
    qlora_gptq_outcome outcome = {};
    outcome.struct_size = sizeof outcome;
    outcome.dead_columns = run.factor.begin();
    if (run.flag(QLORA_FLAG_ACT_ORDER)) search::order_columns(run.factor.diagonal, 1, run.cols, run.factor.order);
    search::DampingLadder ladder(args.damping, run.factor.mean(true), run.factor.largest());
    const bool factored = run.factor.find(ladder);
    outcome.loss = std::numeric_limits<double>::quiet_NaN();
    if (factored) outcome.loss = quantize_rows(run);
    if (!ladder.report(outcome)) round_rows(run);
    if (args.outcome.handle) std::memcpy(address<void>(args.outcome), &outcome, sizeof outcome);
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
