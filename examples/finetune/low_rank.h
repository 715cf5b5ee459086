// The best approximation of a product B A by one of smaller rank, through factors of the size of its rank.
#pragma once

#include <cstdint>
#include <vector>

namespace finetune {

// B[rows][rank] A[rank][cols], row-major, in double.
struct LowRank {
    uint64_t rows, cols, rank;
    std::vector<double> b, a;
};

// The singular values of the product, falling, and the nearest product of `rank` (Eckart, Young 1936), its factors of
// equal norm. Orthogonal factors of B and A^T by Householder's reflections, the core's singular values by one-sided
// Jacobi rotations.
LowRank nearest_of_rank(const LowRank &product, uint64_t rank, std::vector<double> *singular_values);

} // namespace finetune
