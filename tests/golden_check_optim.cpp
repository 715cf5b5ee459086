// Optimizer steps of bitsandbytes: opt32.<name>.<type>.{p0, g<t>, p<t>, s1_<t>, s2_<t>} and opt8.* with a1_<t>, a2_<t>.
// AdEMAMix has its third state as second row of s1 and a1.
//
// Each step starts from the golden state before it, so that one difference is not counted again in the next. Allowed are two
// units in the last place of the type, at the larger of the old and the new value (where old and new nearly cancel, less is
// left than was rounded), or of the gradient for a state; of 8-bit states one code in a thousand one step off. An f32 value
// may be off by three units of the step as well, since it is built with fast roots and quotients; how many were is printed.
//
// Its bias correction 1 - beta^t uses a fast power that is off by some units of 2^-24, which moves a whole step by up to
// some 1e-4 of its length. The step that the golden values took is measured, must lie within what such a power explains,
// and is printed; the values are then compared for a step of that length.
#include "tests/golden_check.h"
#include "tests/support/comparison.h"
#include "tests/support/numbers.h"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <stdexcept>

namespace test {
namespace {

struct Named {
    const char *name;
    int32_t algorithm;
};
constexpr Named algorithms[] = {{"adam", QLORA_OPTIMIZER_ADAM},         {"adamw", QLORA_OPTIMIZER_ADAMW},     {"lamb", QLORA_OPTIMIZER_LAMB},       {"lars", QLORA_OPTIMIZER_LARS},
                                {"momentum", QLORA_OPTIMIZER_MOMENTUM}, {"sgd", QLORA_OPTIMIZER_MOMENTUM},    {"rmsprop", QLORA_OPTIMIZER_RMSPROP}, {"adagrad", QLORA_OPTIMIZER_ADAGRAD},
                                {"lion", QLORA_OPTIMIZER_LION},         {"ademamix", QLORA_OPTIMIZER_ADEMAMIX}};

// What the library holds of one tensor, on the host.
struct State {
    std::vector<uint8_t> value, pieces[QLORA_STATE_COUNT];
};

// One unit in the last place of type at x.
double unit(int32_t type, double x) {
    int exponent;
    std::frexp(std::fabs(x), &exponent); // |x| = f 2^exponent, f in [0.5, 1)
    const int bits = type == QLORA_FORMAT_F32 ? 24 : type == QLORA_FORMAT_F16 ? 11 : 8, least = type == QLORA_FORMAT_F16 ? -24 : -149;
    return std::ldexp(1.0, std::max(x == 0 ? least : exponent - bits, least));
}

struct Group {
    const qlora::Context &context;
    const std::map<std::string, SafeTensor> &tensors;
    const nlohmann::json &hyper;
    std::set<std::string> &seen;
    std::string prefix;
    int32_t algorithm, type;
    bool small;
    uint64_t count = 0;

    bool has(const std::string &part) const { return tensors.count(prefix + part) != 0; }
    const SafeTensor &take(const std::string &part) {
        const auto found = tensors.find(prefix + part);
        if (found == tensors.end()) throw std::runtime_error(prefix + part + " is not in the file");
        seen.insert(found->first);
        return found->second;
    }
    float number(const char *name, float otherwise) const { return hyper.contains(name) && hyper[name].is_number() ? hyper[name].get<float>() : otherwise; }
    uint64_t piece_bytes(int piece) const {
        auto parameter = qlora::make<qlora_parameter>();
        auto layout = qlora::make<qlora_state_layout_info>();
        parameter.count = count;
        parameter.state_type = small ? QLORA_FORMAT_DYN8 : QLORA_FORMAT_F32;
        layout.algorithm = algorithm;
        layout.min_8bit_size = 1;
        if (qlora_state_layout(&parameter, &layout) != QLORA_OK) throw std::runtime_error(prefix + ": no such state");
        return layout.piece_bytes[piece];
    }
    int state_count() const { return piece_bytes(QLORA_STATE_3) ? 3 : piece_bytes(QLORA_STATE_2) ? 2 : 1; }

