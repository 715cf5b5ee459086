#include "planner.h"

#include "format_choice.h"
#include "report.h"

#include <algorithm>
#include <cstdio>

namespace finetune {
namespace {

const uint64_t usual_context = uint64_t(600) << 20, late_kernels = uint64_t(64) << 20;
const uint64_t small_logits = uint64_t(8) << 20; // bytes of a chunk of logits when memory is short
const uint32_t most_chunk_rows = 512;
const uint64_t most_rank = 1024;
const uint32_t fewest_streamed = 3;              // two lie in the window

struct Step {
    const char *what, *flag;
    bool allowed; // not decided on the command line
    void (*apply)(MemoryChoice &choice, const Task &task, uint64_t vocabulary);
};

uint64_t smaller_chunk(uint64_t vocabulary) { return std::max<uint64_t>(16, small_logits / (4 * vocabulary) / 16 * 16); }

// In the order of what they cost: nothing, little time in evaluations, time on the bus, precision of the head.
std::vector<Step> steps_of(const Task &task, const MemoryOptions &options) {
    const bool trains = task.training;
    return {
        {"batches are enqueued call by call, none is recorded", "--graph off", trains && !options.graphs,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.graphs = false; }},
        {"rows of the embedding stay in host memory", "--embedding host", !options.host_embedding,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.host_embedding = true; }},
        {"activations are computed again in the backward pass", "without --no-checkpoint", false,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.checkpointing = true; }},
        {"evaluations take fewer tokens at a time", "--eval-tokens 512", !options.eval_tokens,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.eval_tokens = std::min<uint64_t>(choice.eval_tokens, 512); }},
        {"logits exist for fewer tokens at a time", "--logits-rows 64", !options.chunk_rows,
         [](MemoryChoice &choice, const Task &, uint64_t vocabulary) { choice.chunk_rows = uint32_t(smaller_chunk(vocabulary)); }},
        {"most of the optimizer's state streams from host memory", "--optimizer-memory 16M", trains && !options.optimizer_bytes,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.optimizer_bytes = uint64_t(16) << 20; }},
        {"inputs of the layers wait in host memory for the backward pass", "--offload on", trains && !options.offload,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.offload = choice.checkpointing; }},
        {"the head is quantized to nf4", "--quant-head nf4", !options.head,
         [](MemoryChoice &choice, const Task &, uint64_t) {
             choice.head_format = QLORA_FORMAT_NF4;
             choice.host_embedding = true; // where both were one matrix
         }},
    };
}

MemoryPlan dry_run(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice) {
    device.plan();
    const Machine machine(device, base, task, choice);
    MemoryPlan plan;
    plan.choice = choice;
    plan.tally = device.tally();
    plan.device_bytes = device.planned_bytes();
    plan.scratch_bytes = device.scratch_bytes();
    plan.host_bytes = device.planned_host_bytes();
    plan.layers = base.shape().layers;
    return plan;
}

// The plan with some of the steps, what each of them saves included.
MemoryPlan with_steps(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                      const Budget &budget, const std::vector<Step> &steps, const std::vector<bool> &taken) {
    MemoryPlan plan = dry_run(device, base, task, options.start());
    std::vector<Saving> savings;
    for (size_t i = 0; i < steps.size(); ++i) {
        if (!taken[i]) continue;
        MemoryChoice choice = plan.choice;
        steps[i].apply(choice, task, base.shape().vocabulary);
        const uint64_t before = plan.device_bytes;
        if (planned_bytes(device, base, task, choice) == UINT64_MAX) continue;
        plan = dry_run(device, base, task, choice);
        if (plan.device_bytes < before) savings.push_back({steps[i].what, steps[i].flag, before - plan.device_bytes});
    }
    plan.budget = budget;
    plan.savings = std::move(savings);
    return plan;
}

// More tokens per chunk of logits, as far as there is room: a head that is decoded, or only read, for few tokens is slow.
void widen_chunk(Device &device, const BaseModel &base, const Task &task, MemoryPlan &plan) {
    for (uint32_t rows = most_chunk_rows; rows > plan.choice.chunk_rows && rows >= 32; rows /= 2) {
        MemoryChoice choice = plan.choice;
        choice.chunk_rows = rows;
        MemoryPlan wider = dry_run(device, base, task, choice);
        wider.budget = plan.budget;
        wider.savings = plan.savings;
        if (wider.device_bytes < plan.device_bytes) return; // less than what the device chooses
        if (!wider.fits()) continue;
        plan = std::move(wider);
        return;
    }
}

