#include "backends/cpu/factor_cpu.h"

#include <cmath>
#include <limits>

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t step = 64;   // columns of R, rows of U at a time
constexpr uint64_t chunk = 256; // rows or columns of a task there

// Pieces of memory.
struct Pieces {
    uint64_t strip, order, dead, diagonal, bytes;
    explicit Pieces(uint64_t cols) {
        strip = align_scratch(cols * cols * 8);
        order = strip + align_scratch(step * cols * 8);
        dead = order + align_scratch(cols * 4);
        diagonal = dead + align_scratch(cols);
        bytes = diagonal + align_scratch(cols * 8);
    }
};

} // namespace

Factor::Factor(Context &context, const qlora_span &hessian, bool wide, uint64_t cols, char *memory)
    : context(context), kernels(kernels_of(context)), cols(cols), u(reinterpret_cast<double *>(memory)), strip(reinterpret_cast<double *>(memory + Pieces(cols).strip)),
      diagonal(reinterpret_cast<double *>(memory + Pieces(cols).diagonal)), order(reinterpret_cast<uint32_t *>(memory + Pieces(cols).order)),
      dead(reinterpret_cast<uint8_t *>(memory + Pieces(cols).dead)), hessian_(address<const void>(hessian)), wide_(wide) {}

uint64_t Factor::bytes(uint64_t cols) { return Pieces(cols).bytes; }

int32_t Factor::refuse_not_finite(const char *entry) const {
    FirstBad bad(cols * cols);
    parallel(context, cols, [&](uint64_t r, uint32_t) {
        uint64_t c = 0;
        while (c < cols && hessian(r, c) - hessian(r, c) == 0) c++;
        bad.found(c, cols, r * cols);
    });
    const uint64_t i = bad.index.load();
    if (i == bad.none) return QLORA_OK;
    return context.fail(QLORA_ERROR_VALUE, "%s: hessian element %llu (row %llu, column %llu) is NaN or infinite; the inputs held one, or it was never written", entry,
                        (unsigned long long)i, (unsigned long long)(i / cols), (unsigned long long)(i % cols));
}

uint32_t Factor::begin() {
    uint32_t count = 0;
    for (uint64_t i = 0; i < cols; i++) {
        order[i] = uint32_t(i);
        diagonal[i] = hessian(i, i);
        dead[i] = diagonal[i] == 0;
        if (dead[i]) diagonal[i] = 1;
        count += dead[i];
    }
    return count;
}

double Factor::mean(bool with_dead) const {
    double mean = 0;
    for (uint64_t i = 0; i < cols; i++) mean += (dead[i] && !with_dead ? 0 : diagonal[i]) / double(cols);
    return mean;
}
double Factor::largest() const {
    double largest = 0;
    for (uint64_t i = 0; i < cols; i++) largest = std::fmax(largest, std::fabs(diagonal[i]));
    return largest;
}

// u = the damped Hessian in the order of processing, zero below the diagonal.
void Factor::load(const search::DampingLadder &ladder) const {
    parallel(context, cols, [&](uint64_t i, uint32_t) {
        const uint64_t a = order[i];
        double *row = u + i * cols;
        for (uint64_t j = 0; j < i; j++) row[j] = 0;
        row[i] = ladder.diagonal(diagonal[a]);
        for (uint64_t j = i + 1; j < cols; j++) {
            const uint64_t b = order[j];
            row[j] = dead[a] || dead[b] ? 0 : a < b ? hessian(a, b) : hessian(b, a);
        }
    });
}

// Rows begin .. end of columns j0 .. j1 of R, whose own rows are done unless these are them.
bool Factor::solve_rows(uint64_t begin, uint64_t end, uint64_t j0, uint64_t j1) const {
    const uint64_t n = cols;
    for (uint64_t j = j1; j-- > j0;) {
        const double *row = u + j * n;
        for (uint64_t i = begin; i < end && i <= j; i++) {
            double *out = u + i * n, sum = out[j];
            for (uint64_t k = j1; k-- > j + 1;) sum -= out[k] * row[k];
            out[j] = sum;
        }
        if (begin == j0) {
            if (!(row[j] > 0) || !(row[j] < std::numeric_limits<double>::infinity())) return false;
            u[j * n + j] = std::sqrt(row[j]);
        }
        for (uint64_t i = begin; i < end && i < j; i++) u[i * n + j] /= row[j];
    }
    return true;
}

