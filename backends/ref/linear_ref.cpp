// xa = x A^T, y = x W^T + bias + scale * xa B^T, and the gradients.
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

uint64_t linear_scratch(Context &, const qlora_linear_args &) { return 0; }
uint64_t linear_grad_scratch(Context &, const qlora_linear_grad_args &) { return 0; }

namespace {

// Rounds a finished f32 quantity to the compute type, as the operand of a second product.
void round_grid(Grid &grid, int32_t compute_type) {
    for (uint64_t i = 0; i < grid.rows * grid.cols; i++) grid.data[i] = round_to(compute_type, float(grid.data[i]));
}

// grid = transpose of other
void transpose(Grid &grid, Grid &other) {
    for (uint64_t r = 0; r < other.rows; r++)
        for (uint64_t c = 0; c < other.cols; c++) grid[c][r] = other[r][c];
}

void put_grid(const qlora_tensor &tensor, Grid &grid, double factor, bool accumulate) {
    for (uint64_t r = 0; r < tensor.rows; r++)
        for (uint64_t c = 0; c < tensor.cols; c++) put(tensor, r, c, factor * grid[r][c], accumulate);
}

} // namespace

int32_t linear(Context &context, const qlora_linear_args &args) {
    const uint64_t tokens = args.x.rows, rank = args.a.rows, rows = args.weight->rows, cols = args.weight->cols;
    const int32_t compute = args.compute_type;
    Grid x(context, tokens, cols), w(context, cols, rows), y(context, tokens, rows), a(context, cols, rank), b(context, rank, rows),
        xa(context, tokens, rank), low(context, tokens, rows);
    for (Grid *grid : {&x, &w, &y, &a, &b, &xa, &low}) QLORA_TRY(grid->status());
    fill(x, args.x, compute);
    fill(w, *args.weight, compute, true);
    multiply(x, w, y);
    if (args.a.type) {
        fill(a, args.a, compute, true);
        fill(b, args.b, compute, true);
        multiply(x, a, xa);
        for (uint64_t i = 0; i < tokens * rank; i++) address<float>(args.xa)[i] = float(xa.data[i]);
        round_grid(xa, compute);
        multiply(xa, b, low);
    }
    for (uint64_t m = 0; m < tokens; m++)
        for (uint64_t r = 0; r < rows; r++) {
            const double bias = args.bias.handle ? address<const float>(args.bias)[r] : 0;
            put(args.y, m, r, y[m][r] + bias + double(args.scale) * low[m][r], args.flags & QLORA_FLAG_ACCUMULATE);
        }
    return QLORA_OK;
}

int32_t linear_grad(Context &context, const qlora_linear_grad_args &args) {
    const uint64_t tokens = args.dy.rows, rank = args.a.rows, rows = args.weight->rows, cols = args.weight->cols;
    const int32_t compute = args.compute_type;
    const bool accumulate = args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS;
    Grid dy(context, tokens, rows), b(context, rows, rank), dxa(context, tokens, rank);
    for (Grid *grid : {&dy, &b, &dxa}) QLORA_TRY(grid->status());
    fill(dy, args.dy, compute);
    if (args.a.type) {
        fill(b, args.b, compute);
        multiply(dy, b, dxa);
        for (uint64_t i = 0; i < tokens * rank; i++) dxa.data[i] = float(double(args.scale) * dxa.data[i]);
        round_grid(dxa, compute);
    }
    if (args.dx.type) {
        Grid dx(context, tokens, cols), w(context, rows, cols), a(context, rank, cols);
        for (Grid *grid : {&dx, &w, &a}) QLORA_TRY(grid->status());
        fill(w, *args.weight, compute, false);
        multiply(dy, w, dx);
        if (args.a.type) {
            fill(a, args.a, compute);
            multiply(dxa, a, dx);
        }
        put_grid(args.dx, dx, 1, args.flags & QLORA_FLAG_ACCUMULATE);
    }
    if (args.da.type) {
        Grid x(context, tokens, cols), turned(context, rank, tokens), da(context, rank, cols);
        for (Grid *grid : {&x, &turned, &da}) QLORA_TRY(grid->status());
        fill(x, args.x, compute);
        transpose(turned, dxa);
        multiply(turned, x, da);
        put_grid(args.da, da, 1, accumulate);
    }
    if (args.db.type) {
        Grid xa(context, tokens, rank), turned(context, rows, tokens), db(context, rows, rank);
        for (Grid *grid : {&xa, &turned, &db}) QLORA_TRY(grid->status());
        if (args.xa.handle) {
            for (uint64_t i = 0; i < tokens * rank; i++) xa.data[i] = address<const float>(args.xa)[i];
        } else {
            Grid x(context, tokens, cols), a(context, cols, rank);
            for (Grid *grid : {&x, &a}) QLORA_TRY(grid->status());
            fill(x, args.x, compute);
            fill(a, args.a, compute, true);
            multiply(x, a, xa);
        }
        round_grid(xa, compute);
        transpose(turned, dy);
        multiply(turned, xa, db);
        put_grid(args.db, db, args.scale, accumulate);
    }
    if (args.dbias.handle)
        for (uint64_t r = 0; r < rows; r++) {
            double sum = accumulate ? address<const float>(args.dbias)[r] : 0;
            for (uint64_t m = 0; m < tokens; m++) sum += get(args.dy, m, r);
            address<float>(args.dbias)[r] = float(sum);
        }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
