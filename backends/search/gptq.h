// What every implementation of quantize_gptq decides alike: the order of columns, and what is tried when a Hessian has no
// Cholesky factor.
#pragma once
#include "qlora.h"

#include <algorithm>
#include <cstdint>
#include <limits>

namespace qlora {
namespace search {

// Columns by falling diagonal (diagonal has a stride); equal ones keep their order.
inline void order_columns(const double *diagonal, uint64_t stride, uint64_t cols, uint32_t *order) {
    for (uint64_t i = 0; i < cols; i++) order[i] = uint32_t(i);
    std::sort(order, order + cols, [=](uint32_t a, uint32_t b) {
        const double x = diagonal[a * stride], y = diagonal[b * stride];
        return x > y || (x == y && a < b);
    });
}

// The attempts at a factor, one after another: damping as asked, more of it below 1, then a floor under the diagonal.
struct DampingLadder {
    double asked, mean, largest; // damping asked for; mean and largest element of the diagonal
    double damping = 0, floor = 0;
    uint32_t attempts = 0, floors = 0;
    DampingLadder(double asked, double mean, double largest) : asked(asked), mean(mean), largest(largest) {}

    // The next attempt; false when there is none left.
    bool next() {
        if (attempts == 0) damping = asked;
        else if (floors == 0 && damping + 0.01 < 1) damping += 0.01;
        else {
            if (floors == 6 || !(largest > 0)) return false;
            static constexpr double parts[6] = {1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1};
            damping = asked;
            floor = largest * parts[floors++];
        }
        attempts++;
        return true;
    }
    double diagonal(double value) const { return (value < floor ? floor : value) + damping * mean; }
    uint32_t method() const { return floors ? QLORA_GPTQ_FLOORED : attempts > 1 ? QLORA_GPTQ_DAMPED : QLORA_GPTQ_DONE; }

    // Tells an outcome how it went, given its loss. False if there was no factor (loss is NaN) or the loss overflowed: then columns
    // are to be rounded to nearest, and loss is NaN.
    template <class Outcome> bool report(Outcome &outcome) const {
        outcome.attempts = attempts;
        outcome.damping = damping;
        outcome.floor = floor;
        const bool done = outcome.loss - outcome.loss == 0;
        outcome.method = done ? method() : QLORA_GPTQ_NEAREST;
        if (!done) outcome.loss = std::numeric_limits<double>::quiet_NaN();
        return done;
    }
};

} // namespace search
} // namespace qlora
