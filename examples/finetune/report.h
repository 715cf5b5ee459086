// What a run says: the plan, one progress line, samples, and the metrics file.
#pragma once

#include "json.h"
#include "train.h"

#include <chrono>
#include <optional>
#include <string>
#include <vector>

namespace finetune {

// "1.5 MiB"
std::string readable_bytes(uint64_t bytes);
// "2.8 M"
std::string readable_count(uint64_t count);

// "1:02:03", "4:05"
std::string readable_time(double seconds);
std::string four_digits(double value); // behind the point

// One line, which redraws itself on a terminal; elsewhere a plain one about fifty times a run, and after half a minute.
class Progress {
public:
    Progress(uint64_t steps, uint64_t memory_bytes, uint64_t memory_limit); // limit 0: not known
    void begin(uint64_t step); // the clock, from the steps that are done already
    void show(const StepReport &report, double average);
    void say(const std::string &text); // a line of its own

private:
    uint64_t steps_, every_, first_ = 0;
    std::string memory_;
    bool terminal_, drawn_ = false;
    std::chrono::steady_clock::time_point start_, last_;
};

// Text of a sample on one line.
std::string one_line(const std::string &text);

struct Metrics {
    std::string device, quant;
    std::optional<double> eval_before, eval_after, perplexity, match_before, match_after;
    std::vector<StepReport> train;
    std::vector<std::string> norm_names;
    std::vector<float> norms_step0;
    double train_seconds = 0;

    // Keys as in the reference runs: eval_before, eval_after, train [[loss, norm], ...], grad_norms_step0, perplexity.
    void save(const std::string &path) const;
};

} // namespace finetune
