// What every backend's dropout shares.
#pragma once
#include "qlora.h"

namespace qlora {

struct DropoutRule {
    uint32_t seed_low, seed_high;
    uint32_t threshold; // random words below it drop
    float factor;       // of what stays
};

inline DropoutRule dropout_rule(const qlora_dropout_args &args) {
    return {uint32_t(args.seed), uint32_t(args.seed >> 32), uint32_t(double(args.probability) * 4294967296.0), float(1 / (1 - double(args.probability)))};
}

} // namespace qlora
