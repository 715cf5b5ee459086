// The optimizers over a list of tensors in one pass, by fixed chunks; two where an algorithm needs sums over whole tensors.
#include "backends/cpu/cpu.h"
#include "backends/pages.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace qlora {
namespace cpu {
namespace {

constexpr uint64_t chunk = 4 * state_granule; // elements that one thread takes
constexpr uint64_t direct = 2048;             // elements of a row that is worked on where it lies

// What the passes know of a tensor.
struct Tensor {
    double scale;  // of the gradient
    float factor;
    uint32_t skip;
    uint64_t granule; // its first
};

// Index of an algorithm's loop: Body of simd_optim.inc.
int body_of(int32_t algorithm) {
    switch (algorithm) {
    case QLORA_OPTIMIZER_ADEMAMIX: return 1;
    case QLORA_OPTIMIZER_LION: return 2;
    case QLORA_OPTIMIZER_MOMENTUM:
    case QLORA_OPTIMIZER_LARS: return 3;
    case QLORA_OPTIMIZER_RMSPROP: return 4;
    case QLORA_OPTIMIZER_ADAGRAD: return 5;
    }
    return 0;
}

struct Stepper {
    const Kernels &kernels;
    const OptimizerKernels &optimizer;
    const qlora_optimizer_args &args;
    const Coefficients coefficients;
    const Tensor *tensors;
    double (*sums)[2]; // of each granule: squares of p and of u; null when there is no pass of sums
    const bool theirs;

    bool plain(const qlora_parameter &parameter) const {
        return parameter.value_type == QLORA_FORMAT_F32 && parameter.gradient_type == QLORA_FORMAT_F32 && parameter.state_type == QLORA_FORMAT_F32 && !theirs && !(args.flags & QLORA_FLAG_SKIP_ZEROS);
    }

    OptimizerStep step_of(const qlora_parameter &parameter, const Tensor &tensor) const {
        const Coefficients &c = coefficients;
        const double factor = double(tensor.factor), rate = double(args.learning_rate) * double(parameter.learning_rate_scale), decay = parameter.flags & QLORA_PARAMETER_NO_DECAY ? 0 : double(args.weight_decay);
        const bool lars = args.algorithm == QLORA_OPTIMIZER_LARS, stable = args.algorithm == QLORA_OPTIMIZER_STABLE_ADAMW;
        const bool decoupled = stable || args.algorithm == QLORA_OPTIMIZER_ADAMW || args.algorithm == QLORA_OPTIMIZER_LION || args.algorithm == QLORA_OPTIMIZER_ADEMAMIX;
        const double scaled = lars ? rate : rate * factor;
        OptimizerStep step = {};
        step.scale = float(tensor.scale);
        step.into = decays_gradient(args.algorithm) || lars ? float(decay) : 0;
        step.gain = lars ? tensor.factor : 1;
        step.kept = float(1 - (stable ? scaled : rate) * (decoupled ? decay : 0));
        step.beta1 = theirs && args.algorithm == QLORA_OPTIMIZER_MOMENTUM && args.step == 1 ? 0 : c.beta1;
        step.rest1 = c.rest1;
        step.beta2 = c.beta2;
        step.rest2 = c.rest2;
        step.beta3 = c.beta3;
        step.rest3 = c.rest3;
        const bool adam = body_of(args.algorithm) <= 1;
        step.rate = float(adam ? scaled / double(c.correction1) : scaled);
        step.inverse = float(1 / double(c.correction2));
        step.epsilon = c.epsilon;
        step.alpha = float(double(c.alpha) * double(c.correction1));
        step.beside = args.algorithm == QLORA_OPTIMIZER_LAMB ? float(decay * double(c.correction1)) : 0;
        return step;
    }

