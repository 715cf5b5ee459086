#include "low_rank.h"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace finetune {
namespace {

// Column-major, so that columns are contiguous.
struct Matrix {
    uint64_t rows, cols;
    std::vector<double> values;
    Matrix(uint64_t rows, uint64_t cols) : rows(rows), cols(cols), values(rows * cols, 0.0) {}
    double *col(uint64_t j) { return &values[j * rows]; }
    const double *col(uint64_t j) const { return &values[j * rows]; }
    double &at(uint64_t i, uint64_t j) { return values[j * rows + i]; }
    double at(uint64_t i, uint64_t j) const { return values[j * rows + i]; }
};

double dot(const double *x, const double *y, uint64_t count) { return std::inner_product(x, x + count, y, 0.0); }

// x -= factor * v
void subtract(double *x, const double *v, double factor, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) x[i] -= factor * v[i];
}

// m = q r, with q of min(rows, cols) orthonormal columns, whatever the rank of m is.
void factor(Matrix m, Matrix *q, Matrix *r) {
    const uint64_t steps = std::min(m.rows, m.cols);
    std::vector<double> norms(steps); // squared, of the reflections' vectors, which take the place of the columns
    *r = Matrix(steps, m.cols);
    for (uint64_t k = 0; k < steps; ++k) {
        double *v = m.col(k) + k;
        const uint64_t count = m.rows - k;
        const double length = std::sqrt(dot(v, v, count));
        r->at(k, k) = v[0] > 0 ? -length : length;
        v[0] -= r->at(k, k);
        norms[k] = dot(v, v, count);
        for (uint64_t j = k + 1; j < m.cols; ++j) {
            double *x = m.col(j) + k;
            if (norms[k] > 0) subtract(x, v, 2 * dot(v, x, count) / norms[k], count);
            r->at(k, j) = x[0];
        }
    }
    *q = Matrix(m.rows, steps);
    for (uint64_t j = 0; j < steps; ++j) {
        q->at(j, j) = 1;
        for (uint64_t k = steps; k-- > 0;) {
            double *x = q->col(j) + k;
            const double *v = m.col(k) + k;
            if (norms[k] > 0) subtract(x, v, 2 * dot(v, x, m.rows - k) / norms[k], m.rows - k);
        }
    }
}

Matrix product(const Matrix &x, const Matrix &y) {
    Matrix out(x.rows, y.cols);
    for (uint64_t j = 0; j < y.cols; ++j)
        for (uint64_t k = 0; k < x.cols; ++k) subtract(out.col(j), x.col(k), -y.at(k, j), x.rows);
    return out;
}

// Rotates columns of m in pairs until all are orthogonal: m becomes U S, and v what turns m into that.
void orthogonalize(Matrix &m, Matrix &v) {
    const int most_sweeps = 60;
    for (int sweep = 0; sweep < most_sweeps; ++sweep) {
        bool rotated = false;
        for (uint64_t i = 0; i + 1 < m.cols; ++i)
            for (uint64_t j = i + 1; j < m.cols; ++j) {
                const double a = dot(m.col(i), m.col(i), m.rows), b = dot(m.col(j), m.col(j), m.rows),
                             c = dot(m.col(i), m.col(j), m.rows);
                if (std::abs(c) <= 1e-15 * std::sqrt(a * b) || c == 0) continue;
                rotated = true;
                const double zeta = (b - a) / (2 * c);
                const double t = (zeta >= 0 ? 1 : -1) / (std::abs(zeta) + std::hypot(1, zeta));
                const double cosine = 1 / std::hypot(1, t), sine = t * cosine;
                for (Matrix *turned : {&m, &v})
                    for (uint64_t row = 0; row < turned->rows; ++row) {
                        const double x = turned->at(row, i), y = turned->at(row, j);
                        turned->at(row, i) = cosine * x - sine * y;
                        turned->at(row, j) = sine * x + cosine * y;
                    }
            }
        if (!rotated) return;
    }
}

} // namespace

LowRank nearest_of_rank(const LowRank &given, uint64_t rank, std::vector<double> *singular_values) {
    Matrix b(given.rows, given.rank), at(given.cols, given.rank);
    for (uint64_t k = 0; k < given.rank; ++k) {
        for (uint64_t i = 0; i < given.rows; ++i) b.at(i, k) = given.b[i * given.rank + k];
        for (uint64_t i = 0; i < given.cols; ++i) at.at(i, k) = given.a[k * given.cols + i];
    }
    Matrix qb(0, 0), rb(0, 0), qa(0, 0), ra(0, 0);
    factor(std::move(b), &qb, &rb);
    factor(std::move(at), &qa, &ra);
    Matrix transposed(ra.cols, ra.rows);
    for (uint64_t i = 0; i < ra.rows; ++i)
        for (uint64_t j = 0; j < ra.cols; ++j) transposed.at(j, i) = ra.at(i, j);
    Matrix core = product(rb, transposed); // B A = qb core qa^T
    Matrix turn(core.cols, core.cols);
    for (uint64_t i = 0; i < turn.rows; ++i) turn.at(i, i) = 1;
    orthogonalize(core, turn);

    std::vector<double> lengths;
    std::vector<uint64_t> order(core.cols);
    for (uint64_t j = 0; j < core.cols; ++j) lengths.push_back(std::sqrt(dot(core.col(j), core.col(j), core.rows)));
    std::iota(order.begin(), order.end(), uint64_t(0));
    std::stable_sort(order.begin(), order.end(), [&](uint64_t i, uint64_t j) { return lengths[i] > lengths[j]; });
    singular_values->clear();
    for (uint64_t j : order) singular_values->push_back(lengths[j]);

    const uint64_t kept = std::min<uint64_t>(rank, core.cols);
    Matrix left(core.rows, kept), right(core.cols, kept);
    for (uint64_t k = 0; k < kept; ++k) {
        const double length = lengths[order[k]];
        if (length == 0) continue;
        subtract(left.col(k), core.col(order[k]), -1 / std::sqrt(length), core.rows);
        subtract(right.col(k), turn.col(order[k]), -std::sqrt(length), core.cols);
    }
    left = product(qb, left);
    right = product(qa, right);
    LowRank out = {given.rows, given.cols, rank, std::vector<double>(given.rows * rank, 0.0), std::vector<double>(rank * given.cols, 0.0)};
    for (uint64_t k = 0; k < kept; ++k) {
        for (uint64_t i = 0; i < given.rows; ++i) out.b[i * rank + k] = left.at(i, k);
        for (uint64_t i = 0; i < given.cols; ++i) out.a[k * given.cols + i] = right.at(i, k);
    }
    return out;
}

} // namespace finetune
