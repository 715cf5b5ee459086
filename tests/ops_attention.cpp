// Cases of attention: grouped heads, odd head sizes, packed sequences with gaps, a cache longer than the queries.
#include "tests/support/shapes.h"

namespace test {
namespace {

struct Layout {
    const char *name;
    uint64_t q_rows, k_rows;               // of the tensors
    std::vector<int32_t> sequences;        // {first q, q rows, first k, k rows} each
    bool tight;                            // give max_q_rows and max_k_rows
};

const std::vector<Layout> &layouts() {
    static const std::vector<Layout> list = {
        {"one token", 1, 2, {0, 1, 0, 2}, false}, // with one key, dq and dk are zero but for rounding
        {"one sequence", 37, 37, {0, 37, 0, 37}, true},
        {"over a tile", 129, 129, {0, 129, 0, 129}, false},
        {"packed with gaps", 90, 90, {3, 17, 3, 17, 20, 1, 20, 1, 24, 64, 24, 64}, true},
        {"padded", 48, 48, {0, 9, 0, 9, 16, 16, 16, 16, 32, 1, 32, 1}, false},
        {"generation", 3, 70, {2, 1, 0, 33, 0, 2, 33, 37}, true},
    };
    return list;
}

struct Heads {
    uint32_t heads, kv_heads, head_dim;
};
constexpr Heads head_shapes[] = {{1, 1, 1}, {2, 1, 64}, {6, 3, 7}, {4, 4, 80}, {8, 2, 32}, {2, 2, 128}, {1, 1, 256}, {3, 1, 65}};

int32_t largest(const std::vector<int32_t> &sequences, size_t field) {
    int32_t most = 0;
    for (size_t i = field; i < sequences.size(); i += 4) most = std::max(most, sequences[i]);
    return most;
}

template <class Function> std::vector<Case> attention_cases(Function &&act) {
    std::vector<Case> list;
    uint32_t variant = 0;
    for (int32_t type : types)
        for (const Layout &layout : layouts())
            for (const Heads &heads : head_shapes) {
                variant++;
                if (variant % 2 && &layout != &layouts()[1] && &layout != &layouts()[3]) continue;
                list.push_back({format_name(type) + " " + layout.name + " " + std::to_string(heads.heads) + "/" + std::to_string(heads.kv_heads) + "x" + std::to_string(heads.head_dim), 0, type, 0,
                                [=](Stage &stage) { act(stage, type, layout, heads, variant); }});
            }
    return list;
}

// What the scores of a variant know beyond the product: nothing in half of them, else one thing or all.
float soft_cap(uint32_t variant) { return variant % 8 == 1 || variant % 8 == 6 ? 1.5f : 0.0f; }
uint32_t window(uint32_t variant) { return variant % 8 == 3 || variant % 8 == 6 ? (variant % 16 < 8 ? 5 : 33) : 0; }
bool has_slopes(uint32_t variant) { return variant % 8 == 4 || variant % 8 == 6; }
std::vector<float> slopes(const Heads &heads) {
    std::vector<float> values;
    for (uint32_t h = 0; h < heads.heads; h++) values.push_back(float(std::pow(2.0, -double(h + 1))));
    return values;
}

template <class Args> void describe(Stage &stage, Args &args, const Layout &layout, const Heads &heads, uint32_t variant) {
    args.sequences = stage.integers(layout.sequences);
    args.sequence_count = uint32_t(layout.sequences.size() / 4);
    args.heads = heads.heads;
    args.kv_heads = heads.kv_heads;
    args.head_dim = heads.head_dim;
    if (layout.tight) {
        args.max_q_rows = uint32_t(largest(layout.sequences, 1));
        args.max_k_rows = uint32_t(largest(layout.sequences, 3));
    }
    if (variant % 3 == 0) args.scale = 0.3f;
    args.soft_cap = soft_cap(variant);
    args.window = window(variant);
    if (has_slopes(variant)) args.slopes = stage.floats(slopes(heads));
}

struct Inputs {
    uint64_t q_cols, k_cols;
    std::vector<float> q, k, v;
    Inputs(const Layout &layout, const Heads &heads)
        : q_cols(uint64_t(heads.heads) * heads.head_dim), k_cols(uint64_t(heads.kv_heads) * heads.head_dim), q(random_values(layout.q_rows * q_cols, 2)),
          k(random_values(layout.k_rows * k_cols, 3)), v(random_values(layout.k_rows * k_cols, 4)) {}
};

void forward(Stage &stage, int32_t type, const Layout &layout, const Heads &heads, uint32_t variant) {
    qlora_attention_args args = {};
    const Inputs inputs(layout, heads);
    args.q = stage.tensor(type, layout.q_rows, inputs.q_cols, inputs.q, variant % 5 ? 0 : inputs.q_cols + 3);
    args.k = stage.tensor(type, layout.k_rows, inputs.k_cols, inputs.k, variant % 5 == 1 ? inputs.k_cols + 2 : 0);
    args.v = stage.tensor(type, layout.k_rows, inputs.k_cols, inputs.v);
    // Rows of no sequence are left as they are, hence no NaN there.
    args.y = stage.output("y", type, layout.q_rows, inputs.q_cols, variant % 5 == 2 ? inputs.q_cols + 1 : 0, cycle(layout.q_rows * inputs.q_cols));
    if (variant % 4) args.lse = stage.output_floats("lse", layout.q_rows * heads.heads, cycle(layout.q_rows * heads.heads));
    describe(stage, args, layout, heads, variant);
    stage.run<QLORA_OP_ATTENTION>(args);
}

// y and lse as the forward pass gives them, in double, from inputs as the type holds them.
void softmax_products(const Layout &layout, const Heads &heads, int32_t type, uint32_t variant, const Inputs &inputs, std::vector<float> &y, std::vector<float> &lse) {
    const uint32_t d = heads.head_dim;
    const double scale = variant % 3 == 0 ? double(0.3f) : 1 / std::sqrt(double(heads.head_dim)), cap = soft_cap(variant);
    y.assign(layout.q_rows * inputs.q_cols, 0);
    lse.assign(layout.q_rows * heads.heads, 0);
    auto at = [&](const std::vector<float> &values, uint64_t cols, uint64_t row, uint64_t col) { return double(round_to(type, values[row * cols + col])); };
    for (size_t s = 0; s < layout.sequences.size(); s += 4)
        for (uint32_t h = 0; h < heads.heads; h++)
            for (int32_t i = 0; i < layout.sequences[s + 1]; i++) {
                const uint64_t row = uint64_t(layout.sequences[s] + i), group = h / (heads.heads / heads.kv_heads);
                const int32_t seen = i + layout.sequences[s + 3] - layout.sequences[s + 1] + 1;
                std::vector<double> score(size_t(seen), 0.0);
                double most = -1e300, sum = 0;
                const int32_t oldest = window(variant) ? std::max(0, seen - int32_t(window(variant))) : 0;
                for (int32_t j = 0; j < seen; j++) {
                    for (uint32_t e = 0; e < d; e++) score[size_t(j)] += at(inputs.q, inputs.q_cols, row, h * d + e) * at(inputs.k, inputs.k_cols, uint64_t(layout.sequences[s + 2] + j), group * d + e);
                    score[size_t(j)] *= scale;
                    if (cap > 0) score[size_t(j)] = cap * std::tanh(score[size_t(j)] / cap);
                    if (has_slopes(variant)) score[size_t(j)] -= double(slopes(heads)[h]) * (seen - 1 - j);
                    if (j < oldest) score[size_t(j)] = -1e300;
                    most = std::max(most, score[size_t(j)]);
                }
                for (double value : score) sum += std::exp(value - most);
                lse[row * heads.heads + h] = float(most + std::log(sum));
                for (uint32_t e = 0; e < d; e++) {
                    double value = 0;
                    for (int32_t j = 0; j < seen; j++) value += std::exp(score[size_t(j)] - most) / sum * at(inputs.v, inputs.k_cols, uint64_t(layout.sequences[s + 2] + j), group * d + e);
                    y[row * inputs.q_cols + h * d + e] = float(value);
                }
            }
}

void backward(Stage &stage, int32_t type, const Layout &layout, const Heads &heads, uint32_t variant) {
    qlora_attention_grad_args args = {};
    const Inputs inputs(layout, heads);
    std::vector<float> y, lse;
    softmax_products(layout, heads, type, variant, inputs, y, lse);
    const uint64_t q_count = layout.q_rows * inputs.q_cols, k_count = layout.k_rows * inputs.k_cols;
    args.q = stage.tensor(type, layout.q_rows, inputs.q_cols, inputs.q, variant % 5 ? 0 : inputs.q_cols + 3);
    args.k = stage.tensor(type, layout.k_rows, inputs.k_cols, inputs.k, variant % 5 == 1 ? inputs.k_cols + 2 : 0);
    args.v = stage.tensor(type, layout.k_rows, inputs.k_cols, inputs.v);
    args.y = stage.tensor(type, layout.q_rows, inputs.q_cols, y);
    args.dy = stage.tensor(type, layout.q_rows, inputs.q_cols, random_values(q_count, 5));
    args.lse = stage.floats(lse);
    args.dq = stage.output("dq", type, layout.q_rows, inputs.q_cols, variant % 5 == 2 ? inputs.q_cols + 1 : 0, cycle(q_count));
    args.dk = stage.output("dk", type, layout.k_rows, inputs.k_cols, 0, cycle(k_count));
    args.dv = stage.output("dv", type, layout.k_rows, inputs.k_cols, variant % 5 == 3 ? inputs.k_cols + 1 : 0, cycle(k_count));
    describe(stage, args, layout, heads, variant);
    stage.run<QLORA_OP_ATTENTION_GRAD>(args);
}

} // namespace

template <> std::vector<Case> cases<QLORA_OP_ATTENTION>() { return attention_cases(forward); }
template <> std::vector<Case> cases<QLORA_OP_ATTENTION_GRAD>() { return attention_cases(backward); }

} // namespace test
