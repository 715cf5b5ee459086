// SpQR in double by the U of factor_cpu.h: tiles of rows that share grids, panel of columns by panel. Every element is summed in
// ref's order, without fused operations, so planes are ref's to the bit, for any instruction set and number of threads.
#include "backends/cpu/factor_cpu.h"
#include "backends/search/spqr.h"

#include <limits>

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t spread_cols = 64; // columns whose variances a task finds
constexpr double never = std::numeric_limits<double>::infinity();

// Pieces of scratch; of a worker: a tile of W, its errors in a panel, a row in f32, ranges and grids.
struct Pieces {
    uint64_t losses, outliers, workers, errors, room, ranges, grids, worker_bytes, bytes;
    Pieces(uint32_t threads, const qlora_weight &weight) {
        const uint64_t rows = rows_of_tile(weight);
        losses = Factor::bytes(weight.cols);
        outliers = losses + align_scratch(weight.rows * 8);
        workers = outliers + align_scratch(weight.outliers * sizeof(search::Outlier));
        errors = align_scratch(rows * weight.cols * 8);
        room = errors + align_scratch(rows * panel_cols * 8);
        ranges = room + align_scratch(weight.cols * 4);
        grids = ranges + align_scratch(rows * sizeof(search::BilevelRange));
        worker_bytes = grids + align_scratch(rows * sizeof(search::BilevelGrid));
        bytes = workers + worker_bytes * threads;
    }
};

struct Run {
    Context &context;
    const qlora_quantize_spqr_args &args;
    const qlora_weight &weight;
    const Kernels &kernels;
    const search::BilevelPlanes planes;
    const uint64_t cols, block;
    const Pieces pieces;
    char *scratch;
    Factor factor;
    double *losses;
    search::Outliers outliers;
    double limit = never;
    Run(Context &context, const qlora_quantize_spqr_args &args)
        : context(context), args(args), weight(*args.weight), kernels(kernels_of(context)), planes(weight), cols(weight.cols), block(weight.block), pieces(state_of(context).threads, weight),
          scratch(address<char>(args.scratch)), factor(context, args.hessian, (args.flags & QLORA_FLAG_WIDE) != 0, cols, scratch), losses(reinterpret_cast<double *>(scratch + pieces.losses)),
          outliers(reinterpret_cast<search::Outlier *>(scratch + pieces.outliers), weight.outliers) {}
    bool flag(uint32_t bit) const { return (args.flags & bit) != 0; }
    template <class T> T *own(uint32_t worker, uint64_t piece) const { return reinterpret_cast<T *>(scratch + pieces.workers + worker * pieces.worker_bytes + piece); }
    void load(uint64_t r, uint64_t c, uint64_t count, float *dst) const { kernels.load[type_index(args.src.type)](element(args.src, r, c), count, dst); }
};

int32_t refuse_not_finite(const Run &run) {
    FirstBad src(element_count(run.weight));
    parallel(run.context, run.weight.rows, [&](uint64_t r, uint32_t worker) {
        float *row = run.own<float>(worker, run.pieces.room);
        run.load(r, 0, run.cols, row);
        src.found(run.kernels.find_not_finite(row, run.cols), run.cols, r * run.cols);
    });
    QLORA_TRY(src.status(run.context, run.weight, "qlora_weight_quantize_spqr"));
    return run.factor.refuse_not_finite("qlora_weight_quantize_spqr");
}