    // One piece's elements begin .. begin + count, at most a granule: to f32, on, and back.
    void buffered(const Piece &piece, const Tensor &tensor, uint64_t begin, uint64_t count, bool move) const {
        alignas(64) float gradient[state_block], raw_copy[state_block], value_copy[state_block], state[3][state_block];
        const qlora_parameter &parameter = piece.parameter;
        qlora_parameter spans = parameter;
        const bool small = parameter.state_type == QLORA_FORMAT_DYN8, keeps = args.flags & QLORA_FLAG_SKIP_ZEROS;
        const int value_index = type_index(parameter.value_type), gradient_index = type_index(parameter.gradient_type);
        const uint32_t states = state_count(args.algorithm);
        OptimizerStep step = step_of(parameter, tensor);
        const float into = step.into, kept = step.kept;
        double values = 0, updates = 0;
        if (theirs) step.scale = 1, step.into = 0, step.kept = 1; // done apart, with their roundings
        if (theirs && small && args.algorithm == QLORA_OPTIMIZER_LION) kernels.round[gradient_index](&step.rate, 1);

        for (uint64_t first = begin; first < begin + count; first += state_block) {
            const uint64_t n = least(state_block, begin + count - first);
            const char *gradients = address<const char>(parameter.gradient) + first * type_bytes(parameter.gradient_type);
            char *const values_at = address<char>(parameter.value) + first * type_bytes(parameter.value_type);
            // Rows of f32 are read, and values moved, where they lie, unless the old ones are needed again.
            const float *raw = gradient_index == 0 ? reinterpret_cast<const float *>(gradients) : raw_copy;
            if (gradient_index != 0) kernels.load[gradient_index](gradients, n, raw_copy);
            const bool lost = small && kernels.find_not_finite(raw, n) < n, in_place = value_index == 0 && move && !theirs && !lost && !keeps;
            float *value = in_place ? reinterpret_cast<float *>(values_at) : value_copy;
            if (!in_place) kernels.load[value_index](values_at, n, value);
            load_states(spans, first, n, state);
            OptimizerRows rows = {raw, raw, value, {state[0], state[1], state[2]}, nullptr};
            if (theirs) {
                std::memcpy(gradient, raw, n * 4);
                optimizer.blend(gradient, float(tensor.scale), nullptr, 0, n);
                if (!small) kernels.round[gradient_index](gradient, n);
                if (into != 0 && move && small) // one rounding there, two below
                    for (uint64_t i = 0; i < n; i++) gradient[i] = float(double(gradient[i]) + double(into) * double(value[i]));
                if (into != 0 && move && !small) {
                    optimizer.blend(gradient, 1, value, into, n);
                    kernels.round[gradient_index](gradient, n);
                }
                if (args.algorithm == QLORA_OPTIMIZER_LION && kept != 1 && move) {
                    optimizer.blend(value, kept, nullptr, 0, n);
                    kernels.round[value_index](value, n);
                }
                rows.gradient = gradient;
                rows.top = small ? raw : gradient;
                if (!move) rows.top = gradient;
            }
            if (!move) values += kernels.sum_squares(value, n);
            const auto run = optimizer.step[body_of(args.algorithm)][move];
            rows.update = gradient; // read before it is written
            run(step, n, rows);
            if (move && theirs && kept != 1 && args.algorithm != QLORA_OPTIMIZER_LION) {
                kernels.round[value_index](value, n);
                optimizer.blend(value, kept, nullptr, 0, n);
            }
            if (!move && args.algorithm == QLORA_OPTIMIZER_STABLE_ADAMW) optimizer.stable_update(step, n, rows);
            if (!move && args.algorithm == QLORA_OPTIMIZER_LARS)
                for (uint64_t i = 0; i < n; i++) gradient[i] = raw[i] * step.scale;
            if (lost || keeps) put_back(spans, first, n, raw, lost, keeps, values_at, value, state, move ? nullptr : gradient);
            if (!move) { updates += kernels.sum_squares(gradient, n); continue; }
            if (!in_place) store_value(piece, first, n, value, values_at);
            for (uint32_t k = 0; k < states; k++) {
                if (small) address<float>(state_span(spans, int(k) + 3))[first / state_block] = optimizer.encode[k != 1](state[k], n, address<uint8_t>(state_span(spans, int(k))) + first);
                else std::memcpy(address<float>(state_span(spans, int(k))) + first, state[k], n * 4);
            }
        }
        if (!move) {
            double *sum = sums[tensor.granule + (piece.first + begin) / state_granule];
            const double correction = body_of(args.algorithm) == 0 ? double(coefficients.correction1) : 1;
            sum[0] = values;
            sum[1] = updates / (correction * correction); // u still lacks 1 / correction1
        }
    }

