// Facts of the optimizers that the front door and every backend share: states, sizes, defaults, coefficients.
#pragma once
#include "backends/backend.h"

#include <cmath>

namespace qlora {

constexpr uint64_t state_block = 256;     // elements that share an absmax of 8-bit state
constexpr uint64_t state_granule = 4096;  // elements whose squares are summed first, in every backend; pages split tensors at its multiples
constexpr uint32_t percentile_slots = 100;

// Number of states, 0 for what is no algorithm.
constexpr uint32_t state_count(int32_t algorithm) {
    switch (algorithm) {
    case QLORA_OPTIMIZER_ADAMW:
    case QLORA_OPTIMIZER_ADAM:
    case QLORA_OPTIMIZER_STABLE_ADAMW:
    case QLORA_OPTIMIZER_LAMB: return 2;
    case QLORA_OPTIMIZER_LION:
    case QLORA_OPTIMIZER_MOMENTUM:
    case QLORA_OPTIMIZER_RMSPROP:
    case QLORA_OPTIMIZER_ADAGRAD:
    case QLORA_OPTIMIZER_LARS: return 1;
    case QLORA_OPTIMIZER_ADEMAMIX: return 3;
    }
    return 0;
}

// Bytes of piece QLORA_STATE_* for count elements.
inline uint64_t state_piece_bytes(int32_t algorithm, int32_t state_type, uint64_t count, int piece) {
    const bool small = state_type == QLORA_FORMAT_DYN8;
    if (uint32_t(piece % 3) >= state_count(algorithm)) return 0;
    if (piece < QLORA_STATE_ABSMAX1) return small ? count : count * 4;
    return small ? (count + state_block - 1) / state_block * 4 : 0;
}
// A page that a granule of a tensor fits into.
inline uint64_t least_page_bytes(int32_t algorithm, int32_t state_type, uint64_t count) {
    uint64_t bytes = 0;
    for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) bytes += align_scratch(state_piece_bytes(algorithm, state_type, count < state_granule ? count : state_granule, piece));
    return bytes;
}
// The span of a parameter that holds piece QLORA_STATE_*.
inline qlora_span &state_span(qlora_parameter &parameter, int piece) {
    qlora_span *const spans[QLORA_STATE_COUNT] = {&parameter.state1, &parameter.state2, &parameter.state3, &parameter.absmax1, &parameter.absmax2, &parameter.absmax3};
    return *spans[piece];
}

// Whether a step needs sums over whole tensors of parameters and updates before it can move anything.
inline bool needs_factor(const qlora_optimizer_args &args) {
    return args.algorithm == QLORA_OPTIMIZER_STABLE_ADAMW || args.algorithm == QLORA_OPTIMIZER_LAMB || args.algorithm == QLORA_OPTIMIZER_LARS || args.max_unorm > 0;
}
// Whether decay goes into the gradient.
constexpr bool decays_gradient(int32_t algorithm) {
    return algorithm == QLORA_OPTIMIZER_ADAM || algorithm == QLORA_OPTIMIZER_MOMENTUM || algorithm == QLORA_OPTIMIZER_RMSPROP || algorithm == QLORA_OPTIMIZER_ADAGRAD;
}

// Part of a parameter that one pass of a step works on: elements first.. of parameter index of the list; its spans begin there.
struct Piece {
    qlora_parameter parameter;
    uint64_t first;
    uint32_t index, reserved;
};

// What a step multiplies by, the same for every tensor, computed in double and rounded once.
struct Coefficients {
    float beta1, rest1, beta2, rest2, beta3, rest3; // rest = 1 - beta; of StableAdamW with bias correction folded in
    float correction1, correction2;                 // 1 - beta1^t and sqrt(1 - beta2^t); 1 where there is no bias correction
    float alpha, epsilon, max_unorm;
};
inline Coefficients coefficients_of(const qlora_optimizer_args &args) {
    double beta1 = args.beta1, beta2 = args.beta2, correction1 = 1, correction2 = 1;
    const double steps = double(args.step);
    switch (args.algorithm) {
    case QLORA_OPTIMIZER_ADAMW:
    case QLORA_OPTIMIZER_ADAM:
    case QLORA_OPTIMIZER_LAMB:
    case QLORA_OPTIMIZER_ADEMAMIX:
        correction1 = 1 - std::pow(beta1, steps);
        correction2 = std::sqrt(1 - std::pow(beta2, steps));
        break;
    case QLORA_OPTIMIZER_STABLE_ADAMW:
        beta1 *= (1 - std::pow(beta1, steps - 1)) / (1 - std::pow(beta1, steps));
        beta2 *= (1 - std::pow(beta2, steps - 1)) / (1 - std::pow(beta2, steps));
        break;
    }
    return {float(beta1), float(1 - beta1), float(beta2), float(1 - beta2), args.beta3, float(1 - double(args.beta3)), float(correction1), float(correction2), args.alpha, args.epsilon, args.max_unorm};
}

// Of backends that know AdamW over plain f32 tensors alone: whether a call is that. They answer ERROR_UNSUPPORTED to others.
inline bool plain_adamw(const qlora_optimizer_args &args) {
    if (args.algorithm != QLORA_OPTIMIZER_ADAMW || args.flags || args.max_unorm > 0 || args.percentile || args.skipped.handle || args.factors.handle) return false;
    for (uint32_t i = 0; i < args.parameter_count; i++) {
        const qlora_parameter &parameter = args.parameters[i];
        if (parameter.flags || parameter.value_type != QLORA_FORMAT_F32 || parameter.gradient_type != QLORA_FORMAT_F32 || parameter.state_type != QLORA_FORMAT_F32) return false;
    }
    return true;
}
inline bool plain_gradients(const qlora_gradient_norm_args &args) {
    for (uint32_t i = 0; i < args.parameter_count; i++)
        if (args.parameters[i].gradient_type != QLORA_FORMAT_F32) return false;
    return true;
}

} // namespace qlora
