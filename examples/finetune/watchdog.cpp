#include "watchdog.h"

#include <cmath>

namespace finetune {
namespace {

const double keep = 0.95; // of the moving average, a step
const uint64_t settled = 20; // steps before an average counts

Json number(const std::optional<double> &value) { return value ? Json(*value) : Json(); }

std::optional<double> number(const Json &notes, const char *key) {
    const auto found = notes.find(key);
    if (found == notes.end() || !found->is_number()) return {};
    return found->get<double>();
}

} // namespace

std::optional<double> Watchdog::average() const {
    if (share_ == 0) return {};
    return sum_ / share_;
}

std::optional<std::string> Watchdog::observe(const StepReport &report) {
    std::ostringstream problem;
    problem << "step " << report.step + 1 << ": ";
    if (!report.is_finite()) {
        // While a loss scale can still fall it is to blame, and only that.
        if (std::isfinite(report.loss) && report.loss_scale > LossScale::least) return {};
        if (++bad_ < options_.bad_steps) return {};
        problem << "the loss or its gradient was no finite number for " << bad_
                << " steps in a row; lower --learning-rate or --clip, or compute with --compute f32 --activations f32";
        return problem.str();
    }
    bad_ = 0;
    ++steps_;
    sum_ = keep * sum_ + (1 - keep) * report.loss;
    share_ = keep * share_ + (1 - keep);
    if (steps_ < settled) return {};
    const double now = *average();
    if (!best_average_ || now < *best_average_) {
        best_average_ = now;
        best_average_step_ = report.step + 1;
    }
    if (options_.divergence == 0 || now <= options_.divergence * *best_average_ || now <= *best_average_ + 1) return {};
    problem << "the loss ran away: its average is " << now << ", and was " << *best_average_ << " at step "
            << best_average_step_ << "; lower --learning-rate or --clip, or raise --warmup (--divergence 0 goes on)";
    return problem.str();
}

Watchdog::Verdict Watchdog::validated(uint64_t step, double loss) {
    rises_ = last_validation_ && loss > *last_validation_ ? rises_ + 1 : 0;
    last_validation_ = loss;
    if (!best_validation_ || std::isnan(*best_validation_) || loss < *best_validation_) {
        best_validation_ = loss;
        best_step_ = step;
        without_best_ = 0;
        warned_ = false;
        return Verdict::best;
    }
    ++without_best_;
    if (options_.early_stop > 0 && without_best_ >= options_.early_stop) return Verdict::stop;
    if (warned_ || rises_ < options_.rises) return Verdict::fine;
    warned_ = true;
    return Verdict::overfit;
}

Json Watchdog::save() const {
    return {{"bad", bad_},
            {"steps", steps_},
            {"sum", sum_},
            {"share", share_},
            {"best_average", number(best_average_)},
            {"best_average_step", best_average_step_},
            {"best_validation", number(best_validation_)},
            {"best_step", best_step_},
            {"last_validation", number(last_validation_)},
            {"rises", rises_},
            {"without_best", without_best_},
            {"warned", warned_}};
}

void Watchdog::load(const Json &notes) {
    if (!notes.is_object()) return;
    bad_ = notes.value("bad", 0u);
    steps_ = notes.value("steps", uint64_t(0));
    sum_ = notes.value("sum", 0.0);
    share_ = notes.value("share", 0.0);
    best_average_ = number(notes, "best_average");
    best_average_step_ = notes.value("best_average_step", uint64_t(0));
    best_validation_ = number(notes, "best_validation");
    best_step_ = notes.value("best_step", uint64_t(0));
    last_validation_ = number(notes, "last_validation");
    rises_ = notes.value("rises", 0u);
    without_best_ = notes.value("without_best", 0u);
    warned_ = notes.value("warned", false);
}

} // namespace finetune
