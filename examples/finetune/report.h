// What a run says: the plan, one progress line, samples, and the metrics file.
#pragma once

#include "json.h"
#include "train.h"

#include <optional>
#include <string>
#include <vector>

namespace finetune {

// "1.5 MiB"
std::string readable_bytes(uint64_t bytes);
// "2.8 M"
std::string readable_count(uint64_t count);

// Overwrites itself on a terminal; elsewhere about fifty plain lines a run.
class Progress {
public:
    explicit Progress(uint64_t steps);
    void show(const StepReport &report);

private:
    uint64_t steps_, every_;
    bool terminal_;
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
