// The optimizers, element by element in double: qlora_optimizer_step() line by line.
#include "backends/ref/codebooks_ref.h"
#include "backends/pages.h"

#include <algorithm>

namespace qlora {
namespace ref {
namespace {

// One tensor's step: the call's numbers in double.
struct Rule {
    const qlora_optimizer_args &args;
    const qlora_parameter &parameter;
    bool theirs, small;         // BITSANDBYTES; 8-bit state
    double rate, decay, scale;  // of this tensor; scale makes g of a gradient
    double beta1, beta2, beta3, correction1, correction2, epsilon;
    double factor;              // on rate, or on g in LARS

    Rule(const qlora_optimizer_args &args, const qlora_parameter &parameter, double scale)
        : args(args), parameter(parameter), theirs(args.flags & QLORA_FLAG_BITSANDBYTES), small(parameter.state_type == QLORA_FORMAT_DYN8),
          rate(double(args.learning_rate) * double(parameter.learning_rate_scale)), decay(parameter.flags & QLORA_PARAMETER_NO_DECAY ? 0 : args.weight_decay), scale(scale),
          beta1(args.beta1), beta2(args.beta2), beta3(args.beta3), correction1(1 - std::pow(beta1, double(args.step))), correction2(1 - std::pow(beta2, double(args.step))),
          epsilon(args.epsilon), factor(1) {
        if (args.algorithm != QLORA_OPTIMIZER_STABLE_ADAMW) return;
        beta1 *= (1 - std::pow(beta1, double(args.step - 1))) / correction1;
        beta2 *= (1 - std::pow(beta2, double(args.step - 1))) / correction2;
        correction1 = correction2 = 1;
    }