    // The golden state after step t; zeros for t = 0. AdEMAMix has its slow moment behind the fast one, and writes its scales from
    // absmax1[count / 256] on: unless count is a multiple of 256 the first of them and the last of absmax1 are one number.
    State golden(uint64_t t) {
        State state;
        const std::string step = std::to_string(t);
        const int states = state_count();
        state.value = take(".p" + step).bytes;
        for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) state.pieces[piece].assign(piece_bytes(piece), 0);
        if (t == 0) return state;
        auto give = [&](int piece, const std::string &part, uint64_t begin) {
            const std::vector<uint8_t> &bytes = take(part).bytes;
            if (begin + piece_bytes(piece) > bytes.size()) throw std::runtime_error(prefix + part + " is too short");
            state.pieces[piece].assign(bytes.begin() + std::ptrdiff_t(begin), bytes.begin() + std::ptrdiff_t(begin + piece_bytes(piece)));
        };
        give(QLORA_STATE_1, ".s1_" + step, 0);
        if (states > 1) give(QLORA_STATE_2, ".s2_" + step, 0);
        if (states > 2) give(QLORA_STATE_3, ".s1_" + step, piece_bytes(QLORA_STATE_1));
        if (!small) return state;
        give(QLORA_STATE_ABSMAX1, ".a1_" + step, 0);
        if (states > 1) give(QLORA_STATE_ABSMAX2, ".a2_" + step, 0);
        if (states > 2) give(QLORA_STATE_ABSMAX3, ".a1_" + step, count / 256 * 4);
        return state;
    }
    bool shared_scale(int piece, size_t i) const {
        return state_count() == 3 && count % 256 && ((piece == QLORA_STATE_ABSMAX1 && i == count / 256) || (piece == QLORA_STATE_ABSMAX3 && i == 0));
    }

    State run(const State &from, uint64_t t, double rate) {
        const qlora::Buffer value(context, from.value), gradient(context, take(".g" + std::to_string(t)).bytes);
        auto parameter = qlora::make<qlora_parameter>();
        parameter.count = count;
        parameter.value_type = parameter.gradient_type = type;
        parameter.state_type = small ? QLORA_FORMAT_DYN8 : QLORA_FORMAT_F32;
        parameter.value = value.span();
        parameter.gradient = gradient.span();
        std::vector<qlora::Buffer> buffers(QLORA_STATE_COUNT);
        qlora_span *const spans[QLORA_STATE_COUNT] = {&parameter.state1, &parameter.state2, &parameter.state3, &parameter.absmax1, &parameter.absmax2, &parameter.absmax3};
        for (int piece = 0; piece < QLORA_STATE_COUNT; piece++)
            if (!from.pieces[piece].empty()) {
                buffers[piece] = qlora::Buffer(context, from.pieces[piece]);
                *spans[piece] = buffers[piece].span();
            }
        auto args = qlora::make<qlora_optimizer_args>();
        args.flags = QLORA_FLAG_BITSANDBYTES;
        args.parameters = &parameter;
        args.parameter_count = 1;
        args.algorithm = algorithm;
        args.step = t;
        args.learning_rate = float(rate);
        args.weight_decay = number("weight_decay", 0);
        args.beta1 = number("beta1", 0);
        args.beta2 = number("beta2", 0);
        args.beta3 = number("beta3", 0);
        args.alpha = number("alpha", 0);
        args.epsilon = number("eps", 0);
        args.gradient_scale = small && t == 3 ? 0.5f : 1.0f;
        const qlora::Buffer scratch(context, std::max<uint64_t>(context.operation_scratch(QLORA_OP_OPTIMIZER_STEP, args), 16));
        args.scratch = scratch.span();
        context.optimizer_step(args);
        State to;
        to.value = value.read<uint8_t>();
        for (int piece = 0; piece < QLORA_STATE_COUNT; piece++)
            if (!from.pieces[piece].empty()) to.pieces[piece] = buffers[piece].read<uint8_t>();
        return to;
    }

