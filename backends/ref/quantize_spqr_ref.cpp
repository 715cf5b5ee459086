// SpQR in double, column by column, by the U of factor_ref.h; rows go together, nested_block of them, since their grids do:
//
//   where a group begins: the grids of the rows from the ranges of w[i .. i + block), as it is by then
//   for i: q = what the grid and, where ((w[i] - grid) / U[i][i])^2 > limit, an outlier give
//          e = (w[i] - q) / U[i][i], w[k] -= e U[i][k] for k > i, loss += e^2 / 2
#include "backends/ref/factor_ref.h"
#include "backends/search/spqr.h"

#include <limits>

namespace qlora {
namespace ref {
namespace {

struct Run {
    Context &context;
    const qlora_quantize_spqr_args &args;
    const qlora_weight &weight;
    const search::BilevelPlanes planes;
    const uint64_t cols, tile;
    Factor factor;
    Grid w, losses, ranges_room, grids_room, list_room;
    search::BilevelRange *ranges;
    search::BilevelGrid *grids;
    search::Outliers outliers;
    double limit = std::numeric_limits<double>::infinity();
    Run(Context &context, const qlora_quantize_spqr_args &args)
        : context(context), args(args), weight(*args.weight), planes(weight), cols(weight.cols), tile(weight.nested_block < weight.rows ? weight.nested_block : weight.rows),
          factor(context, "qlora_weight_quantize_spqr", cols), w(context, tile, cols), losses(context, 1, weight.rows), ranges_room(context, 1, tile), grids_room(context, 1, tile),
          list_room(context, 2, weight.outliers), ranges(reinterpret_cast<search::BilevelRange *>(ranges_room.data)),
          grids(reinterpret_cast<search::BilevelGrid *>(grids_room.data)), outliers(reinterpret_cast<search::Outlier *>(list_room.data), weight.outliers) {
        static_assert(sizeof(search::Outlier) <= 2 * sizeof(double) && sizeof(search::BilevelRange) == sizeof(double) && sizeof(search::BilevelGrid) == sizeof(double), "rooms are of doubles");
    }
    int32_t status() const {
        QLORA_TRY(factor.status());
        for (const Grid *grid : {&w, &losses, &ranges_room, &grids_room, &list_room}) QLORA_TRY(grid->status());
        return QLORA_OK;
    }
    bool flag(uint32_t bit) const { return (args.flags & bit) != 0; }
    double source(uint64_t r, uint64_t c) const { return factor.dead[c] ? 0 : double(get(args.src, r, c)); }
};

double limit_of(Run &run) {
    if (!(run.args.threshold < std::numeric_limits<float>::infinity())) return std::numeric_limits<double>::infinity();
    double sum = 0;
    for (uint64_t i = 0; i < run.cols; i++) {
        const double spread = search::variance(run.weight.rows, [&](uint64_t r) { return run.source(r, run.factor.order[i]); }), d = run.factor.u[i][i];
        sum += spread / (d * d);
    }
    return double(run.args.threshold) * (sum / double(run.cols));
}

void fit_group(Run &run, uint64_t first, uint64_t rows, uint64_t i, uint64_t count) {
    const double fit_limit = run.flag(QLORA_FLAG_SIMPLIFIED) ? std::numeric_limits<double>::infinity() : run.limit;
    const auto values = [&](uint64_t r) { return search::GroupValues{run.w[r] + i, run.factor.u[i] + i, run.cols + 1, count, run.factor.order + i, run.factor.dead}; };
    const uint64_t group = run.factor.order[i] / run.weight.block;
    for (uint64_t r = 0; r < rows; r++) run.ranges[r] = search::fit_range(values(r), run.planes.bits, fit_limit);
    run.planes.put_tile(first, rows, group, run.ranges, run.grids);
    for (uint64_t r = 0; run.flag(QLORA_FLAG_SEARCH) && r < rows; r++) search::search_codes(run.planes, first + r, group, values(r), run.limit, run.grids[r]);
}

void quantize_tile(Run &run, uint64_t first, uint64_t rows) {
    const uint64_t block = run.weight.block;
    for (uint64_t r = 0; r < rows; r++)
        for (uint64_t i = 0; i < run.cols; i++) run.w[r][i] = run.source(first + r, run.factor.order[i]);
    for (uint64_t i = 0; i < run.cols; i++) {
        const uint64_t column = run.factor.order[i], group = column / block, begin = group * block;
        if (i == 0 || run.factor.order[i - 1] / block != group) fit_group(run, first, rows, i, begin + block < run.cols ? block : run.cols - begin);
        const double *line = run.factor.u[i], limit = run.factor.dead[column] ? std::numeric_limits<double>::infinity() : run.limit;
        for (uint64_t r = 0; r < rows; r++) {
            double *w = run.w[r];
            const search::Rounded rounded = search::round_value(w[i], line[i], run.grids[r], run.planes.bits, limit);
            run.planes.put_code(first + r, column, rounded.code);
            if (rounded.is_outlier) run.outliers.add(first + r, column, rounded.outlier);
            const double e = (w[i] - double(rounded.value)) / line[i];
            run.losses[0][first + r] += e * e / 2;
            for (uint64_t k = i + 1; k < run.cols; k++) w[k] -= e * line[k];
        }
    }
}

// Returns the loss.
double quantize_rows(Run &run) {
    run.planes.begin();
    for (uint64_t first = 0; first < run.weight.rows; first += run.tile) quantize_tile(run, first, first + run.tile < run.weight.rows ? run.tile : run.weight.rows - first);
    double loss = 0;
    for (uint64_t r = 0; r < run.weight.rows; r++) loss += run.losses[0][r];
    return loss;
}

// Without a factor every group is on its own.
void round_rows(Run &run) {
    run.outliers.found = 0;
    run.planes.begin();
    float *w = reinterpret_cast<float *>(run.factor.line.data);
    for (uint64_t first = 0; first < run.weight.rows; first += run.tile)
        search::round_tile(run.planes, first, first + run.tile < run.weight.rows ? run.tile : run.weight.rows - first, run.ranges, run.grids, [&](uint64_t r, uint64_t c, uint64_t count) {
            for (uint64_t i = 0; i < count; i++) w[i] = float(run.source(r, c + i));
            return w;
        });
}

} // namespace

uint64_t quantize_spqr_scratch(Context &, const qlora_quantize_spqr_args &) { return 0; }

int32_t quantize_spqr(Context &context, const qlora_quantize_spqr_args &args) {
    Run run(context, args);
    QLORA_TRY(run.status());
    QLORA_TRY(refuse_not_finite(context, run.factor.entry, args.src));
    QLORA_TRY(run.factor.load(args.hessian, run.flag(QLORA_FLAG_WIDE)));
    const double mean = run.factor.diagonal_mean();
    qlora_spqr_outcome outcome = {};
    outcome.struct_size = sizeof outcome;
    outcome.dead_columns = run.factor.cut_dead_columns();
    if (run.flag(QLORA_FLAG_ACT_ORDER)) // line is free until there is a factor
        search::order_groups(run.factor.h.data, run.cols + 1, run.factor.dead, run.cols, run.weight.block, run.factor.order, reinterpret_cast<uint32_t *>(run.factor.line.data));
    search::DampingLadder ladder(args.damping, mean, run.factor.diagonal_largest());
    const bool factored = run.factor.find(ladder);
    outcome.loss = std::numeric_limits<double>::quiet_NaN();
    if (factored) {
        outcome.limit = run.limit = limit_of(run);
        outcome.loss = quantize_rows(run);
    }
    if (!ladder.report(outcome)) round_rows(run);
    outcome.outliers = run.outliers.found;
    if (args.outcome.handle) std::memcpy(address<void>(args.outcome), &outcome, sizeof outcome);
    QLORA_TRY(search::refuse_too_many(context, run.weight, outcome.outliers));
    run.outliers.store(run.weight);
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
