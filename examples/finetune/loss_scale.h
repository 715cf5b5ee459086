// Dynamic loss scaling for f16 (1710.03740): the loss is multiplied by a power of two so that small gradients do not vanish in
// the type, and the optimizer divides by it. An overflow halves it, a run of steps without one doubles it.
#pragma once

#include <algorithm>
#include <cstdint>

namespace finetune {

struct LossScale {
    static constexpr float least = 1, most = 16777216;
    static constexpr uint64_t growth_steps = 500;

    float value = 65536;
    uint64_t steps = 0; // finite ones since it last changed

    void update(bool finite) {
        if (!finite) {
            value = std::max(least, value / 2);
            steps = 0;
        } else if (++steps == growth_steps) {
            value = std::min(most, value * 2);
            steps = 0;
        }
    }
};

} // namespace finetune
