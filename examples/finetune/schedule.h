// Learning rate as a pure function of the step: linear warm-up from nearly zero, then constant, linear or half a cosine
// down to zero after the last step.
#pragma once

#include <cmath>
#include <cstdint>

namespace finetune {

enum class Schedule { constant, linear, cosine };

// The factor on the peak rate for step 0 .. steps - 1. The first `warmup` steps rise: step s gives (s + 1) / warmup.
inline double schedule_factor(Schedule schedule, uint64_t step, uint64_t warmup, uint64_t steps) {
    if (step < warmup) return double(step + 1) / double(warmup);
    if (schedule == Schedule::constant || steps <= warmup) return 1;
    const double done = double(step - warmup) / double(steps - warmup);
    if (done >= 1) return 0;
    if (schedule == Schedule::linear) return 1 - done;
    return 0.5 * (1 + std::cos(3.14159265358979323846 * done));
}

} // namespace finetune