double limit_of(const Run &run) {
    if (!(run.args.threshold < std::numeric_limits<float>::infinity())) return never;
    double *spread = run.factor.strip;
    parallel(run.context, divide_up(run.cols, spread_cols), [&](uint64_t unit, uint32_t) {
        const uint64_t begin = unit * spread_cols, count = least(spread_cols, run.cols - begin), rows = run.weight.rows;
        double mean[spread_cols] = {}, sum[spread_cols] = {};
        float w[spread_cols];
        for (uint64_t r = 0; r < rows; r++) {
            run.load(r, begin, count, w);
            for (uint64_t j = 0; j < count; j++) mean[j] += double(w[j]) / double(rows);
        }
        for (uint64_t r = 0; r < rows; r++) {
            run.load(r, begin, count, w);
            for (uint64_t j = 0; j < count; j++) sum[j] += (double(w[j]) - mean[j]) * (double(w[j]) - mean[j]);
        }
        for (uint64_t j = 0; j < count; j++) spread[begin + j] = rows > 1 && !run.factor.dead[begin + j] ? sum[j] / double(rows - 1) : 0;
    });
    double sum = 0;
    for (uint64_t i = 0; i < run.cols; i++) {
        const double d = run.factor.u[i * run.cols + i];
        sum += spread[run.factor.order[i]] / (d * d);
    }
    return double(run.args.threshold) * (sum / double(run.cols));
}

// Rows of W under way.
struct Tile {
    uint64_t first, rows;
    double *w, *errors;
    search::BilevelRange *ranges;
    search::BilevelGrid *grids;
};

// Columns from place i on that belong to one group.
uint64_t rest_of_group(const Run &run, uint64_t i) {
    const uint64_t group = run.factor.order[i] / run.block;
    uint64_t end = i;
    while (end < run.cols && run.factor.order[end] / run.block == group) end++;
    return end - i;
}

// Where the panel that begins at i ends: behind as many whole groups as it holds, or inside a longer one.
uint64_t panel_end(const Run &run, uint64_t i) {
    uint64_t end = i;
    do {
        const uint64_t rest = rest_of_group(run, end);
        if (end == i && rest >= panel_cols) return i + panel_cols;
        if (end - i + rest > panel_cols) return end;
        end += rest;
    } while (end < run.cols);
    return end;
}

// Columns begin .. end, of one group, of a tile whose panel is first .. last; a group that begins here gets its grids.
void quantize_group(Run &run, const Tile &tile, uint64_t first, uint64_t last, uint64_t begin, uint64_t end) {
    const uint64_t n = run.cols, group = run.factor.order[begin] / run.block;
    const Factor &factor = run.factor;
    if (begin == 0 || factor.order[begin - 1] / run.block != group) {
        const double fit_limit = run.flag(QLORA_FLAG_SIMPLIFIED) ? never : run.limit;
        const uint64_t count = rest_of_group(run, begin);
        const auto values = [&](uint64_t r) { return search::GroupValues{tile.w + r * n + begin, factor.u + begin * n + begin, n + 1, count, factor.order + begin, factor.dead}; };
        for (uint64_t r = 0; r < tile.rows; r++) tile.ranges[r] = search::fit_range(values(r), run.planes.bits, fit_limit);
        run.planes.put_tile(tile.first, tile.rows, group, tile.ranges, tile.grids);
        for (uint64_t r = 0; run.flag(QLORA_FLAG_SEARCH) && r < tile.rows; r++) search::search_codes(run.planes, tile.first + r, group, values(r), run.limit, tile.grids[r]);
    }
    for (uint64_t r = 0; r < tile.rows; r++) {
        double *w = tile.w + r * n, *errors = tile.errors + r * panel_cols;
        for (uint64_t k = begin; k < end; k++) {
            const uint64_t column = factor.order[k];
            const double d = factor.u[k * n + k];
            const search::Rounded rounded = search::round_value(w[k], d, tile.grids[r], run.planes.bits, factor.dead[column] ? never : run.limit);
            run.planes.put_code(tile.first + r, column, rounded.code);
            if (rounded.is_outlier) run.outliers.add(tile.first + r, column, rounded.outlier);
            const double e = (w[k] - double(rounded.value)) / d;
            errors[k - first] = e;
            run.losses[tile.first + r] += e * e / 2;
            run.kernels.subtract_product({w + k + 1, &errors[k - first], factor.u + k * n + k + 1, n, 1, n, 1, last - k - 1, 1, false});
        }
    }
}