// As few streamed layers as fit; all of them where none of the numbers does.
void stream(Device &device, const BaseModel &base, const Task &task, MemoryPlan &plan) {
    const auto with = [&](uint32_t streamed) {
        MemoryChoice choice = plan.choice;
        choice.streamed_layers = streamed;
        MemoryPlan other = dry_run(device, base, task, choice);
        other.budget = plan.budget;
        other.savings = plan.savings;
        return other;
    };
    uint32_t least = fewest_streamed, most = base.shape().layers;
    if (most < least) return;
    MemoryPlan best = with(most);
    while (least < most && best.fits()) {
        const uint32_t middle = (least + most) / 2;
        MemoryPlan half = with(middle);
        if (half.fits()) {
            most = middle;
            best = std::move(half);
        } else {
            least = middle + 1;
        }
    }
    if (best.device_bytes >= plan.device_bytes) return;
    const uint32_t streamed = best.choice.streamed_layers;
    best.savings.push_back({"weights of " + std::to_string(streamed) + " of " + std::to_string(base.shape().layers) +
                                " layers stream from host memory",
                            "--stream-layers " + std::to_string(streamed), plan.device_bytes - best.device_bytes});
    plan = std::move(best);
}

// Room that is left keeps the activations of as many layers as it can.
void keep(Device &device, const BaseModel &base, const Task &task, MemoryPlan &plan) {
    uint32_t least = 0, most = base.shape().layers;
    while (least < most) {
        const uint32_t middle = (least + most + 1) / 2;
        MemoryChoice choice = plan.choice;
        choice.kept_layers = middle;
        MemoryPlan more = dry_run(device, base, task, choice);
        more.budget = plan.budget;
        more.savings = plan.savings;
        if (more.fits()) {
            least = middle;
            plan = std::move(more);
        } else {
            most = middle - 1;
        }
    }
}

} // namespace

MemoryChoice MemoryOptions::start() const {
    MemoryChoice choice;
    choice.checkpointing = checkpointing;
    choice.host_embedding = host_embedding.value_or(false);
    choice.offload = offload.value_or(false);
    choice.graphs = graphs.value_or(true);
    choice.chunk_rows = chunk_rows.value_or(0);
    choice.streamed_layers = streamed_layers.value_or(0);
    choice.kept_layers = kept_layers.value_or(0);
    choice.eval_tokens = eval_tokens.value_or(4096);
    choice.optimizer_bytes = optimizer_bytes.value_or(0);
    if (head && *head != "none") choice.head_format = named_format(*head, "--quant-head");
    return choice;
}

Budget find_budget(const Device &device, const MemoryOptions &options) {
    const qlora_context_info info = device.context().query();
    const bool gpu = info.backend == QLORA_BACKEND_CUDA || info.backend == QLORA_BACKEND_VULKAN;
    const bool known = gpu && info.memory_free_bytes > 0;
    const uint64_t in_use = known ? info.memory_bytes - std::min(info.memory_bytes, info.memory_free_bytes) : 0;
    Budget budget;
    if (gpu) budget.overhead = (known && in_use <= 2 * usual_context ? in_use : usual_context) + late_kernels;
    if (!options.memory.empty()) {
        budget.limit = parse_bytes("--memory", options.memory);
        budget.source = "--memory " + options.memory;
        if (budget.limit <= budget.overhead)
            fail("--memory ", options.memory, ": driver and context alone take ", readable_bytes(budget.overhead), "; give more");
        if (known && budget.arena() > info.memory_free_bytes)
            fail("--memory ", options.memory, ": only ", readable_bytes(info.memory_free_bytes), " are free on ", device.name());
    } else if (known) {
        budget.limit = info.memory_free_bytes + budget.overhead - late_kernels;
        budget.source = "free on the device";
    }
    return budget;
}

