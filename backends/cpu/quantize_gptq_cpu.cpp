// GPTQ in double, blocked: the factor by the upper triangular R with H = R R^T, from its last columns; U = R^-1 from its last rows;
// then rows of W in tiles, panel of columns by panel. Every element is summed in ref's order, without fused operations, so codes are
// ref's to the bit, for any instruction set and number of threads.
#include "backends/cpu/quantize_cpu.h"
#include "backends/search/gptq.h"

#include <cmath>
#include <limits>

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t step = 64;       // columns of R, rows of U at a time
constexpr uint64_t chunk = 256;     // rows or columns of a task there
constexpr uint64_t tile_rows = 32;  // of W per task; a multiple of stream_rows
constexpr uint64_t panel_cols = 128; // of W whose errors are made up for together in the columns after them
static_assert(tile_rows % stream_rows == 0, "tasks share no byte of a stream");

// Pieces of scratch.
struct Pieces {
    uint64_t u, strip, order, dead, diagonal, losses, workers, tile, worker_bytes, bytes;
    Pieces(uint32_t threads, const qlora_quantize_gptq_args &args) {
        const uint64_t cols = args.weight->cols;
        u = 0;
        strip = u + align_scratch(cols * cols * 8);
        order = strip + align_scratch(step * cols * 8);
        dead = order + align_scratch(cols * 4);
        diagonal = dead + align_scratch(cols);
        losses = diagonal + align_scratch(cols * 8);
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
    double *u, *strip, *diagonal, *losses;
    uint32_t *order;
    uint8_t *dead;
    Run(Context &context, const qlora_quantize_gptq_args &args)
        : context(context), args(args), weight(*args.weight), kernels(kernels_of(context)), planes(weight), cols(weight.cols), block(weight.block), pieces(state_of(context).threads, args),
          scratch(address<char>(args.scratch)), u(reinterpret_cast<double *>(scratch + pieces.u)), strip(reinterpret_cast<double *>(scratch + pieces.strip)),
          diagonal(reinterpret_cast<double *>(scratch + pieces.diagonal)), losses(reinterpret_cast<double *>(scratch + pieces.losses)), order(reinterpret_cast<uint32_t *>(scratch + pieces.order)),
          dead(reinterpret_cast<uint8_t *>(scratch + pieces.dead)) {}
    bool flag(uint32_t bit) const { return (args.flags & bit) != 0; }
    bool scattered() const { return flag(QLORA_FLAG_ACT_ORDER) && !flag(QLORA_FLAG_STATIC_GROUPS); }
    double hessian(uint64_t r, uint64_t c) const {
        const uint64_t i = r * cols + c;
        return flag(QLORA_FLAG_WIDE) ? address<const double>(args.hessian)[i] : double(address<const float>(args.hessian)[i]);
    }
};

int32_t refuse_not_finite(const Run &run) {
    FirstBad src(element_count(run.weight)), hessian(run.cols * run.cols);
    parallel(run.context, run.weight.rows, [&](uint64_t r, uint32_t worker) {
        float *row = reinterpret_cast<float *>(run.scratch + run.pieces.workers + worker * run.pieces.worker_bytes);
        run.kernels.load[type_index(run.args.src.type)](element(run.args.src, r, 0), run.cols, row);
        src.found(run.kernels.find_not_finite(row, run.cols), run.cols, r * run.cols);
    });
    QLORA_TRY(src.status(run.context, run.weight, "qlora_weight_quantize_gptq"));
    parallel(run.context, run.cols, [&](uint64_t r, uint32_t) {
        uint64_t c = 0;
        while (c < run.cols && run.hessian(r, c) - run.hessian(r, c) == 0) c++;
        hessian.found(c, run.cols, r * run.cols);
    });
    const uint64_t i = hessian.index.load();
    if (i == hessian.none) return QLORA_OK;
    return run.context.fail(QLORA_ERROR_VALUE, "qlora_weight_quantize_gptq: hessian element %llu (row %llu, column %llu) is NaN or infinite; the inputs held one, or it was never written",
                            (unsigned long long)i, (unsigned long long)(i / run.cols), (unsigned long long)(i % run.cols));
}

// u = the damped Hessian in the order of processing, zero below the diagonal.
void load_hessian(const Run &run, const search::DampingLadder &ladder) {
    parallel(run.context, run.cols, [&](uint64_t i, uint32_t) {
        const uint64_t a = run.order[i];
        double *row = run.u + i * run.cols;
        for (uint64_t j = 0; j < i; j++) row[j] = 0;
        row[i] = ladder.diagonal(run.diagonal[a]);
        for (uint64_t j = i + 1; j < run.cols; j++) {
            const uint64_t b = run.order[j];
            row[j] = run.dead[a] || run.dead[b] ? 0 : a < b ? run.hessian(a, b) : run.hessian(b, a);
        }
    });
}

// Rows begin .. end of columns j0 .. j1 of R, whose own rows are done unless these are them.
bool solve_rows(const Run &run, uint64_t begin, uint64_t end, uint64_t j0, uint64_t j1) {
    const uint64_t n = run.cols;
    for (uint64_t j = j1; j-- > j0;) {
        const double *row = run.u + j * n;
        for (uint64_t i = begin; i < end && i <= j; i++) {
            double *out = run.u + i * n, sum = out[j];
            for (uint64_t k = j1; k-- > j + 1;) sum -= out[k] * row[k];
            out[j] = sum;
        }
        if (begin == j0) {
            if (!(row[j] > 0) || !(row[j] < std::numeric_limits<double>::infinity())) return false;
            run.u[j * n + j] = std::sqrt(row[j]);
        }
        for (uint64_t i = begin; i < end && i < j; i++) run.u[i * n + j] /= row[j];
    }
    return true;
}

bool factor(const Run &run) {
    const uint64_t n = run.cols;
    for (uint64_t steps = divide_up(n, step); steps-- > 0;) {
        const uint64_t j0 = steps * step, j1 = least(j0 + step, n);
        if (!solve_rows(run, j0, j1, j0, j1)) return false;
        parallel(run.context, divide_up(j0, step), [&](uint64_t unit, uint32_t) {
            const uint64_t begin = unit * step, end = least(begin + step, j0);
            solve_rows(run, begin, end, j0, j1);
            for (uint64_t i = begin; i < end; i++)
                for (uint64_t k = j0; k < j1; k++) run.strip[(k - j0) * n + i] = run.u[i * n + k]; // turned
        });
        parallel(run.context, divide_up(j0, step) * divide_up(j0, chunk), [&](uint64_t unit, uint32_t) {
            const uint64_t i = unit % divide_up(j0, step) * step, j = unit / divide_up(j0, step) * chunk;
            if (j + chunk <= i) return;
            run.kernels.subtract_product({run.u + i * n + j, run.u + i * n + j0, run.strip + j, n, n, n, least(step, j0 - i), least(chunk, j0 - j), j1 - j0, true});
        });
    }
    for (uint64_t i = 0; i < n; i++) // tasks cross the diagonal; what fell below it is no part of R
        for (uint64_t j = i / chunk * chunk; j < i; j++) run.u[i * n + j] = 0;
    return true;
}

// Columns c .. c + count of rows i0 .. i1 of the inverse, in the strip; U below is done.
void invert_cols(const Run &run, uint64_t i0, uint64_t i1, uint64_t c, uint64_t count) {
    const uint64_t n = run.cols;
    double *strip = run.strip + c;
    for (uint64_t i = i0; i < i1; i++)
        for (uint64_t j = 0; j < count; j++) strip[(i - i0) * n + j] = 0;
    for (uint64_t k = divide_up(least(n, c + count), step) * step; k >= i1 + step; k -= step)
        run.kernels.subtract_product({strip, run.u + i0 * n + k - step, run.u + (k - step) * n + c, n, n, n, i1 - i0, count, least(k, n) - (k - step), true});
    for (uint64_t i = i1; i-- > i0;) {
        double *out = strip + (i - i0) * n;
        run.kernels.subtract_product({out, run.u + i * n + i + 1, out + n, n, n, n, 1, count, i1 - i - 1, true});
        const double inverse = 1 / run.u[i * n + i];
        for (uint64_t j = 0; j < count; j++) out[j] = c + j == i ? inverse : c + j < i ? 0 : out[j] * inverse;
    }
}

// u = its own inverse.
void invert(const Run &run) {
    const uint64_t n = run.cols;
    for (uint64_t steps = divide_up(n, step); steps-- > 0;) {
        const uint64_t i0 = steps * step, i1 = least(i0 + step, n), units = divide_up(n - i1, chunk);
        parallel(run.context, units + 1, [&](uint64_t unit, uint32_t) {
            if (unit == units) invert_cols(run, i0, i1, i0, i1 - i0);
            else invert_cols(run, i0, i1, i1 + unit * chunk, least(chunk, n - i1 - unit * chunk));
        });
        parallel(run.context, i1 - i0, [&](uint64_t i, uint32_t) { std::memcpy(run.u + (i0 + i) * n + i0, run.strip + i * n + i0, (n - i0) * 8); });
    }
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
    const Run run(context, args);
    QLORA_TRY(refuse_not_finite(run));
    qlora_gptq_outcome outcome = {};
    outcome.struct_size = sizeof outcome;
    double mean = 0, largest = 0;
    for (uint64_t i = 0; i < run.cols; i++) {
        run.order[i] = uint32_t(i);
        run.diagonal[i] = run.hessian(i, i);
        run.dead[i] = run.diagonal[i] == 0;
        if (run.dead[i]) run.diagonal[i] = 1;
        outcome.dead_columns += run.dead[i];
        mean += run.diagonal[i] / double(run.cols);
        largest = std::fmax(largest, std::fabs(run.diagonal[i]));
    }
    if (run.flag(QLORA_FLAG_ACT_ORDER)) search::order_columns(run.diagonal, 1, run.cols, run.order);
    search::DampingLadder ladder(args.damping, mean, largest);
    bool factored = false;
    while (!factored && ladder.next()) {
        load_hessian(run, ladder);
        factored = factor(run);
    }
    outcome.loss = std::numeric_limits<double>::quiet_NaN();
    if (factored) {
        invert(run);
        outcome.loss = quantize_rows(run);
    }
    outcome.method = outcome.loss - outcome.loss == 0 ? ladder.method() : QLORA_GPTQ_NEAREST;
    outcome.attempts = ladder.attempts;
    outcome.damping = ladder.damping;
    outcome.floor = ladder.floor;
    if (outcome.method == QLORA_GPTQ_NEAREST) {
        outcome.loss = std::numeric_limits<double>::quiet_NaN();
        round_rows(run);
    }
    if (args.outcome.handle) std::memcpy(address<void>(args.outcome), &outcome, sizeof outcome);
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
