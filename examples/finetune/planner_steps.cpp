#include "planner_steps.h"

#include "format_choice.h"

#include <algorithm>

namespace finetune {
namespace {

const uint64_t small_logits = uint64_t(8) << 20; // bytes of a chunk of logits when memory is short

uint64_t smaller_chunk(uint64_t vocabulary) { return std::max<uint64_t>(16, small_logits / (4 * vocabulary) / 16 * 16); }

} // namespace

std::vector<Step> steps_of(const Task &task, const MemoryOptions &options) {
    const bool trains = task.training, speaks = task.context > 0;
    const auto shorter = [&](uint32_t context) { return speaks && !options.context && task.least_context <= context; };
    return {
        {"batches are enqueued call by call, none is recorded", "--graph off", trains && !options.graphs,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.graphs = false; }},
        {"rows of the embedding stay in host memory", "--embedding host", !options.host_embedding,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.host_embedding = true; }},
        {"activations are computed again in the backward pass", "without --no-checkpoint", false,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.checkpointing = true; }},
        {"evaluations take fewer tokens at a time", "--eval-tokens 512", !options.eval_tokens && !speaks,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.eval_tokens = std::min<uint64_t>(choice.eval_tokens, 512); }},
        {"prompts are read in smaller parts", "--prompt-tokens 64", speaks && !options.prompt_tokens,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.prompt_tokens = std::min<uint64_t>(choice.prompt_tokens, 64); }},
        {"logits exist for fewer tokens at a time", "--logits-rows 64", !options.chunk_rows && !speaks,
         [](MemoryChoice &choice, const Task &, uint64_t vocabulary) { choice.chunk_rows = uint32_t(smaller_chunk(vocabulary)); }},
        {"most of the optimizer's state streams from host memory", "--optimizer-memory 16M", trains && !options.optimizer_bytes,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.optimizer_bytes = uint64_t(16) << 20; }},
        {"inputs of the layers wait in host memory for the backward pass", "--offload on", trains && !options.offload,
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.offload = choice.checkpointing; }},
        {"the context is 2048 tokens", "--context 2048", shorter(2048),
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.context = std::min(choice.context, 2048u); }},
        {"the context is 1024 tokens", "--context 1024", shorter(1024),
         [](MemoryChoice &choice, const Task &, uint64_t) { choice.context = std::min(choice.context, 1024u); }},
        {"the head is quantized to nf4", "--quant-head nf4", !options.head,
         [](MemoryChoice &choice, const Task &, uint64_t) {
             choice.head_format = QLORA_FORMAT_NF4;
             choice.host_embedding = true; // where both were one matrix
         }},
    };
}

MemoryPlan dry_run(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice, const Budget &budget) {
    device.plan();
    const Machine machine(device, base, task, choice);
    MemoryPlan plan;
    plan.choice = choice;
    plan.budget = budget;
    plan.tally = device.tally();
    plan.device_bytes = device.planned_bytes();
    plan.scratch_bytes = device.scratch_bytes();
    plan.host_bytes = device.planned_host_bytes();
    plan.mapped_bytes = machine.model.mapped_bytes();
    plan.file_bytes = machine.model.file_bytes();
    plan.from_file = machine.model.streams_from_file();
    plan.layers = base.shape().layers;
    plan.context = std::min(task.context, choice.context);
    return plan;
}

std::optional<MemoryPlan> possible_run(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice, const Budget &budget) {
    try {
        return dry_run(device, base, task, choice, budget);
    } catch (const qlora::Error &) { return {}; } // a window of the optimizer that holds no pages
}

uint64_t bounded_bytes(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice, const Budget &budget) {
    const std::optional<MemoryPlan> plan = possible_run(device, base, task, choice, budget);
    return plan ? plan->bytes() : UINT64_MAX;
}

uint64_t planned_bytes(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice) {
    return bounded_bytes(device, base, task, choice, {});
}

MemoryChoice MemoryOptions::start() const {
    MemoryChoice choice;
    choice.checkpointing = checkpointing;
    choice.host_embedding = host_embedding.value_or(false);
    choice.offload = offload.value_or(false);
    choice.graphs = graphs.value_or(true);
    choice.chunk_rows = chunk_rows.value_or(0);
    choice.streamed_layers = streamed_layers.value_or(0);
    choice.kept_layers = kept_layers.value_or(0);
    choice.file_layers = file_layers.value_or(0);
    choice.eval_tokens = eval_tokens.value_or(choice.eval_tokens);
    choice.prompt_tokens = prompt_tokens.value_or(choice.prompt_tokens);
    choice.context = context.value_or(choice.context);
    choice.optimizer_bytes = optimizer_bytes.value_or(0);
    if (head && *head != "none") choice.head_format = named_format(*head, "--quant-head");
    return choice;
}

} // namespace finetune