uint64_t planned_bytes(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice) {
    try {
        return dry_run(device, base, task, choice).device_bytes;
    } catch (const qlora::Error &) { return UINT64_MAX; } // a window of the optimizer that holds no pages
}

MemoryPlan make_plan(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                     const Budget &budget) {
    const std::vector<Step> steps = steps_of(task, options);
    std::vector<bool> taken(steps.size(), false);
    MemoryPlan plan = with_steps(device, base, task, options, budget, steps, taken);
    for (size_t i = 0; i < steps.size() && !plan.fits(); ++i) {
        if (!steps[i].allowed) continue;
        taken[i] = true;
        MemoryPlan next = with_steps(device, base, task, options, budget, steps, taken);
        if (next.device_bytes < plan.device_bytes) plan = std::move(next);
        else taken[i] = false;
    }
    if (!plan.fits() && !options.streamed_layers) stream(device, base, task, plan);
    if (!plan.fits() || budget.limit == 0) return plan;
    // A later step may have saved so much that an earlier one, or a part of it, need not be; the dearest goes first.
    const bool streams = plan.choice.streamed_layers > 0 && !options.streamed_layers;
    for (size_t i = steps.size(); i-- > 0 && !streams;) {
        if (!taken[i]) continue;
        taken[i] = false;
        MemoryPlan other = with_steps(device, base, task, options, budget, steps, taken);
        if (other.fits()) plan = std::move(other);
        else taken[i] = true;
    }
    if (!options.chunk_rows) widen_chunk(device, base, task, plan);
    if (!streams && task.training && options.checkpointing && !options.kept_layers) keep(device, base, task, plan);
    return plan;
}

void reject_plan(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                 const MemoryPlan &plan, const std::string &failure) {
    std::vector<Saving> helps;
    const auto consider = [&](const std::string &flag, const Task &other, const MemoryChoice &choice) {
        if (helps.size() == 3) return;
        try {
            const uint64_t bytes = planned_bytes(device, base, other, choice);
            if (bytes < plan.device_bytes) helps.push_back({"", flag, plan.device_bytes - bytes});
        } catch (const Error &) {
            // no choice for this model or device
        }
    };
    for (const Step &step : steps_of(task, options)) {
        MemoryChoice choice = plan.choice;
        step.apply(choice, task, base.shape().vocabulary);
        consider(step.flag, task, choice);
    }
    if (task.training && !task.options.optimizer.small) {
        Task other = task;
        other.options.optimizer.small = true;
        consider("--optimizer " + task.options.optimizer.name + "8bit", other, plan.choice);
    }
    if (task.precision.activations == QLORA_FORMAT_F32) {
        Task other = task;
        other.precision.activations = QLORA_FORMAT_BF16;
        if (other.precision.compute == QLORA_FORMAT_F16) other.precision.activations = QLORA_FORMAT_F16;
        consider(other.precision.activations == QLORA_FORMAT_F16 ? "--activations f16" : "--activations bf16", other, plan.choice);
    }
    if (options.streamed_layers && *options.streamed_layers < base.shape().layers) {
        MemoryChoice choice = plan.choice;
        choice.streamed_layers = base.shape().layers;
        consider("--stream-layers " + std::to_string(base.shape().layers), task, choice);
    }
    if (task.options.batch > 1) {
        Task other = task;
        for (uint64_t *value : {&other.training_bounds.tokens, &other.training_bounds.losses}) *value = (*value + 1) / 2;
        consider("--batch " + std::to_string(task.options.batch / 2) + " --accumulate " + std::to_string(2 * task.options.accumulate), other, plan.choice);
    }
    if (task.adapter_shape.rank > 1) {
        Task other = task;
        other.initial = nullptr;
        other.adapter_shape.rank /= 2;
        consider("--rank " + std::to_string(other.adapter_shape.rank), other, plan.choice);
    }
    if (task.training_bounds.longest > 2) {
        Task other = task;
        other.training_bounds.longest /= 2;
        for (uint64_t *value : {&other.training_bounds.tokens, &other.training_bounds.losses}) *value = (*value + 1) / 2;
        consider("--sequence " + std::to_string(other.training_bounds.longest), other, plan.choice);
    }
    std::string text;
    for (const Saving &saving : helps) text += (text.empty() ? "" : ", ") + saving.flag + " (saves " + readable_bytes(saving.bytes) + ")";
    fail("out of memory: ", readable_bytes(plan.device_bytes + plan.budget.overhead), " are needed, ",
         failure.empty() ? readable_bytes(plan.budget.limit) + " are there (" + plan.budget.source + ")" : failure, "; ",
         text.empty() ? std::string("a smaller model would help") : "what would help: " + text);
}

