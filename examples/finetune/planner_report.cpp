#include "planner_steps.h"
#include "report.h"

#include <algorithm>
#include <cstdio>

namespace finetune {
namespace {

std::string bound_of(const MemoryPlan &plan) {
    if (plan.budget.limit != 0) return "   of " + readable_bytes(plan.budget.limit) + ", " + plan.budget.source;
    const bool over = plan.budget.one_memory && plan.budget.host_limit != 0 && plan.bytes() > plan.budget.host_limit;
    return over ? "   more than is free: " + readable_bytes(plan.budget.host_limit) + ", " + plan.budget.host_source : "";
}

std::string host_bound_of(const MemoryPlan &plan) {
    if (plan.budget.one_memory || plan.budget.host_limit == 0) return "";
    return "   of " + readable_bytes(plan.budget.host_limit) + ", " + plan.budget.host_source;
}

// The device has room, the host has not.
[[noreturn]] void reject_host(const Task &task, const MemoryOptions &options, const MemoryPlan &plan) {
    std::string helps;
    const auto add = [&](bool when, const std::string &what) {
        if (when) helps += (helps.empty() ? "" : ", ") + what;
    };
    const bool streams = plan.choice.streamed_layers > 0;
    add(streams && plan.from_file && plan.choice.file_layers < plan.choice.streamed_layers,
        "--file-layers " + std::to_string(plan.choice.streamed_layers) + " (reads weights from their file each time)");
    add(streams && !plan.from_file, "a base that is quantized already, whose layers can be read from its file each time");
    add(streams && !options.memory.empty(), "more --memory, with which fewer layers stream");
    add(task.training && plan.choice.offload && options.offload, "--offload off");
    add(task.training && plan.choice.optimizer_bytes > 0 && options.optimizer_bytes, "--optimizer-memory 0");
    fail("out of host memory: ", readable_bytes(plan.host_bytes), " are needed beside the device, ", readable_bytes(plan.budget.host_limit),
         " are there (", plan.budget.host_source, "); ", helps.empty() ? std::string("a smaller model would help") : "what would help: " + helps);
}

} // namespace

void reject_plan(Device &device, const BaseModel &base, const Task &task, const MemoryOptions &options,
                 const MemoryPlan &plan, const std::string &failure) {
    if (plan.fits() && failure.empty()) reject_host(task, options, plan);
    std::vector<Saving> helps;
    const auto consider = [&](const std::string &flag, const Task &other, const MemoryChoice &choice) {
        if (helps.size() == 3) return;
        try {
            const uint64_t bytes = bounded_bytes(device, base, other, choice, plan.budget);
            if (bytes < plan.bytes()) helps.push_back({"", flag, plan.bytes() - bytes});
        } catch (const Error &) {
            // no choice for this model or device
        }
    };
    for (const Step &step : steps_of(task, options)) {
        MemoryChoice choice = plan.choice;
        step.apply(choice, task, base.shape().vocabulary);
        if (task.context == 0 || choice.context >= task.least_context) consider(step.flag, task, choice);
    }
    const uint64_t least = task.evaluation_bounds ? task.evaluation_bounds(1).tokens : UINT64_MAX; // the longest row or window
    if (least < plan.choice.eval_tokens) {
        MemoryChoice choice = plan.choice;
        choice.eval_tokens = least;
        consider("--eval-tokens " + std::to_string(least), task, choice);
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
    if (plan.context / 2 >= std::max(2u, task.least_context)) {
        MemoryChoice choice = plan.choice;
        choice.context = plan.context / 2;
        consider("--context " + std::to_string(choice.context), task, choice);
    }
    if (task.training && task.options.batch > 1) {
        Task other = task;
        for (uint64_t *value : {&other.training_bounds.tokens, &other.training_bounds.losses}) *value = (*value + 1) / 2;
        consider("--batch " + std::to_string(task.options.batch / 2) + " --accumulate " + std::to_string(2 * task.options.accumulate), other, plan.choice);
    }
    if (task.training && task.adapter_shape.rank > 1) {
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
    const uint64_t missing = plan.bytes() - std::min(plan.bytes(), plan.budget.arena());
    bool enough = !failure.empty();
    std::string text, done;
    for (const Saving &saving : helps) enough = enough || saving.bytes >= missing;
    for (const Saving &saving : plan.savings) done += (done.empty() ? "" : ", ") + saving.flag;
    for (const Saving &saving : helps) text += (text.empty() ? "" : ", ") + saving.flag + " (saves " + readable_bytes(saving.bytes) + ")";
    fail("out of memory: ", readable_bytes(plan.bytes() + plan.budget.overhead), " are needed, ",
         failure.empty() ? readable_bytes(plan.budget.limit) + " are there (" + plan.budget.source + ")" : failure, "; ",
         text.empty() ? std::string("a smaller model would help") : "what would help: " + text, enough || text.empty() ? "" : ", none of it enough alone",
         done.empty() ? "" : "; the plan has already " + done);
}

void print_plan(const MemoryPlan &plan, const Model &model) {
    const auto line = [](const std::string &name, uint64_t bytes, const std::string &more = "") {
        printf("    %-38s %12s%s\n", name.c_str(), readable_bytes(bytes).c_str(), more.c_str());
    };
    printf("  memory\n");
    if (plan.mapped_bytes > 0) line("weights in the mapped file, not counted", plan.mapped_bytes, "   linear layers " + model.linear_format());
    uint64_t shown = 0;
    for (const auto &[name, bytes] : plan.tally) {
        std::string more;
        if (name == "weights" && plan.mapped_bytes == 0) more = "   linear layers " + model.linear_format();
        if (name == "head" || name == "embedding and head") more = "   " + model.head_format();
        if (bytes > 0) line(name, bytes, more);
        shown += bytes;
    }
    line("scratch, with the logits of a chunk", plan.scratch_bytes);
    shown += plan.scratch_bytes;
    if (shown < plan.device_bytes) line("loading, gradients that need more", plan.device_bytes - shown);
    if (plan.budget.overhead > 0) line("driver and context", plan.budget.overhead);
    line("on the device", plan.device_bytes + plan.budget.overhead, plan.budget.one_memory && plan.host_bytes > 0 ? "" : bound_of(plan));
    if (plan.host_bytes > 0) line("in host memory", plan.host_bytes, host_bound_of(plan));
    if (plan.budget.one_memory && plan.host_bytes > 0) line("in all", plan.bytes(), bound_of(plan));
    if (plan.file_bytes > 0) line("read from the file in each pass", plan.file_bytes);
    if (model.requantized() > 0) printf("    %u linear layers are decoded and quantized anew\n", model.requantized());
    if (plan.choice.checkpointing && plan.choice.kept_layers > 0)
        printf("    activations of %u of %u layers are kept, the others' computed again\n", plan.choice.kept_layers, plan.layers);
    for (const Saving &saving : plan.savings)
        printf("    %s: saves %s\n", saving.what.c_str(), readable_bytes(saving.bytes).c_str());
}

std::string brief_plan(const MemoryPlan &plan) {
    std::string text = "memory       " + readable_bytes(plan.bytes() + plan.budget.overhead);
    const std::string bound = bound_of(plan);
    if (!bound.empty()) text += bound.substr(2);
    text += ":";
    std::vector<std::pair<uint64_t, std::string>> parts = {{plan.scratch_bytes, "scratch"}, {plan.budget.overhead, "driver and context"}};
    for (const auto &[name, bytes] : plan.tally) parts.emplace_back(bytes, name);
    if (plan.budget.one_memory) parts.emplace_back(plan.host_bytes, "copies of what streams");
    std::stable_sort(parts.begin(), parts.end(), [](const auto &a, const auto &b) { return a.first > b.first; });
    const size_t most = 5; // the rest is small
    for (size_t i = 0; i < std::min(most, parts.size()); ++i)
        if (parts[i].first > 0) text += (i == 0 ? " " : ", ") + parts[i].second + " " + readable_bytes(parts[i].first);
    if (plan.mapped_bytes > 0) text += "; not counted: " + readable_bytes(plan.mapped_bytes) + " of weights in the mapped file";
    if (plan.host_bytes > 0 && !plan.budget.one_memory) text += "; in host memory " + readable_bytes(plan.host_bytes);
    if (plan.file_bytes > 0) text += "; from the file in each pass " + readable_bytes(plan.file_bytes);
    for (const Saving &saving : plan.savings) text += "\n  " + saving.what + ": saves " + readable_bytes(saving.bytes);
    return text + "\n";
}

} // namespace finetune
