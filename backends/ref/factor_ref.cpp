#include "backends/ref/factor_ref.h"

#include <cmath>
#include <limits>

namespace qlora {
namespace ref {

int32_t Factor::status() const {
    for (const Grid *grid : {&h, &u, &line, &order_room, &dead_room}) QLORA_TRY(grid->status());
    return QLORA_OK;
}

int32_t Factor::load(const qlora_span &hessian, bool wide) {
    for (uint64_t i = 0; i < cols * cols; i++) {
        const double value = wide ? address<const double>(hessian)[i] : double(address<const float>(hessian)[i]);
        if (!(value - value == 0))
            return context.fail(QLORA_ERROR_VALUE, "%s: hessian element %llu (row %llu, column %llu) is NaN or infinite; the inputs held one, or it was never written", entry,
                                (unsigned long long)i, (unsigned long long)(i / cols), (unsigned long long)(i % cols));
        h.data[i] = value;
    }
    for (uint64_t i = 0; i < cols; i++) order[i] = uint32_t(i);
    return QLORA_OK;
}

uint32_t Factor::cut_dead_columns() {
    uint32_t count = 0;
    for (uint64_t j = 0; j < cols; j++) {
        if (h[j][j] != 0) continue;
        for (uint64_t i = 0; i < cols; i++) h[i][j] = h[j][i] = 0;
        dead[j] = 1;
        count++;
    }
    for (uint64_t j = 0; j < cols; j++)
        if (dead[j]) h[j][j] = 1;
    return count;
}

double Factor::diagonal_mean() const {
    double mean = 0;
    for (uint64_t i = 0; i < cols; i++) mean += h.data[i * cols + i] / double(cols);
    return mean;
}
double Factor::diagonal_largest() const {
    double largest = 0;
    for (uint64_t i = 0; i < cols; i++) largest = std::fmax(largest, std::fabs(h.data[i * cols + i]));
    return largest;
}

// False where a pivot is not positive.
bool Factor::attempt(const search::DampingLadder &ladder) {
    const uint64_t n = cols;
    for (uint64_t i = 0; i < n; i++)
        for (uint64_t j = i; j < n; j++) {
            const uint64_t a = order[i], b = order[j];
            u[i][j] = a == b ? ladder.diagonal(h[a][a]) : a < b ? h[a][b] : h[b][a];
        }
    for (uint64_t j = n; j-- > 0;) { // R, from the last column
        for (uint64_t i = 0; i <= j; i++) {
            double sum = u[i][j];
            for (uint64_t k = n; k-- > j + 1;) sum -= u[i][k] * u[j][k];
            u[i][j] = sum;
        }
        if (!(u[j][j] > 0) || !(u[j][j] < std::numeric_limits<double>::infinity())) return false;
        const double pivot = std::sqrt(u[j][j]);
        u[j][j] = pivot;
        for (uint64_t i = 0; i < j; i++) u[i][j] /= pivot;
    }
    for (uint64_t i = n; i-- > 0;) { // its inverse, from the last row
        double *row = line[0];
        for (uint64_t j = i + 1; j < n; j++) row[j] = 0;
        for (uint64_t k = n; k-- > i + 1;)
            for (uint64_t j = k; j < n; j++) row[j] -= u[i][k] * u[k][j];
        u[i][i] = 1 / u[i][i];
        for (uint64_t j = i + 1; j < n; j++) u[i][j] = row[j] * u[i][i];
    }
    return true;
}

bool Factor::find(search::DampingLadder &ladder) {
    while (ladder.next())
        if (attempt(ladder)) return true;
    return false;
}

} // namespace ref
} // namespace qlora
