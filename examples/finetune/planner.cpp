#include "planner.h"

#include "host_memory.h"
#include "planner_steps.h"
#include "report.h"

#include <algorithm>

namespace finetune {
namespace {

const uint64_t usual_driver = uint64_t(600) << 20, late_kernels = uint64_t(64) << 20;
const uint64_t most_rank = 1024;
const uint32_t most_chunk_rows = 512;
const uint32_t fewest_streamed = 3;              // two lie in the window

// The plan with one step more, and what it saves; as it is where that is no choice.
MemoryPlan with_step(Device &device, const BaseModel &base, const Task &task, const MemoryPlan &plan, const Step &step) {
    MemoryChoice choice = plan.choice;
    step.apply(choice, task, base.shape().vocabulary);
    std::optional<MemoryPlan> next = possible_run(device, base, task, choice, plan.budget);
    if (!next) return plan;
    next->savings = plan.savings;
    if (next->bytes() < plan.bytes()) next->savings.push_back({step.what, step.flag, plan.bytes() - next->bytes()});
    return std::move(*next);
}

// More tokens per chunk of logits, as far as there is room: a head that is decoded, or only read, for few tokens is slow.
void widen_chunk(Device &device, const BaseModel &base, const Task &task, MemoryPlan &plan) {
    for (uint32_t rows = most_chunk_rows; rows > plan.choice.chunk_rows && rows >= 32; rows /= 2) {
        MemoryChoice choice = plan.choice;
        choice.chunk_rows = rows;
        MemoryPlan wider = dry_run(device, base, task, choice, plan.budget);
        wider.savings = plan.savings;
        if (wider.device_bytes < plan.device_bytes) return; // less than what the device chooses
        if (!wider.fits()) continue;
        plan = std::move(wider);
        return;
    }
}

// The plan with as few of something as `fits` asks for, `most` of it where none of the numbers does; `set` puts a number into a choice.
template <class Set, class Fits>
MemoryPlan fewest(Device &device, const BaseModel &base, const Task &task, const MemoryPlan &plan, uint32_t least, uint32_t most, const Set &set,
                  const Fits &fits) {
    const auto with = [&](uint32_t count) {
        MemoryChoice choice = plan.choice;
        set(choice, count);
        MemoryPlan other = dry_run(device, base, task, choice, plan.budget);
        other.savings = plan.savings;
        return other;
    };
    MemoryPlan best = with(most);
    while (least < most && fits(best)) {
        const uint32_t middle = (least + most) / 2;
        MemoryPlan half = with(middle);
        if (fits(half)) {
            most = middle;
            best = std::move(half);
        } else {
            least = middle + 1;
        }
    }
    return best;
}

// As few streamed layers as fit; all of them where none of the numbers does.
void stream(Device &device, const BaseModel &base, const Task &task, MemoryPlan &plan) {
    const uint32_t layers = base.shape().layers;
    if (layers < fewest_streamed) return;
    MemoryPlan best = fewest(
        device, base, task, plan, fewest_streamed, layers, [](MemoryChoice &choice, uint32_t count) { choice.streamed_layers = count; },
        [](const MemoryPlan &some) { return some.fits(); });
    if (best.bytes() >= plan.bytes()) return;
    const std::string count = std::to_string(best.choice.streamed_layers);
    best.savings.push_back({"weights of " + count + " of " + std::to_string(layers) + " layers stream from host memory", "--stream-layers " + count,
                            plan.bytes() - best.bytes()});
    plan = std::move(best);
}

// As few of the streamed layers as need be have no copy in host memory; two places there are what they need in all.
void spill(Device &device, const BaseModel &base, const Task &task, MemoryPlan &plan) {
    if (!plan.from_file || plan.choice.streamed_layers == 0) return;
    MemoryPlan best = fewest(
        device, base, task, plan, 1, plan.choice.streamed_layers, [](MemoryChoice &choice, uint32_t count) { choice.file_layers = count; },
        [](const MemoryPlan &some) { return some.fits_host(); });
    if (best.host_bytes >= plan.host_bytes) return;
    const std::string count = std::to_string(best.choice.file_layers);
    best.savings.push_back({"weights of " + count + " of those layers have no copy there and come from their file each time", "--file-layers " + count,
                            plan.host_bytes - best.host_bytes});
    plan = std::move(best);
}

// Room that is left keeps the activations of as many layers as it can.
void keep(Device &device, const BaseModel &base, const Task &task, MemoryPlan &plan) {
    uint32_t least = 0, most = base.shape().layers;
    while (least < most) {
        const uint32_t middle = (least + most + 1) / 2;
        MemoryChoice choice = plan.choice;
        choice.kept_layers = middle;
        MemoryPlan more = dry_run(device, base, task, choice, plan.budget);
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

Budget find_budget(const Device &device, const MemoryOptions &options) {
    const qlora_context_info info = device.context().query();
    Budget budget;
    budget.one_memory = device.is_host();
    const bool known = !budget.one_memory && info.memory_free_bytes > 0;
    const uint64_t in_use = known ? info.memory_bytes - std::min(info.memory_bytes, info.memory_free_bytes) : 0;
    if (!budget.one_memory) budget.overhead = (known && in_use <= 2 * usual_driver ? in_use : usual_context) + late_kernels;
    if (!options.memory.empty()) {
        budget.limit = parse_bytes("--memory", options.memory);
        budget.source = "--memory " + options.memory;
        const bool plain = options.memory.find_first_not_of("0123456789") == std::string::npos;
        if (budget.limit == 0) fail("--memory ", options.memory, ": expected more than nothing; leave it out for all that is free");
        if (plain && budget.limit < 512) fail("--memory ", options.memory, " is ", budget.limit, " bytes; for GiB write ", options.memory, "G");
        if (budget.limit <= budget.overhead)
            fail("--memory ", options.memory, ": driver and context alone take ", readable_bytes(budget.overhead), "; give more");
        if (known && budget.arena() > info.memory_free_bytes)
            fail("--memory ", options.memory, ": of ", device.name(), "'s ", readable_bytes(info.memory_bytes), " only ",
                 readable_bytes(info.memory_free_bytes), " are free; give at most ",
                 (info.memory_free_bytes + budget.overhead) >> 20, "M");
    } else if (known) {
        budget.limit = info.memory_free_bytes + budget.overhead - late_kernels;
        budget.source = "free on the device";
    }
    const uint64_t free_memory = free_host_memory();
    if (budget.one_memory && free_memory > 0 && budget.limit > free_memory)
        fail("--memory ", options.memory, ": only ", readable_bytes(free_memory), " are free on this machine");
    if (!options.host_memory.empty()) {
        budget.host_limit = parse_bytes("--host-memory", options.host_memory);
        budget.host_source = "--host-memory " + options.host_memory;
    } else {
        budget.host_limit = free_memory / 8 * 7;
        budget.host_source = "seven eighths of what is free";
    }
    return budget;
}

MemoryPlan make_plan(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                     const Budget &budget) {
    const std::vector<Step> steps = steps_of(task, options);
    std::vector<bool> taken(steps.size(), false);
    const MemoryPlan start = dry_run(device, base, task, options.start(), budget);
    MemoryPlan plan = start;
    for (size_t i = 0; i < steps.size() && !plan.fits(); ++i) {
        if (!steps[i].allowed) continue;
        MemoryPlan next = with_step(device, base, task, plan, steps[i]);
        taken[i] = next.bytes() < plan.bytes();
        if (taken[i]) plan = std::move(next);
    }
    if (!plan.fits() && !options.streamed_layers) stream(device, base, task, plan);
    // A later step may have saved so much that an earlier one, or a part of it, need not be; the dearest goes first.
    const bool roomy = plan.fits() && budget.limit != 0, streams = plan.choice.streamed_layers > 0 && !options.streamed_layers;
    for (size_t i = steps.size(); roomy && i-- > 0 && !streams;) {
        if (!taken[i]) continue;
        taken[i] = false;
        MemoryPlan other = start;
        for (size_t k = 0; k < steps.size(); ++k)
            if (taken[k]) other = with_step(device, base, task, other, steps[k]);
        if (other.fits()) plan = std::move(other);
        else taken[i] = true;
    }
    if (!plan.fits_host() && !options.file_layers) spill(device, base, task, plan);
    if (roomy && !options.chunk_rows && task.context == 0) widen_chunk(device, base, task, plan);
    if (roomy && !streams && task.training && options.checkpointing && !options.kept_layers) keep(device, base, task, plan);
    return plan;
}

std::unique_ptr<Machine> carry_out(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                                   const MemoryPlan &plan) {
    if (!plan.fits() || !plan.fits_host()) reject_plan(device, base, task, options, plan);
    dry_run(device, base, task, plan.choice, plan.budget);
    try {
        device.commit();
        return std::make_unique<Machine>(device, base, task, plan.choice);
    } catch (const qlora::Error &error) {
        if (error.status() != QLORA_ERROR_MEMORY) throw;
        reject_plan(device, base, task, options, plan, error.what());
    }
}

Largest find_largest(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                     const MemoryPlan &plan, uint64_t longest) {
    MemoryChoice as_planned = plan.choice;
    as_planned.kept_layers = options.kept_layers.value_or(0); // what room is left for is no need
    MemoryChoice all = as_planned;
    uint64_t bytes = bounded_bytes(device, base, task, all, plan.budget);
    const auto take_if_less = [&](const MemoryChoice &choice) {
        const uint64_t less = bounded_bytes(device, base, task, choice, plan.budget);
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
            if (bounded_bytes(device, base, probe, choice, plan.budget) <= plan.budget.arena()) least = middle;
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

} // namespace finetune