    void load_states(qlora_parameter &spans, uint64_t first, uint64_t n, float (*state)[state_block]) const {
        for (uint32_t k = 0; k < state_count(args.algorithm); k++) {
            if (spans.state_type == QLORA_FORMAT_F32) std::memcpy(state[k], address<const float>(state_span(spans, int(k))) + first, n * 4);
            else optimizer.decode[k != 1](address<const uint8_t>(state_span(spans, int(k))) + first, address<const float>(state_span(spans, int(k) + 3))[first / state_block], n, state[k]);
        }
    }
    // Elements that were not to be stepped get back what they had, or lose their state.
    void put_back(qlora_parameter &spans, uint64_t first, uint64_t n, const float *raw, bool lost, bool keeps, const char *values_at, float *value, float (*state)[state_block], float *update) const {
        alignas(64) float old_value[state_block], old_state[3][state_block];
        kernels.load[type_index(spans.value_type)](values_at, n, old_value);
        load_states(spans, first, n, old_state);
        for (uint64_t i = 0; i < n; i++) {
            const bool loses = lost && !(raw[i] - raw[i] == 0);
            if (!loses && !(keeps && raw[i] == 0)) continue;
            value[i] = old_value[i];
            if (update) update[i] = 0;
            for (uint32_t k = 0; k < state_count(args.algorithm); k++) state[k][i] = loses ? 0 : old_state[k][i];
        }
    }
    void store_value(const Piece &piece, uint64_t first, uint64_t n, const float *value, void *place) const {
        const int32_t type = piece.parameter.value_type;
        if (!(args.flags & QLORA_FLAG_STOCHASTIC) || type == QLORA_FORMAT_F32) return kernels.store[type_index(type)](value, n, place);
        optimizer.store_random[type == QLORA_FORMAT_F16](value, n, uint32_t(args.seed) ^ uint32_t(args.step), uint32_t(args.seed >> 32) ^ piece.index, piece.first + first, static_cast<uint16_t *>(place));
    }

    void run(const Piece &piece, uint64_t begin, uint64_t end, bool move) const {
        const qlora_parameter &parameter = piece.parameter;
        const Tensor &tensor = tensors[piece.index];
        if (move && !tensor.skip && plain(parameter)) {
            const OptimizerStep step = step_of(parameter, tensor);
            const auto kernel = optimizer.step[body_of(args.algorithm)][1];
            for (uint64_t i = begin; i < end; i += direct) {
                const float *gradient = address<const float>(parameter.gradient) + i;
                const OptimizerRows rows = {gradient, gradient, address<float>(parameter.value) + i, {address<float>(parameter.state1) + i, at(parameter.state2, i), at(parameter.state3, i)}, nullptr};
                kernel(step, least(direct, end - i), rows);
            }
        } else if (!tensor.skip) {
            for (uint64_t i = begin; i < end; i += state_granule) buffered(piece, tensor, i, least(state_granule, end - i), move);
        }
        if (move && args.flags & QLORA_FLAG_ZERO_GRADIENTS) std::memset(address<char>(parameter.gradient) + begin * type_bytes(parameter.gradient_type), 0, size_t((end - begin) * type_bytes(parameter.gradient_type)));
    }
    static float *at(const qlora_span &span, uint64_t i) { return span.handle ? address<float>(span) + i : nullptr; }
};

// This tensor's part of clip: the percentile of its own history, which takes the newest norm.
double percentile_clip(const qlora_optimizer_args &args, const qlora_parameter &parameter, float norm) {
    float *history = address<float>(parameter.history), sorted[percentile_slots];
    if (!std::isfinite(norm)) return 1;
    if (args.step == 1) std::fill(history, history + percentile_slots, norm);
    history[args.step % percentile_slots] = norm;
    std::copy(history, history + percentile_slots, sorted);
    std::nth_element(sorted, sorted + args.percentile, sorted + percentile_slots);
    const float threshold = sorted[args.percentile];
    return threshold > 0 && norm > threshold ? double(threshold) / double(norm) : 1;
}

// The factor of a tensor from its sums: see qlora_optimizer_step().
float factor_of(const qlora_optimizer_args &args, const qlora_parameter &parameter, double values, double updates) {
    const double p = std::sqrt(values), u = std::sqrt(updates), decay = parameter.flags & QLORA_PARAMETER_NO_DECAY ? 0 : double(args.weight_decay);
    switch (args.algorithm) {
    case QLORA_OPTIMIZER_STABLE_ADAMW: return float(1 / std::fmax(1.0, parameter.count ? std::sqrt(updates / double(parameter.count)) : 0.0));
    case QLORA_OPTIMIZER_LAMB: return p > 0 && u > 0 ? float(p / u) : 1;
    case QLORA_OPTIMIZER_LARS: return p > 0 && u + decay * p > 0 ? float(double(args.max_unorm) * p / (u + decay * p)) : 1;
    }
    const double bound = double(args.max_unorm) * p + (state_count(args.algorithm) == 1 ? double(args.epsilon) : 0);
    return u > bound ? float(bound / u) : 1;
}

uint64_t granules_of(const qlora_optimizer_args &args) {
    uint64_t granules = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++) granules += divide_up(args.parameters[i].count, state_granule);
    return granules;
}
uint64_t table_bytes(const qlora_optimizer_args &args) { return align_scratch((uint64_t(args.parameter_count) + 1) * 8); }
uint64_t tensor_bytes(const qlora_optimizer_args &args) { return align_scratch(uint64_t(args.parameter_count) * sizeof(Tensor)); }

} // namespace

