// Learning rate as a pure function of the step, the library's: linear warm-up from nearly zero, then constant, linear or half a
// cosine down to zero after the last step.
#pragma once

#include "cpp/qlora.hpp"

namespace finetune {

enum class Schedule : int32_t { constant = QLORA_SCHEDULE_CONSTANT, linear = QLORA_SCHEDULE_LINEAR, cosine = QLORA_SCHEDULE_COSINE };

// The factor on the peak rate for step 0 .. steps - 1. The first `warmup` steps rise: step s gives (s + 1) / warmup.
inline double schedule_factor(Schedule kind, uint64_t step, uint64_t warmup, uint64_t steps) {
    auto schedule = qlora::make<qlora_schedule>();
    schedule.kind = int32_t(kind);
    schedule.warmup = warmup;
    schedule.steps = steps;
    schedule.learning_rate = 1;
    return qlora::schedule_rate(schedule, step + 1); // the library counts from 1
}

} // namespace finetune
