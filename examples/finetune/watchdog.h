// What watches over a run: losses that are no numbers, losses that run away, and validations that rise while the training
// loss falls. Its memory is a few numbers, which checkpoints hold.
#pragma once

#include "json.h"
#include "train.h"

#include <optional>

namespace finetune {

struct WatchdogOptions {
    uint32_t bad_steps = 5; // so many steps in a row that are not finite end the run
    double divergence = 3;  // so many times its best average, and 1 more, is too far for the loss; 0: never
    uint32_t rises = 3;     // so many validations in a row, each above the one before, are worth a warning, one for each best
    uint32_t early_stop = 0; // validations without a new best that end the run well; 0: never
};

// Training cannot go on: the loss is no number or ran away. The program ends with exit_failed.
struct TrainingFailed : Error {
    using Error::Error;
};

class Watchdog {
public:
    explicit Watchdog(const WatchdogOptions &options) : options_(options) {}

    // Of a step. Why training cannot go on, and what to lower; or nothing.
    std::optional<std::string> observe(const StepReport &report);
    // Of a validation after `step` steps.
    enum class Verdict { fine, best, overfit, stop };
    Verdict validated(uint64_t step, double loss);

    std::optional<double> average() const; // of the loss, moving; of no step none
    // The best validation so far.
    std::optional<double> best_validation() const { return best_validation_; }
    uint64_t best_step() const { return best_step_; }

    Json save() const;
    void load(const Json &notes);

private:
    WatchdogOptions options_;
    uint32_t bad_ = 0; // in a row
    uint64_t steps_ = 0;
    double sum_ = 0, share_ = 0; // of the moving average: weighted sum and its weight
    std::optional<double> best_average_, best_validation_, last_validation_;
    uint64_t best_average_step_ = 0, best_step_ = 0;
    uint32_t rises_ = 0, without_best_ = 0;
    bool warned_ = false; // since the best
};

} // namespace finetune