uint64_t optimizer_step_scratch(Context &, const qlora_optimizer_args &args) {
    return table_bytes(args) + tensor_bytes(args) + (needs_factor(args) ? align_scratch(granules_of(args) * 16) : 0);
}

int32_t optimizer_step(Context &context, const qlora_optimizer_args &args) {
    uint64_t *const first = address<uint64_t>(args.scratch);
    Tensor *const tensors = reinterpret_cast<Tensor *>(address<char>(args.scratch) + table_bytes(args));
    double(*const sums)[2] = reinterpret_cast<double(*)[2]>(address<char>(args.scratch) + table_bytes(args) + tensor_bytes(args));
    const float norm = args.norm.handle ? *address<const float>(args.norm) : 0;
    const float *norms = optional<const float>(args.norms);
    const bool skip_all = args.flags & QLORA_FLAG_SKIP_STEP && !std::isfinite(norm);
    double scale = double(args.gradient_scale);
    if (args.norm.handle && args.max_norm > 0) scale *= std::fmin(1.0, double(args.max_norm) / (double(norm) + 1e-6));
    uint64_t granules = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++) {
        const bool skip = skip_all || (args.flags & QLORA_FLAG_SKIP_TENSORS && !std::isfinite(norms[i]));
        tensors[i] = {!skip && args.percentile ? scale * percentile_clip(args, args.parameters[i], norms[i]) : scale, 1, skip, granules};
        granules += divide_up(args.parameters[i].count, state_granule);
    }
    const Stepper stepper = {kernels_of(context), *state_of(context).optimizer, args, coefficients_of(args), tensors, sums, (args.flags & QLORA_FLAG_BITSANDBYTES) != 0};
    auto pass = [&](bool move) {
        return each_page_of_host(context, args, move, [&](const Page &page) {
            first[0] = 0;
            for (uint32_t i = 0; i < page.piece_count; i++) first[i + 1] = first[i] + divide_up(page.pieces[i].parameter.count, chunk);
            parallel(context, first[page.piece_count], [&](uint64_t unit, uint32_t) {
                const Piece &piece = page.pieces[parameter_of_chunk(first, page.piece_count, unit)];
                const uint64_t begin = (unit - first[&piece - page.pieces]) * chunk;
                stepper.run(piece, begin, least(begin + chunk, piece.parameter.count), move);
            });
        });
    };
    if (needs_factor(args)) {
        QLORA_TRY(pass(false));
        for (uint32_t i = 0; i < args.parameter_count; i++) {
            double values = 0, updates = 0;
            const uint64_t own = divide_up(args.parameters[i].count, state_granule);
            if (tensors[i].skip) continue;
            for (uint64_t j = tensors[i].granule; j < tensors[i].granule + own; j++) values += sums[j][0], updates += sums[j][1];
            tensors[i].factor = factor_of(args, args.parameters[i], values, updates);
        }
    }
    QLORA_TRY(pass(true));
    for (uint32_t i = 0; i < args.parameter_count; i++) {
        if (args.skipped.handle) address<uint32_t>(args.skipped)[i] = tensors[i].skip;
        if (args.factors.handle) address<float>(args.factors)[i] = tensors[i].factor;
    }
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