    double rounded(int32_t type, double x) const { return round_to(type, float(x)); }
    // Where bitsandbytes rounds to the gradient's type.
    double gradient_rounded(double g) const { return theirs && !small ? rounded(parameter.gradient_type, g) : g; }
    // g of a raw gradient; with decay where that goes into it.
    double gradient(double raw, double p, bool with_decay) const {
        const double g = gradient_rounded(raw * scale);
        return with_decay && decay != 0 && decays_gradient(args.algorithm) ? gradient_rounded(g + (theirs && !small ? rounded(QLORA_FORMAT_F32, decay * p) : decay * p)) : g;
    }
    // Moves s[0..2], which are m, v, n, on by g. p is for LARS.
    void advance(double g, double p, double (&s)[3]) const {
        switch (args.algorithm) {
        case QLORA_OPTIMIZER_ADEMAMIX:
            s[2] = beta3 * s[2] + (1 - beta3) * g;
            [[fallthrough]];
        case QLORA_OPTIMIZER_ADAMW:
        case QLORA_OPTIMIZER_ADAM:
        case QLORA_OPTIMIZER_STABLE_ADAMW:
        case QLORA_OPTIMIZER_LAMB:
            s[0] = beta1 * s[0] + (1 - beta1) * g;
            s[1] = beta2 * s[1] + (1 - beta2) * g * g;
            break;
        case QLORA_OPTIMIZER_LION: s[0] = beta2 * s[0] + (1 - beta2) * g; break;
        case QLORA_OPTIMIZER_MOMENTUM: s[0] = theirs && args.step == 1 ? g : beta1 * s[0] + g; break;
        case QLORA_OPTIMIZER_RMSPROP: s[0] = beta1 * s[0] + (1 - beta1) * g * g; break;
        case QLORA_OPTIMIZER_ADAGRAD: s[0] += g * g; break;
        case QLORA_OPTIMIZER_LARS: s[0] = beta1 * s[0] + factor * (g + decay * p); break;
        }
    }
    // u of p -= lr u, from new states; LION's from the old one.
    double direction(double raw, double g, double p, const double (&s)[3], double old_state1) const {
        switch (args.algorithm) {
        case QLORA_OPTIMIZER_LION: {
            const double c = beta1 * old_state1 + (1 - beta1) * g;
            return c > 0 ? 1 : c < 0 ? -1 : c - c;
        }
        case QLORA_OPTIMIZER_MOMENTUM:
        case QLORA_OPTIMIZER_LARS: return s[0];
        case QLORA_OPTIMIZER_RMSPROP:
        case QLORA_OPTIMIZER_ADAGRAD: return (theirs && small ? raw : g) / (std::sqrt(s[0]) + epsilon);
        }
        const double m = s[0] / correction1 + (args.algorithm == QLORA_OPTIMIZER_ADEMAMIX ? args.alpha * s[2] : 0);
        return m / (std::sqrt(s[1] / correction2) + epsilon) + (args.algorithm == QLORA_OPTIMIZER_LAMB ? decay * p : 0);
    }
    // The new value before its last rounding.
    double move(double p, double u) const {
        const bool first = args.algorithm == QLORA_OPTIMIZER_ADAMW || args.algorithm == QLORA_OPTIMIZER_STABLE_ADAMW || args.algorithm == QLORA_OPTIMIZER_LION || args.algorithm == QLORA_OPTIMIZER_ADEMAMIX;
        const double scaled = args.algorithm == QLORA_OPTIMIZER_LARS ? rate : rate * factor;
        const double kept = 1 - (args.algorithm == QLORA_OPTIMIZER_STABLE_ADAMW ? scaled : rate) * (first ? decay : 0);
        if (!theirs) return p * kept - scaled * u;
        if (args.algorithm == QLORA_OPTIMIZER_LION) return rounded(parameter.value_type, p * kept) - (small ? rounded(parameter.gradient_type, rate) : rate) * u;
        const double stepped = p - scaled * u;
        return decay > 0 && first ? rounded(parameter.value_type, stepped) * kept : stepped;
    }
};

double read(const qlora_span &span, int32_t type, uint64_t i) { return load(address<const void>(span), type, i); }

// Decoded state s of element i, 0 where the algorithm has none.
double state_of(const qlora_parameter &parameter, uint32_t states, uint32_t s, uint64_t i) {
    qlora_parameter spans = parameter;
    if (s >= states) return 0;
    const qlora_span &span = state_span(spans, int(s));
    if (parameter.state_type == QLORA_FORMAT_F32) return read(span, QLORA_FORMAT_F32, i);
    const uint8_t code = address<const uint8_t>(span)[i];
    const float absmax = load(address<const void>(state_span(spans, int(s) + 3)), QLORA_FORMAT_F32, i / state_block);
    return float_of((s == 1 ? udyn8_table : dyn8_table)[code]) * absmax;
}

// Code of a new state over its block's absmax.
uint8_t state_code(float value, float absmax, bool is_signed) {
    uint32_t code = absmax > 0 ? nearest_code(is_signed ? dyn8_table : udyn8_table, value / absmax) : 0;
    if (!is_signed) return uint8_t(code);
    if (std::signbit(float_of(dyn8_table[code])) != std::signbit(value)) code += value > 0 ? 1 : 255;
    return uint8_t(code);
}

// What the factor is made of, over a part of the tensor: squares of p and of what stands for u.
void add_squares(const Rule &rule, double &values, double &updates) {
    const qlora_optimizer_args &args = rule.args;
    const qlora_parameter &parameter = rule.parameter;
    const uint32_t states = state_count(args.algorithm);
    for (uint64_t i = 0; i < parameter.count; i++) {
        const double p = read(parameter.value, parameter.value_type, i), raw = read(parameter.gradient, parameter.gradient_type, i);
        const double g = rule.gradient(raw, p, !rule.theirs);
        double s[3];
        for (uint32_t k = 0; k < 3; k++) s[k] = state_of(parameter, states, k, i);
        values += p * p;
        if ((args.flags & QLORA_FLAG_SKIP_ZEROS && raw == 0) || (rule.small && !std::isfinite(raw))) continue;
        rule.advance(g, p, s);
        double u = args.algorithm == QLORA_OPTIMIZER_LARS ? g : rule.direction(g, g, p, s, 0);
        if (args.algorithm == QLORA_OPTIMIZER_STABLE_ADAMW) u = g / std::sqrt(std::max(s[1], rule.epsilon * rule.epsilon));
        updates += u * u;
    }
}

double factor_of(const Rule &rule, double values, double updates) {
    const qlora_optimizer_args &args = rule.args;
    const double p = std::sqrt(values), u = std::sqrt(updates), count = double(rule.parameter.count);
    switch (args.algorithm) {
    case QLORA_OPTIMIZER_STABLE_ADAMW: return 1 / std::fmax(1.0, count > 0 ? std::sqrt(updates / count) : 0.0);
    case QLORA_OPTIMIZER_LAMB: return p > 0 && u > 0 ? p / u : 1;
    case QLORA_OPTIMIZER_LARS: return p > 0 && u + rule.decay * p > 0 ? args.max_unorm * p / (u + rule.decay * p) : 1;
    }
    const double bound = args.max_unorm * p + (state_count(args.algorithm) == 1 ? rule.epsilon : 0);
    return u > bound ? bound / u : 1;
}

void step_block(const Rule &rule, const Piece &piece, uint64_t begin, uint64_t end) {
    const qlora_optimizer_args &args = rule.args;
    qlora_parameter parameter = rule.parameter;
    const uint32_t states = state_count(args.algorithm);
    float fresh[3][state_block] = {}, absmax[3] = {};
    for (uint64_t i = begin; i < end; i++) {
        const double p = read(parameter.value, parameter.value_type, i), raw = read(parameter.gradient, parameter.gradient_type, i);
        double s[3];
        for (uint32_t k = 0; k < 3; k++) s[k] = state_of(parameter, states, k, i);
        const bool lost = rule.small && !std::isfinite(raw), stays = args.flags & QLORA_FLAG_SKIP_ZEROS && raw == 0;
        if (!lost && !stays) {
            const double g = rule.gradient(raw, p, true), old = s[0];
            rule.advance(g, p, s);
            const float moved = float(rule.move(p, rule.direction(raw, g, p, s, old)));
            const uint64_t place = piece.first + i;
            const uint32_t word = qlora_random(uint(args.seed) ^ uint(args.step), uint(args.seed >> 32) ^ piece.index, uint(place), uint(place >> 32));
            void *value = address<void>(parameter.value);
            if (!(args.flags & QLORA_FLAG_STOCHASTIC) || parameter.value_type == QLORA_FORMAT_F32) store(value, parameter.value_type, i, moved);
            else static_cast<uint16_t *>(value)[i] = uint16_t(parameter.value_type == QLORA_FORMAT_F16 ? qlora_f16_from_f32_random(bits_of(moved), word) : qlora_bf16_from_f32_random(bits_of(moved), word));
        }
        for (uint32_t k = 0; k < states; k++) {
            const float value = lost ? 0.0f : float(s[k]);
            fresh[k][i - begin] = value;
            absmax[k] = std::fmax(absmax[k], std::fabs(value));
        }
    }
    for (uint32_t k = 0; k < states; k++) {
        const qlora_span &span = state_span(parameter, int(k));
        if (rule.small) address<float>(state_span(parameter, int(k) + 3))[begin / state_block] = absmax[k];
        for (uint64_t i = begin; i < end; i++)
            if (rule.small) address<uint8_t>(span)[i] = state_code(fresh[k][i - begin], absmax[k], k != 1);
            else address<float>(span)[i] = fresh[k][i - begin];
    }
}

// This tensor's part of clip: the percentile of its own history, which takes the newest norm.
double percentile_clip(const qlora_optimizer_args &args, const qlora_parameter &parameter, double norm) {
    float *history = address<float>(parameter.history), sorted[percentile_slots];
    if (!std::isfinite(norm)) return 1;
    if (args.step == 1) std::fill(history, history + percentile_slots, float(norm));
    history[args.step % percentile_slots] = float(norm);
    std::copy(history, history + percentile_slots, sorted);
    std::sort(sorted, sorted + percentile_slots);
    const double threshold = sorted[args.percentile];
    return threshold > 0 && norm > threshold ? threshold / norm : 1;
}

} // namespace

uint64_t optimizer_step_scratch(Context &, const qlora_optimizer_args &) { return 0; }

int32_t optimizer_step(Context &context, const qlora_optimizer_args &args) {
    const double norm = args.norm.handle ? double(*address<const float>(args.norm)) : 0;
    const bool skip_all = args.flags & QLORA_FLAG_SKIP_STEP && !std::isfinite(norm);
    double scale = args.gradient_scale;
    if (args.norm.handle && args.max_norm > 0) scale *= std::fmin(1.0, double(args.max_norm) / (norm + 1e-6));
    Grid tensors(context, args.parameter_count, 5); // of each: skipped, scale, factor, squares of values, of updates
    QLORA_TRY(tensors.status());
    for (uint32_t i = 0; i < args.parameter_count; i++) {
        const double own_norm = args.norms.handle ? double(address<const float>(args.norms)[i]) : 0;
        tensors[i][0] = skip_all || (args.flags & QLORA_FLAG_SKIP_TENSORS && !std::isfinite(own_norm));
        tensors[i][1] = tensors[i][0] == 0 && args.percentile ? scale * percentile_clip(args, args.parameters[i], own_norm) : scale;
        tensors[i][2] = 1;
    }
    if (needs_factor(args)) {
        QLORA_TRY(each_page_of_host(context, args, false, [&](const Page &page) {
            for (const Piece *piece = page.pieces; piece != page.pieces + page.piece_count; piece++) {
                double *tensor = tensors[piece->index];
                if (tensor[0] == 0) add_squares(Rule(args, piece->parameter, tensor[1]), tensor[3], tensor[4]);
            }
        }));
        for (uint32_t i = 0; i < args.parameter_count; i++)
            if (tensors[i][0] == 0) tensors[i][2] = factor_of(Rule(args, args.parameters[i], tensors[i][1]), tensors[i][3], tensors[i][4]);
    }
    QLORA_TRY(each_page_of_host(context, args, true, [&](const Page &page) {
        for (const Piece *piece = page.pieces; piece != page.pieces + page.piece_count; piece++) {
            const qlora_parameter &parameter = piece->parameter;
            Rule rule(args, parameter, tensors[piece->index][1]);
            rule.factor = tensors[piece->index][2];
            if (tensors[piece->index][0] != 0) continue;
            for (uint64_t begin = 0; begin < parameter.count; begin += state_block) step_block(rule, *piece, begin, std::min(begin + state_block, parameter.count));
        }
    }));
    for (uint32_t i = 0; i < args.parameter_count; i++) {
        const qlora_parameter &parameter = args.parameters[i];
        if (args.flags & QLORA_FLAG_ZERO_GRADIENTS) std::memset(address<void>(parameter.gradient), 0, size_t(parameter.count * type_bytes(parameter.gradient_type)));
        if (args.skipped.handle) address<uint32_t>(args.skipped)[i] = tensors[i][0] != 0;
        if (args.factors.handle) address<float>(args.factors)[i] = float(tensors[i][2]);
    }
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