    // Whether a value is made with approximate division and root, which f32 alone is fine enough to show.
    bool approximate() const { return type == QLORA_FORMAT_F32 && algorithm != QLORA_OPTIMIZER_LION && algorithm != QLORA_OPTIMIZER_MOMENTUM && algorithm != QLORA_OPTIMIZER_LARS; }
    // How much longer than ours their step was, from all elements; 1 where no power is in it. noise: what roundings may make of it.
    double step_ratio(const State &before, const State &ours, const State &theirs, double kept, double &noise) const {
        noise = 0;
        if (algorithm != QLORA_OPTIMIZER_ADAM && algorithm != QLORA_OPTIMIZER_ADAMW && algorithm != QLORA_OPTIMIZER_LAMB && algorithm != QLORA_OPTIMIZER_ADEMAMIX) return 1;
        const std::vector<float> old = unpack(type, before.value), a = unpack(type, ours.value), b = unpack(type, theirs.value);
        double product = 0, square = 0, rounding = 0;
        for (size_t i = 0; i < old.size(); i++) {
            const double moved = old[i] - a[i] / kept;
            product += moved * (old[i] - b[i] / kept);
            square += moved * moved;
            rounding += std::pow(moved * unit(type, old[i]), 2);
        }
        if (square > 0) noise = 2 * std::sqrt(rounding) / square;
        return square > 0 ? product / square : 1;
    }

    bool steps(OptimizerTally &tally) {
        count = take(".p0").count();
        const double rate = number("lr", 0.01f), kept = 1 - rate * number("weight_decay", 0);
        double worst_value = 0, worst_state = 0, worst_absmax = 0, worst_ratio = 0;
        uint64_t t = 1, off = 0, wrong = 0, codes = 0, beyond = 0, wrong_values = 0;
        bool explained = true;
        for (; has(".p" + std::to_string(t)); t++) {
            const State before = golden(t - 1), after = golden(t);
            State ours = run(before, t, rate);
            double noise;
            const double ratio = step_ratio(before, ours, after, kept, noise);
            // Four units of 2^-24 in each power.
            const double beta1 = number("beta1", 0.9f), beta2 = number("beta2", 0.999f), power = std::ldexp(4.0, -24);
            const double bound = power / (1 - std::pow(beta1, double(t))) + 0.5 * power / (1 - std::pow(beta2, double(t))) + noise;
            if (!(std::fabs(ratio - 1) <= bound)) explained = false;
            if (std::fabs(ratio - 1) > std::fabs(worst_ratio)) worst_ratio = ratio - 1;
            if (type == QLORA_FORMAT_F32) ours = run(before, t, rate * ratio);
            const std::vector<float> old = unpack(type, before.value), a = unpack(type, ours.value), b = unpack(type, after.value), g = take(".g" + std::to_string(t)).floats();
            for (size_t i = 0; i < count; i++) {
                const double difference = std::fabs(double(a[i]) - b[i]), ulp = unit(type, std::max({std::fabs(old[i]), std::fabs(b[i]), std::fabs(old[i] - b[i])}));
                worst_value = std::max(worst_value, difference / ulp);
                beyond += difference > 2 * ulp;
                if (!(difference <= 2 * ulp + (approximate() ? 3 * unit(type, std::max(double(std::fabs(old[i] - b[i])), rate)) : 0))) wrong_values++;
            }
            for (int piece = 0; piece < QLORA_STATE_COUNT; piece++) {
                const std::vector<uint8_t> &x = ours.pieces[piece], &y = after.pieces[piece];
                if (small && piece < QLORA_STATE_ABSMAX1) {
                    const CodeDifference difference = code_difference(x, y);
                    codes += x.size();
                    off += difference.neighbours;
                    wrong += difference.wrong;
                    continue;
                }
                const std::vector<float> u = unpack(QLORA_FORMAT_F32, x), v = unpack(QLORA_FORMAT_F32, y), w = unpack(QLORA_FORMAT_F32, before.pieces[piece]);
                double &worst = piece < QLORA_STATE_ABSMAX1 ? worst_state : worst_absmax;
                for (size_t i = 0; i < u.size(); i++) {
                    double difference = std::fabs(double(u[i]) - v[i]);
                    if (shared_scale(piece, i)) { // either of the two that were written there
                        const bool last = piece == QLORA_STATE_ABSMAX1;
                        difference = std::min(difference, std::fabs(double(unpack(QLORA_FORMAT_F32, ours.pieces[last ? QLORA_STATE_ABSMAX3 : QLORA_STATE_ABSMAX1])[last ? 0 : count / 256]) - v[i]));
                    }
                    worst = std::max(worst, difference / unit(QLORA_FORMAT_F32, std::max({std::fabs(w[i]), std::fabs(v[i]), piece < QLORA_STATE_ABSMAX1 ? std::fabs(g[i]) : 0.0f})));
                }
            }
        }
        tally.codes += codes;
        tally.neighbours += off;
        std::printf(" %llu steps, value %.2f ulp", (unsigned long long)(t - 1), worst_value);
        if (beyond) std::printf(" (%llu of %llu beyond 2)", (unsigned long long)beyond, (unsigned long long)(count * (t - 1)));
        if (wrong_values) std::printf(" %llu WRONG", (unsigned long long)wrong_values);
        if (small) std::printf(", codes %llu, %llu one off, %llu WRONG, absmax %.2f ulp", (unsigned long long)codes, (unsigned long long)off, (unsigned long long)wrong, worst_absmax);
        else std::printf(", state %.2f ulp", worst_state);
        if (worst_ratio != 0) std::printf(", their step %+.1e%s", worst_ratio, explained ? "" : " UNEXPLAINED");
        return wrong_values == 0 && worst_state <= 2 && worst_absmax <= 2 && wrong == 0 && off * 1000 <= codes && explained;
    }
};

} // namespace

