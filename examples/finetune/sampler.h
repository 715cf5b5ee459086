// The next token from logits: the likeliest, or drawn from those that are likely enough.
#pragma once

#include "rng.h"

#include <string>
#include <vector>

namespace finetune {

struct SamplingOptions {
    double temperature = 0;        // 0: the likeliest
    uint32_t top_k = 40;           // of the likeliest tokens; 0: all
    double top_p = 0.95;           // the fewest that together have this probability; 1: all
    double min_p = 0.05;           // and this share of the likeliest one's; 0: all
    double repetition_penalty = 1; // divides positive logits of recent tokens and multiplies negative ones (1909.05858)
    uint32_t repetition_last = 64; // how many tokens are recent
    uint64_t seed = 1;
};

class Sampler {
public:
    explicit Sampler(const SamplingOptions &options) : options_(options), random_(options.seed, 0) {}

    // `recent`: the sequence so far, for the penalty.
    int32_t choose(const std::vector<float> &logits, const std::vector<int32_t> &recent);

private:
    SamplingOptions options_;
    Random random_;
    std::vector<std::pair<float, int32_t>> candidates_;
    std::vector<float> penalized_;
};

} // namespace finetune