Largest find_largest(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                     const MemoryPlan &plan, uint64_t longest) {
    MemoryChoice as_planned = plan.choice;
    as_planned.kept_layers = options.kept_layers.value_or(0); // what room is left for is no need
    MemoryChoice all = as_planned;
    uint64_t bytes = planned_bytes(device, base, task, all);
    const auto take_if_less = [&](const MemoryChoice &choice) {
        const uint64_t less = planned_bytes(device, base, task, choice);
        if (less < bytes) all = choice;
        bytes = std::min(bytes, less);
    };
    for (const Step &step : steps_of(task, options)) {
        if (!step.allowed) continue;
        MemoryChoice choice = all;
        step.apply(choice, task, base.shape().vocabulary);
        take_if_less(choice);
    }
    if (!options.streamed_layers) {
        MemoryChoice choice = all;
        choice.streamed_layers = base.shape().layers;
        take_if_less(choice);
    }
    Task other = task;
    other.initial = nullptr;
    other.evaluation_bounds = nullptr;
    other.answers = 0;
    const auto search = [&](const MemoryChoice &choice, uint64_t most, auto &&set) {
        uint64_t least = 0; // fits, or nothing does
        while (least < most) {
            const uint64_t middle = (least + most + 1) / 2;
            Task probe = other;
            set(probe, middle);
            if (planned_bytes(device, base, probe, choice) <= plan.budget.arena()) least = middle;
            else most = middle - 1;
        }
        return least;
    };
    Largest found;
    for (int i = 0; i < 2; ++i) {
        const MemoryChoice &choice = i == 0 ? as_planned : all;
        found.sequence[i] = search(choice, longest, [](Task &probe, uint64_t value) {
            probe.training_bounds.tokens = probe.training_bounds.losses = value * std::max(1u, probe.options.batch);
            probe.training_bounds.longest = uint32_t(value);
            probe.training_bounds.count = probe.options.batch;
        });
        found.rank[i] = search(choice, most_rank, [](Task &probe, uint64_t value) { probe.adapter_shape.rank = uint32_t(value); });
    }
    return found;
}

void print_plan(const MemoryPlan &plan, const Model &model) {
    const auto line = [](const std::string &name, uint64_t bytes, const std::string &more = "") {
        printf("    %-38s %12s%s\n", name.c_str(), readable_bytes(bytes).c_str(), more.c_str());
    };
    printf("  memory\n");
    uint64_t shown = 0;
    for (const auto &[name, bytes] : plan.tally) {
        std::string more;
        if (name == "weights") more = "   linear layers " + model.linear_format();
        if (name == "head" || name == "embedding and head") more = "   " + model.head_format();
        if (bytes > 0) line(name, bytes, more);
        shown += bytes;
    }
    line("scratch, with the logits of a chunk", plan.scratch_bytes);
    shown += plan.scratch_bytes;
    if (shown < plan.device_bytes) line("loading, gradients that need more", plan.device_bytes - shown);
    if (plan.budget.overhead > 0) line("driver and context", plan.budget.overhead);
    const std::string of = plan.budget.limit == 0 ? "" : "   of " + readable_bytes(plan.budget.limit) + ", " + plan.budget.source;
    line("on the device", plan.device_bytes + plan.budget.overhead, of);
    if (plan.host_bytes > 0) line("in host memory", plan.host_bytes);
    if (model.requantized() > 0) printf("    %u linear layers are decoded and quantized anew\n", model.requantized());
    if (plan.choice.checkpointing && plan.choice.kept_layers > 0)
        printf("    activations of %u of %u layers are kept, the others' computed again\n", plan.choice.kept_layers, plan.layers);
    for (const Saving &saving : plan.savings)
        printf("    %s: saves %s\n", saving.what.c_str(), readable_bytes(saving.bytes).c_str());
}

} // namespace finetune