bool Factor::solve() const {
    const uint64_t n = cols;
    for (uint64_t steps = divide_up(n, step); steps-- > 0;) {
        const uint64_t j0 = steps * step, j1 = least(j0 + step, n);
        if (!solve_rows(j0, j1, j0, j1)) return false;
        parallel(context, divide_up(j0, step), [&](uint64_t unit, uint32_t) {
            const uint64_t begin = unit * step, end = least(begin + step, j0);
            solve_rows(begin, end, j0, j1);
            for (uint64_t i = begin; i < end; i++)
                for (uint64_t k = j0; k < j1; k++) strip[(k - j0) * n + i] = u[i * n + k]; // turned
        });
        parallel(context, divide_up(j0, step) * divide_up(j0, chunk), [&](uint64_t unit, uint32_t) {
            const uint64_t i = unit % divide_up(j0, step) * step, j = unit / divide_up(j0, step) * chunk;
            if (j + chunk <= i) return;
            kernels.subtract_product({u + i * n + j, u + i * n + j0, strip + j, n, n, n, least(step, j0 - i), least(chunk, j0 - j), j1 - j0, true});
        });
    }
    for (uint64_t i = 0; i < n; i++) // tasks cross the diagonal; what fell below it is no part of R
        for (uint64_t j = i / chunk * chunk; j < i; j++) u[i * n + j] = 0;
    return true;
}

// Columns c .. c + count of rows i0 .. i1 of the inverse, in the strip; U below is done.
void Factor::invert_cols(uint64_t i0, uint64_t i1, uint64_t c, uint64_t count) const {
    const uint64_t n = cols;
    double *piece = strip + c;
    for (uint64_t i = i0; i < i1; i++)
        for (uint64_t j = 0; j < count; j++) piece[(i - i0) * n + j] = 0;
    for (uint64_t k = divide_up(least(n, c + count), step) * step; k >= i1 + step; k -= step)
        kernels.subtract_product({piece, u + i0 * n + k - step, u + (k - step) * n + c, n, n, n, i1 - i0, count, least(k, n) - (k - step), true});
    for (uint64_t i = i1; i-- > i0;) {
        double *out = piece + (i - i0) * n;
        kernels.subtract_product({out, u + i * n + i + 1, out + n, n, n, n, 1, count, i1 - i - 1, true});
        const double inverse = 1 / u[i * n + i];
        for (uint64_t j = 0; j < count; j++) out[j] = c + j == i ? inverse : c + j < i ? 0 : out[j] * inverse;
    }
}

// u = its own inverse.
void Factor::invert() const {
    const uint64_t n = cols;
    for (uint64_t steps = divide_up(n, step); steps-- > 0;) {
        const uint64_t i0 = steps * step, i1 = least(i0 + step, n), units = divide_up(n - i1, chunk);
        parallel(context, units + 1, [&](uint64_t unit, uint32_t) {
            if (unit == units) invert_cols(i0, i1, i0, i1 - i0);
            else invert_cols(i0, i1, i1 + unit * chunk, least(chunk, n - i1 - unit * chunk));
        });
        parallel(context, i1 - i0, [&](uint64_t i, uint32_t) { std::memcpy(u + (i0 + i) * n + i0, strip + i * n + i0, (n - i0) * 8); });
    }
}

bool Factor::find(search::DampingLadder &ladder) const {
    while (ladder.next()) {
        load(ladder);
        if (!solve()) continue;
        invert();
        return true;
    }
    return false;
}

} // namespace cpu
} // namespace qlora
