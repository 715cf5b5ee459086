// The optimizers' arithmetic on the device: what one element does, in f32, every operation rounded as IEEE says. What the
// algorithms are is said at qlora_optimizer_step(); ref has the same functions in double under the same names.
#pragma once
#include "backends/cuda/tensor_list.cuh"

namespace qlora {
namespace cuda {

// The call's numbers, a kernel parameter. Null pointers: there is no such thing.
struct Rule {
    const float *norm, *norms;     // of gradients, the caller's
    const float *clips, *factors;  // by index, in scratch: percentile clipping; what multiplies the rate
    double *sums;                  // in scratch, two per granule: squares of parameters, of updates
    float max_norm, gradient_scale, rate, decay;
    float beta1, rest1, beta2, rest2, beta3, rest3, inverse1, inverse2, alpha, epsilon; // inverse = 1 / correction
    uint32_t flags, seed_low, seed_high; // seeds with the step in them
    int32_t algorithm;
    bool first_step;

    __device__ __forceinline__ bool skips_all() const { return flags & QLORA_FLAG_SKIP_STEP && !isfinite(*norm); }
    __device__ __forceinline__ bool skips(uint32_t index) const { return flags & QLORA_FLAG_SKIP_TENSORS && !isfinite(norms[index]); }
    // What makes g of every gradient; clips come on top.
    __device__ __forceinline__ float scale() const { return norm && max_norm > 0 ? gradient_scale * fminf(1.0f, max_norm / (*norm + 1e-6f)) : gradient_scale; }
};
static_assert(sizeof(Rule) + 16 <= rule_bytes, "the rest of the parameters is the list's");

// One tensor's part of it.
struct Terms {
    float scale, rate, decay, factor;
    int value_type, gradient_type;
};

// general: any flags may be set; else none of BITSANDBYTES, SKIP_ZEROS and STOCHASTIC is, and nothing is asked of them.
template <int algorithm, bool general> struct Optimizer {
    static constexpr int states = int(state_count(algorithm));
    static __device__ __forceinline__ bool theirs(const Rule &rule) { return general && rule.flags & QLORA_FLAG_BITSANDBYTES; }
    static constexpr bool into_gradient = decays_gradient(algorithm);
    static constexpr bool decoupled = algorithm == QLORA_OPTIMIZER_ADAMW || algorithm == QLORA_OPTIMIZER_STABLE_ADAMW || algorithm == QLORA_OPTIMIZER_LION || algorithm == QLORA_OPTIMIZER_ADEMAMIX;

    // g of a raw gradient; with decay where that goes into it. bitsandbytes rounds to the gradient's type if state is f32.
    template <bool small> static __device__ __forceinline__ float gradient(const Rule &rule, const Terms &terms, float raw, float p, bool with_decay) {
        const bool rounds = theirs(rule) && !small;
        float g = raw * terms.scale;
        if (rounds) g = round_to(terms.gradient_type, g);
        if (into_gradient && with_decay && terms.decay != 0) {
            g = fmaf(terms.decay, p, g);
            if (rounds) g = round_to(terms.gradient_type, g);
        }
        return g;
    }

    // Moves an element's states m, v, n on by g.
    static __device__ __forceinline__ void advance(const Rule &rule, const Terms &terms, float g, float p, float (&s)[3]) {
        switch (algorithm) {
        case QLORA_OPTIMIZER_ADEMAMIX: s[2] = fmaf(rule.beta3, s[2], rule.rest3 * g); [[fallthrough]];
        case QLORA_OPTIMIZER_ADAMW:
        case QLORA_OPTIMIZER_ADAM:
        case QLORA_OPTIMIZER_STABLE_ADAMW:
        case QLORA_OPTIMIZER_LAMB:
            s[0] = fmaf(rule.beta1, s[0], rule.rest1 * g);
            s[1] = fmaf(rule.beta2, s[1], rule.rest2 * g * g);
            break;
        case QLORA_OPTIMIZER_LION: s[0] = fmaf(rule.beta2, s[0], rule.rest2 * g); break;
        case QLORA_OPTIMIZER_MOMENTUM: s[0] = theirs(rule) && rule.first_step ? g : fmaf(rule.beta1, s[0], g); break;
        case QLORA_OPTIMIZER_RMSPROP: s[0] = fmaf(rule.beta1, s[0], rule.rest1 * g * g); break;
        case QLORA_OPTIMIZER_ADAGRAD: s[0] = fmaf(g, g, s[0]); break;
        case QLORA_OPTIMIZER_LARS: s[0] = fmaf(rule.beta1, s[0], terms.factor * fmaf(terms.decay, p, g)); break;
        }
    }

    // u of p -= rate u, from new states; LION's from the old one.
    template <bool small> static __device__ __forceinline__ float direction(const Rule &rule, const Terms &terms, float raw, float g, float p, const float (&s)[3], float old_state1) {
        switch (algorithm) {
        case QLORA_OPTIMIZER_LION: {
            const float c = fmaf(rule.beta1, old_state1, rule.rest1 * g);
            return c > 0 ? 1.0f : c < 0 ? -1.0f : c - c;
        }
        case QLORA_OPTIMIZER_MOMENTUM:
        case QLORA_OPTIMIZER_LARS: return s[0];
        case QLORA_OPTIMIZER_RMSPROP:
        case QLORA_OPTIMIZER_ADAGRAD: return (theirs(rule) && small ? raw : g) / (sqrtf(s[0]) + rule.epsilon);
        }
        float m = s[0] * rule.inverse1;
        if (algorithm == QLORA_OPTIMIZER_ADEMAMIX) m = fmaf(rule.alpha, s[2], m);
        const float u = m / fmaf(sqrtf(s[1]), rule.inverse2, rule.epsilon);
        return algorithm == QLORA_OPTIMIZER_LAMB ? fmaf(terms.decay, p, u) : u;
    }

    // The new value before its last rounding. What is taken away is small, so that p is as good as rounded once.
    template <bool small> static __device__ __forceinline__ float move(const Rule &rule, const Terms &terms, float p, float u) {
        const float scaled = algorithm == QLORA_OPTIMIZER_LARS ? terms.rate : terms.rate * terms.factor;
        const float lost = decoupled ? (algorithm == QLORA_OPTIMIZER_STABLE_ADAMW ? scaled : terms.rate) * terms.decay : 0.0f;
        if (!theirs(rule)) return decoupled ? p - fmaf(lost, p, scaled * u) : fmaf(-scaled, u, p);
        if (algorithm == QLORA_OPTIMIZER_LION) return fmaf(-(small ? round_to(terms.gradient_type, terms.rate) : terms.rate), u, round_to(terms.value_type, fmaf(-lost, p, p)));
        const float stepped = fmaf(-scaled, u, p);
        if (!decoupled || !(terms.decay > 0)) return stepped;
        const float kept = round_to(terms.value_type, stepped);
        return fmaf(-lost, kept, kept);
    }

    // What stands for u in the sum that a factor is made of.
    template <bool small> static __device__ __forceinline__ float measure(const Rule &rule, const Terms &terms, float g, float p, const float (&s)[3]) {
        if (algorithm == QLORA_OPTIMIZER_LARS) return g;
        if (algorithm == QLORA_OPTIMIZER_STABLE_ADAMW) return g / fmaxf(sqrtf(s[1]), rule.epsilon);
        return direction<small>(rule, terms, g, g, p, s, 0.0f);
    }
};

// Calls f with the algorithm as a type: integral_constant has it as value.
template <int number> struct AlgorithmNumber { static constexpr int value = number; };
template <int states, class F> int32_t with_algorithm(int32_t algorithm, F &&f) {
    switch (algorithm) {
#define QLORA_ALGORITHM(NAME)                                                                                 \
    case QLORA_OPTIMIZER_##NAME:                                                                              \
        if constexpr (state_count(QLORA_OPTIMIZER_##NAME) == states) return f(AlgorithmNumber<QLORA_OPTIMIZER_##NAME>());    \
        break;
        QLORA_ALGORITHM(ADAMW) QLORA_ALGORITHM(ADAM) QLORA_ALGORITHM(STABLE_ADAMW) QLORA_ALGORITHM(LION) QLORA_ALGORITHM(MOMENTUM)
        QLORA_ALGORITHM(RMSPROP) QLORA_ALGORITHM(ADAGRAD) QLORA_ALGORITHM(LAMB) QLORA_ALGORITHM(LARS) QLORA_ALGORITHM(ADEMAMIX)
#undef QLORA_ALGORITHM
    }
    return QLORA_ERROR_ARGUMENT;
}

// One pass over a list of tensors, enqueued: the step, or the sums that its factors need (two per granule, from first_sum on).
// Defined for f32 state in optimizer_step_f32_cuda.cu, for 8-bit state in optimizer_step_dyn8_cuda.cu.
template <bool small, int states> int32_t launch_step(Context &context, cudaStream_t stream, const TensorList<states> &list, const Rule &rule);
template <bool small, int states> int32_t launch_sums(Context &context, cudaStream_t stream, const TensorList<states> &list, const Rule &rule, uint64_t first_sum);

} // namespace cuda
} // namespace qlora