OptimizerTally check_optimizers(const qlora::Context &context, const std::map<std::string, SafeTensor> &tensors, const std::map<std::string, std::string> &metadata, std::set<std::string> &seen) {
    OptimizerTally tally;
    const auto found = metadata.find("hyper");
    const nlohmann::json hyper = nlohmann::json::parse(found == metadata.end() ? "{}" : found->second, nullptr, false);
    for (const auto &entry : tensors) {
        const std::string &key = entry.first;
        const size_t first = key.find('.'), second = key.find('.', first + 1), third = key.find('.', second + 1);
        if (third == std::string::npos || key.substr(third) != ".p0" || (key.substr(0, first) != "opt8" && key.substr(0, first) != "opt32")) continue;
        const std::string name = key.substr(first + 1, second - first - 1), type = key.substr(second + 1, third - second - 1);
        int32_t algorithm = 0;
        for (const Named &named : algorithms)
            if (name == named.name) algorithm = named.algorithm;
        std::printf("%-22s", key.substr(0, third).c_str());
        bool good = false;
        try {
            if (!algorithm || !activation_type(type)) throw std::runtime_error("unknown optimizer or type");
            Group group = {context, tensors, hyper, seen, key.substr(0, third), algorithm, activation_type(type), key[3] == '8'};
            if (!group.has(".p1")) { // bitsandbytes itself refuses it
                group.take(".p0");
                if (group.has(".g1")) group.take(".g1");
                std::printf(" no step in the file\n");
                continue;
            }
            good = group.steps(tally);
        } catch (const std::exception &error) {
            std::printf(" %s", error.what());
        }
        std::printf("  %s\n", good ? "ok" : "FAILED");
        tally.groups++;
        tally.failures += !good;
    }
    return tally;
}

} // namespace test
