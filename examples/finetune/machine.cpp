#include "machine.h"

#include "evaluate.h"

namespace finetune {
namespace {

ModelChoice model_choice(const Task &task, const MemoryChoice &choice) {
    ModelChoice model = task.model;
    model.head_format = choice.head_format;
    model.host_embedding = choice.host_embedding;
    model.streamed_layers = choice.streamed_layers;
    return model;
}

// Sizes without values, for a plan.
Adapter unfilled(const Task &task) {
    Adapter adapter;
    adapter.alpha = task.alpha;
    for (size_t i = 0; i < task.adapter_shape.pairs(); ++i)
        adapter.pairs.push_back({task.adapter_shape.linear(i).inputs, task.adapter_shape.linear(i).outputs, {}, {}});
    return adapter;
}

Trainable make_trainable(Device &device, const Task &task) {
    if (task.initial != nullptr) return Trainable(device, task.adapter_shape, *task.initial);
    return Trainable(device, task.adapter_shape, unfilled(task));
}

} // namespace

Machine::Machine(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice)
    : model(device, base, model_choice(task, choice)),
      trainable(make_trainable(device, task)) {
    if (task.integers) model.compute_in_integers(device, usual_threshold);
    BatchBounds bounds = task.training_bounds;
    if (task.evaluation_bounds) bounds.include(task.evaluation_bounds(std::max(choice.eval_tokens, bounds.tokens)));
    if (bounds.tokens > 0) {
        Network::Options options;
        options.precision = task.precision;
        options.checkpointing = choice.checkpointing;
        options.kept_layers = choice.kept_layers;
        options.training = task.training;
        options.offload = choice.offload;
        options.chunk_rows = choice.chunk_rows;
        options.dropout = task.options.dropout;
        if (choice.graphs) options.recorded = task.common_shapes;
        network = std::make_unique<Network>(device, model, trainable, options, bounds);
    }
    if (task.training && network) {
        TrainOptions options = task.options;
        options.optimizer_bytes = choice.optimizer_bytes;
        trainer = std::make_unique<Trainer>(device, *network, trainable, options);
    }
    if (task.answers > 0)
        generator = std::make_unique<Generator>(
            answer_generator(device, model, trainable, task.precision.compute, *task.answer_rows, task.answers));
}

} // namespace finetune
