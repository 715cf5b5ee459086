// One step over a list of tensors: resident ones in one launch for each type of state and some 450 tensors, paged ones page
// by page. Factors over whole tensors cost a pass before; percentiles and reports a launch for every 3900 tensors.
#include "backends/cuda/optimizer.cuh"
#include "backends/cuda/optimizer_window.cuh"

namespace qlora {
namespace cuda {

constexpr int threads = 256;

// ---- what is asked of every tensor before its elements move ------------------------------------------------------

constexpr uint32_t history_capacity = uint32_t((parameter_bytes - rule_bytes - 64) / sizeof(float *));
struct Histories {
    float *places[history_capacity]; // of norms, f32[100] each; null without percentile
    uint32_t first;                  // index of the tensor of places[0]
};

// A block per tensor: its clip, whether it is skipped, and 1 as its factor until one is found.
static __global__ void __launch_bounds__(128) prepare_kernel(const __grid_constant__ Histories histories, const __grid_constant__ Rule rule, uint32_t percentile, uint32_t slot, float *clips, uint32_t *skipped,
                                                             float *factors) {
    __shared__ float norms[128];
    const uint32_t index = histories.first + blockIdx.x, i = threadIdx.x;
    const bool skips = rule.skips_all() || rule.skips(index);
    if (i == 0 && skipped) skipped[index] = skips;
    if (i == 0 && factors) factors[index] = 1;
    if (!percentile) return;
    if (i == 0) clips[index] = 1;
    float *const history = histories.places[blockIdx.x];
    const float norm = rule.norms[index];
    if (skips || !isfinite(norm)) return;
    if (i < percentile_slots) norms[i] = history[i] = rule.first_step || i == slot ? norm : history[i];
    __syncthreads();
    if (i >= percentile_slots) return;
    uint32_t rank = 0;
    for (uint32_t j = 0; j < percentile_slots; j++) rank += norms[j] < norms[i] || (norms[j] == norms[i] && j < i);
    if (rank != percentile) return;
    const float threshold = norms[i];
    if (threshold > 0 && norm > threshold) clips[index] = threshold / norm;
}

struct FactorEntry {
    uint64_t count, first_sum;
    uint32_t index, no_decay;
};
constexpr uint32_t factor_capacity = uint32_t((parameter_bytes - rule_bytes - 64) / sizeof(FactorEntry));
struct FactorList {
    FactorEntry entries[factor_capacity];
};

// A block per tensor: the sums of its granules in a fixed order, and the factor that they make.
static __global__ void __launch_bounds__(threads) factor_kernel(const __grid_constant__ FactorList list, const __grid_constant__ Rule rule, float max_unorm, float *factors, float *report) {
    __shared__ double shared[32];
    const FactorEntry &entry = list.entries[blockIdx.x];
    if (rule.skips_all() || rule.skips(entry.index)) return;
    double values = 0, updates = 0;
    const uint64_t granules = (entry.count + state_granule - 1) / state_granule;
    for (uint64_t i = threadIdx.x; i < granules; i += threads) {
        values += rule.sums[2 * (entry.first_sum + i)];
        updates += rule.sums[2 * (entry.first_sum + i) + 1];
    }
    values = block_sum(values, shared);
    updates = block_sum(updates, shared);
    if (threadIdx.x) return;
    const double p = sqrt(values), u = sqrt(updates), decay = entry.no_decay ? 0 : double(rule.decay);
    double factor = 1;
    if (rule.algorithm == QLORA_OPTIMIZER_STABLE_ADAMW) {
        const double r = entry.count ? sqrt(updates / double(entry.count)) : 0;
        if (r > 1) factor = 1 / r;
    } else if (rule.algorithm == QLORA_OPTIMIZER_LAMB) {
        if (p > 0 && u > 0) factor = p / u;
    } else if (rule.algorithm == QLORA_OPTIMIZER_LARS) {
        if (p > 0 && u + decay * p > 0) factor = max_unorm * p / (u + decay * p);
    } else {
        const bool one_state = rule.algorithm == QLORA_OPTIMIZER_MOMENTUM || rule.algorithm == QLORA_OPTIMIZER_RMSPROP || rule.algorithm == QLORA_OPTIMIZER_ADAGRAD;
        const double bound = max_unorm * p + (one_state ? double(rule.epsilon) : 0);
        if (u > bound) factor = bound / u;
    }
    factors[entry.index] = float(factor);
    if (report) report[entry.index] = float(factor);
}

namespace {

// Scratch of a call; null where it needs none.
struct Pieces {
    float *clips, *factors;
    double *sums;
};
Carver carve(const qlora_optimizer_args &args, Carver carver, Pieces &pieces) {
    pieces = {};
    if (args.percentile) pieces.clips = carver.take<float>(args.parameter_count);
    if (!needs_factor(args)) return carver;
    uint64_t granules = 0;
    for (uint32_t i = 0; i < args.parameter_count; i++) granules += granules_of(args.parameters[i].count);
    pieces.factors = carver.take<float>(args.parameter_count);
    pieces.sums = carver.take<double>(2 * granules);
    return carver;
}

Rule rule_of(const qlora_optimizer_args &args, const Pieces &pieces) {
    const Coefficients c = coefficients_of(args);
    Rule rule = {};
    rule.norm = args.norm.handle ? address<const float>(args.norm) : nullptr;
    rule.norms = args.norms.handle ? address<const float>(args.norms) : nullptr;
    rule.clips = pieces.clips;
    rule.factors = pieces.factors;
    rule.sums = pieces.sums;
    rule.max_norm = args.max_norm;
    rule.gradient_scale = args.gradient_scale;
    rule.rate = args.learning_rate;
    rule.decay = args.weight_decay;
    rule.beta1 = c.beta1; rule.rest1 = c.rest1;
    rule.beta2 = c.beta2; rule.rest2 = c.rest2;
    rule.beta3 = c.beta3; rule.rest3 = c.rest3;
    rule.inverse1 = 1 / c.correction1;
    rule.inverse2 = 1 / c.correction2;
    rule.alpha = c.alpha;
    rule.epsilon = c.epsilon;
    rule.flags = args.flags;
    rule.seed_low = uint32_t(args.seed) ^ uint32_t(args.step);
    rule.seed_high = uint32_t(args.seed >> 32);
    rule.algorithm = args.algorithm;
    rule.first_step = args.step == 1;
    return rule;
}

constexpr int32_t state_types[2] = {QLORA_FORMAT_F32, QLORA_FORMAT_DYN8};

// The passes of one call over the pages of pages.h, each in one launch for either type of state.
template <int states> struct Step {
    Context &context;
    const qlora_optimizer_args &args;
    cudaStream_t stream;
    Pieces pieces;
    Rule rule;
    Window window;
    TensorList<states> list;
    FactorList factor_list; // of tensors whose sums are enqueued
    uint32_t factor_count;
    uint64_t sums_done, tensor_sums; // granules; those before the tensor that a page may end in

    int32_t run_list(bool stepping, bool small) {
        if (list.count == 0) return QLORA_OK;
        if (stepping) QLORA_TRY((small ? launch_step<true, states>(context, stream, list, rule) : launch_step<false, states>(context, stream, list, rule)));
        else QLORA_TRY(run_sums(small));
        list.clear();
        return QLORA_OK;
    }
    int32_t run_sums(bool small) {
        if constexpr (states < 3) QLORA_TRY((small ? launch_sums<true, states>(context, stream, list, rule, sums_done) : launch_sums<false, states>(context, stream, list, rule, sums_done)));
        for (uint32_t i = 0; i < list.count; i++) {
            const TensorEntry<states> &entry = list.entries[i];
            const qlora_parameter &parameter = args.parameters[entry.index];
            if (entry.first == 0) tensor_sums = sums_done + entry.granules_before;
            if (entry.first * state_granule + entry.count < parameter.count) continue;
            factor_list.entries[factor_count++] = FactorEntry{parameter.count, tensor_sums, entry.index, parameter.flags & QLORA_PARAMETER_NO_DECAY};
            if (factor_count == factor_capacity) QLORA_TRY(find_factors());
        }
        sums_done += list.granules;
        return QLORA_OK;
    }
    int32_t find_factors() {
        float *report = args.factors.handle ? address<float>(args.factors) : nullptr;
        QLORA_TRY(launch(context, stream, Grid{dim3(factor_count), threads}, factor_kernel, factor_list, rule, args.max_unorm, pieces.factors, report));
        factor_count = 0;
        return QLORA_OK;
    }
    int32_t pass(bool stepping) {
        Pages pages(context, args);
        QLORA_TRY(pages.status());
        Page page;
        while (pages.next(page)) {
            if (page.copy_count) QLORA_TRY(window.bring(page));
            for (int32_t state_type : state_types) {
                for (const Piece *piece = page.pieces; piece != page.pieces + page.piece_count; piece++) {
                    if (piece->parameter.state_type != state_type) continue;
                    if (list.full(piece->parameter.count)) QLORA_TRY(run_list(stepping, state_type == QLORA_FORMAT_DYN8));
                    list.add(*piece);
                }
                QLORA_TRY(run_list(stepping, state_type == QLORA_FORMAT_DYN8));
            }
            if (page.copy_count) QLORA_TRY(window.leave(page, stepping));
        }
        return QLORA_OK;
    }
    int32_t prepare() {
        uint32_t *skipped = args.skipped.handle ? address<uint32_t>(args.skipped) : nullptr;
        float *factors = args.factors.handle ? address<float>(args.factors) : nullptr;
        if (!args.percentile && !skipped && !factors) return QLORA_OK;
        for (uint32_t first = 0; first < args.parameter_count; first += history_capacity) {
            const uint32_t count = args.parameter_count - first < history_capacity ? args.parameter_count - first : history_capacity;
            Histories histories = {};
            histories.first = first;
            for (uint32_t i = 0; i < count && args.percentile; i++) histories.places[i] = address<float>(args.parameters[first + i].history);
            QLORA_TRY(launch(context, stream, Grid{dim3(count), 128}, prepare_kernel, histories, rule, args.percentile, uint32_t(args.step % percentile_slots), pieces.clips, skipped, factors));
        }
        return QLORA_OK;
    }
    int32_t run() {
        bool paged = false;
        for (uint32_t i = 0; i < args.parameter_count; i++) paged |= (args.parameters[i].flags & QLORA_PARAMETER_PAGED) != 0;
        if (paged) QLORA_TRY(window.open());
        QLORA_TRY(prepare());
        if (needs_factor(args)) {
            QLORA_TRY(pass(false));
            QLORA_TRY(find_factors());
        }
        QLORA_TRY(pass(true));
        return window.close();
    }
};

template <int states> int32_t run(Context &context, const qlora_optimizer_args &args) {
    DeviceScope scope(context);
    const cudaStream_t stream = stream_of(context, args);
    Pieces pieces;
    carve(args, Carver(args.scratch), pieces);
    Step<states> step = {context, args, stream, pieces, rule_of(args, pieces), Window(context, args, stream), {}, {}, 0, 0, 0};
    return step.run();
}

} // namespace

uint64_t optimizer_step_scratch(Context &, const qlora_optimizer_args &args) {
    Pieces pieces;
    return carve(args, Carver(), pieces).bytes;
}

int32_t optimizer_step(Context &context, const qlora_optimizer_args &args) {
    switch (state_count(args.algorithm)) {
    case 1: return run<1>(context, args);
    case 2: return run<2>(context, args);
    }
    return run<3>(context, args);
}

} // namespace cuda
} // namespace qlora