void quantize_tile(Run &run, const Tile &tile, float *room) {
    const uint64_t n = run.cols;
    for (uint64_t i = 0; i < tile.rows; i++) {
        run.load(tile.first + i, 0, n, room);
        for (uint64_t c = 0; c < n; c++)
            if (run.factor.dead[c]) room[c] = 0;
        for (uint64_t k = 0; k < n; k++) tile.w[i * n + k] = room[run.factor.order[k]];
        run.losses[tile.first + i] = 0;
    }
    for (uint64_t begin = 0; begin < n;) {
        const uint64_t end = panel_end(run, begin);
        for (uint64_t k = begin; k < end;) {
            const uint64_t next = k + least(rest_of_group(run, k), end - k);
            quantize_group(run, tile, begin, end, k, next);
            k = next;
        }
        run.kernels.subtract_product({tile.w + end, tile.errors, run.factor.u + begin * n + end, n, panel_cols, n, tile.rows, n - end, end - begin, false});
        begin = end;
    }
}

// Without a factor: every group on its own, dead columns zero.
void round_tile(Run &run, const Tile &tile, float *room) {
    search::round_tile(run.planes, tile.first, tile.rows, tile.ranges, tile.grids, [&](uint64_t r, uint64_t c, uint64_t count) {
        run.load(r, c, count, room);
        for (uint64_t i = 0; i < count; i++)
            if (run.factor.dead[c + i]) room[i] = 0;
        return room;
    });
}

// Tasks are whole tiles that share no byte of a stream.
void each_tile(Run &run, bool corrects) {
    const uint64_t task = rows_of_task(run.weight), tile = rows_of_tile(run.weight);
    run.outliers.found = 0;
    run.planes.begin();
    parallel(run.context, divide_up(run.weight.rows, task), [&](uint64_t unit, uint32_t worker) {
        for (uint64_t first = unit * task; first < least((unit + 1) * task, run.weight.rows); first += tile) {
            const Tile one = {first, least(tile, run.weight.rows - first), run.own<double>(worker, 0), run.own<double>(worker, run.pieces.errors),
                              run.own<search::BilevelRange>(worker, run.pieces.ranges), run.own<search::BilevelGrid>(worker, run.pieces.grids)};
            float *room = run.own<float>(worker, run.pieces.room);
            if (corrects) quantize_tile(run, one, room);
            else round_tile(run, one, room);
        }
    });
}

} // namespace

uint64_t quantize_spqr_scratch(Context &context, const qlora_quantize_spqr_args &args) { return Pieces(state_of(context).threads, *args.weight).bytes; }

int32_t quantize_spqr(Context &context, const qlora_quantize_spqr_args &args) {
    Run run(context, args);
    QLORA_TRY(refuse_not_finite(run));
    qlora_spqr_outcome outcome = {};
    outcome.struct_size = sizeof outcome;
    outcome.dead_columns = run.factor.begin();
    if (run.flag(QLORA_FLAG_ACT_ORDER)) search::order_groups(run.factor.diagonal, 1, run.factor.dead, run.cols, run.block, run.factor.order, reinterpret_cast<uint32_t *>(run.factor.strip));
    search::DampingLadder ladder(args.damping, run.factor.mean(false), run.factor.largest());
    outcome.loss = std::numeric_limits<double>::quiet_NaN();
    if (run.factor.find(ladder)) {
        outcome.limit = run.limit = limit_of(run);
        each_tile(run, true);
        outcome.loss = 0;
        for (uint64_t r = 0; r < run.weight.rows; r++) outcome.loss += run.losses[r];
    }
    if (!ladder.report(outcome)) each_tile(run, false);
    outcome.outliers = run.outliers.found;
    if (args.outcome.handle) std::memcpy(address<void>(args.outcome), &outcome, sizeof outcome);
    QLORA_TRY(search::refuse_too_many(context, run.weight, outcome.outliers));
    run.outliers.store(run.weight);
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
