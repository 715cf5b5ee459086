// GPTQ in double, column by column, by the U of factor_ref.h; each row w of W is on its own:
//
//   for i: q = nearest grid value to w[i], e = (w[i] - q) / U[i][i], w[k] -= e U[i][k] for k > i, loss += e^2 / 2
#include "backends/ref/factor_ref.h"
#include "backends/search/affine.h"

#include <cmath>
#include <limits>

namespace qlora {
namespace ref {
namespace {

struct Run {
    Context &context;
    const qlora_quantize_gptq_args &args;
    const qlora_weight &weight;
    uint64_t cols, groups;
    uint32_t bits;
    Factor factor;
    Grid row, lagging;
    uint32_t *order; // columns in the order of processing
    Run(Context &context, const qlora_quantize_gptq_args &args)
        : context(context), args(args), weight(*args.weight), cols(weight.cols), groups(group_count(weight)), bits(format_row(weight.format)->bits),
          factor(context, "qlora_weight_quantize_gptq", cols), row(context, 1, cols), lagging(context, 1, cols), order(factor.order) {}
    bool flag(uint32_t bit) const { return (args.flags & bit) != 0; }
    // Groups are those of places in the order of processing, not of columns.
    bool scattered() const { return flag(QLORA_FLAG_ACT_ORDER) && !flag(QLORA_FLAG_STATIC_GROUPS); }
};

// The grid of count values from values[0], rounded to f32 in room.
search::AffineGrid fit(const Run &run, const double *values, uint64_t count, float *room) {
    for (uint64_t i = 0; i < count; i++) room[i] = float(values[i]);
    return search::affine_fit(room, count, run.bits, run.flag(QLORA_FLAG_SYMMETRIC), run.flag(QLORA_FLAG_SEARCH));
}

void store_grid(const Run &run, uint64_t r, uint64_t group, const search::AffineGrid &grid) {
    const uint64_t at = r * run.groups + group;
    std::memcpy(address<char>(run.weight.planes[QLORA_PLANE_SCALE]) + at * 2, &grid.half, 2);
    search::put_code(address<uint8_t>(run.weight.planes[QLORA_PLANE_ZERO]), at, run.bits, grid.zero);
}
search::AffineGrid load_grid(const Run &run, uint64_t r, uint64_t group) {
    const uint64_t at = r * run.groups + group;
    uint16_t half;
    std::memcpy(&half, address<const char>(run.weight.planes[QLORA_PLANE_SCALE]) + at * 2, 2);
    return {search::of_half(half), half, search::get_code(address<const uint8_t>(run.weight.planes[QLORA_PLANE_ZERO]), at, run.bits)};
}

// Row r; corrects = false rounds to nearest alone. Returns the loss.
double quantize_row(Run &run, uint64_t r, bool corrects, float *room) {
    double *w = run.row[0], *lagging = run.lagging[0];
    const uint64_t block = run.weight.block;
    const bool is_static = run.flag(QLORA_FLAG_STATIC_GROUPS) || !corrects;
    for (uint64_t c = 0; c < run.cols; c++) lagging[c] = run.factor.dead[c] ? 0 : double(get(run.args.src, r, c));
    for (uint64_t begin = 0; is_static && begin < run.cols; begin += block)
        store_grid(run, r, begin / block, fit(run, lagging + begin, begin + block < run.cols ? block : run.cols - begin, room));
    for (uint64_t i = 0; i < run.cols; i++) w[i] = lagging[run.order[i]];
    double loss = 0;
    for (uint64_t i = 0; i < run.cols; i++) {
        if (i % run.args.lag == 0) std::memcpy(lagging, w, run.cols * sizeof(double));
        const uint64_t column = run.order[i], group = (run.scattered() && corrects ? i : column) / block;
        if (!is_static && i % block == 0)
            store_grid(run, r, group, fit(run, (run.flag(QLORA_FLAG_LAGGING) ? lagging : w) + i, i + block < run.cols ? block : run.cols - i, room));
        const search::AffineGrid grid = load_grid(run, r, group);
        const int code = search::affine_code(float(w[i]), grid, run.bits);
        search::put_code(address<uint8_t>(run.weight.planes[QLORA_PLANE_CODE]), r * run.cols + column, run.bits, code);
        if (!corrects) continue;
        const double *line = run.factor.u[i], e = (w[i] - search::affine_value(code, grid)) / line[i];
        loss += e * e / 2;
        for (uint64_t k = i + 1; k < run.cols; k++) w[k] -= e * line[k];
    }
    return loss;
}

double quantize_rows(Run &run, bool corrects, float *room) {
    double loss = 0;
    if (!corrects)
        for (uint64_t i = 0; i < run.cols; i++) run.order[i] = uint32_t(i);
    search::clear_stream_end(address<uint8_t>(run.weight.planes[QLORA_PLANE_CODE]), run.weight.rows * run.cols, run.bits);
    search::clear_stream_end(address<uint8_t>(run.weight.planes[QLORA_PLANE_ZERO]), run.weight.rows * run.groups, run.bits);
    for (uint64_t r = 0; r < run.weight.rows; r++) loss += quantize_row(run, r, corrects, room);
    for (uint64_t i = 0; (run.weight.flags & QLORA_WEIGHT_INDEXED) && i < run.cols; i++)
        address<int32_t>(run.weight.planes[QLORA_PLANE_INDEX])[run.order[i]] = int32_t((run.scattered() ? i : run.order[i]) / run.weight.block);
    return loss;
}

} // namespace

uint64_t quantize_gptq_scratch(Context &, const qlora_quantize_gptq_args &) { return 0; }

int32_t quantize_gptq(Context &context, const qlora_quantize_gptq_args &args) {
    Run run(context, args);
    Grid room(context, 1, run.cols);
    QLORA_TRY(run.factor.status());
    for (Grid *grid : {&run.row, &run.lagging, &room}) QLORA_TRY(grid->status());
    QLORA_TRY(refuse_not_finite(context, "qlora_weight_quantize_gptq", args.src));
    QLORA_TRY(run.factor.load(args.hessian, run.flag(QLORA_FLAG_WIDE)));
    qlora_gptq_outcome outcome = {};
    outcome.struct_size = sizeof outcome;
    outcome.dead_columns = run.factor.cut_dead_columns();
    if (run.flag(QLORA_FLAG_ACT_ORDER)) search::order_columns(run.factor.h.data, run.cols + 1, run.cols, run.order);
    search::DampingLadder ladder(args.damping, run.factor.diagonal_mean(), run.factor.diagonal_largest());
    const bool factored = run.factor.find(ladder);
    float *values = reinterpret_cast<float *>(room.data);
    outcome.loss = std::numeric_limits<double>::quiet_NaN();
    if (factored) outcome.loss = quantize_rows(run, true, values);
    if (!ladder.report(outcome)) quantize_rows(run, false, values);
    if (args.outcome.handle) std::memcpy(address<void>(args.outcome), &outcome, sizeof outcome);
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
