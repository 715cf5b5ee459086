// How rotary positions are stretched for texts longer than those that a model began with.
#pragma once

#include "base_model.h"

namespace finetune {

struct RopeScaling {
    std::string type = "default"; // "linear", "llama3", "yarn", "longrope"; "dynamic" stretches beyond the context only
    double factor = 1;
    double original = 0;                 // length of texts before
    double low = 1, high = 4;            // llama3: waves in that length, below which all is stretched, above which nothing
    double beta_fast = 32, beta_slow = 1; // yarn: likewise, high and low
    bool whole = true;                   // yarn: the border between is at whole pairs
    double magnitude = 0;                // 0: what follows from the factor
    std::vector<float> short_factors, long_factors; // longrope
};

// Fills in all but the base. dimensions: that turn, of a head.
void apply_scaling(const RopeScaling &scaling, uint32_t dimensions, Rope &rope);

// What queries and keys are multiplied with when texts become `factor` times as long.
double yarn_magnitude(double factor, double weight);
double longrope_magnitude(double factor, double original);

} // namespace finetune
