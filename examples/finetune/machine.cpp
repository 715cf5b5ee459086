#include "machine.h"

#include "evaluate.h"

namespace finetune {
namespace {

ModelChoice model_choice(const Task &task, const MemoryChoice &choice) {
    ModelChoice model = task.model;
    model.head_format = choice.head_format;
    model.host_embedding = choice.host_embedding;
    model.streamed_layers = choice.streamed_layers;
    model.file_layers = choice.file_layers;
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

Trainable make_trainable(Device &device, const Task &task, size_t adapter) {
    if (adapter > 0) return Trainable(device, task.others[adapter - 1]->shape, task.others[adapter - 1]->values, false);
    if (task.initial != nullptr) return Trainable(device, task.adapter_shape, *task.initial, task.training);
    return Trainable(device, task.adapter_shape, unfilled(task), task.training);
}

} // namespace

Machine::Machine(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice)
    : model(device, base, model_choice(task, choice)), device_(device), task_(task), choice_(choice), turns_(device),
      trainable(make_trainable(device, task, 0)) {
    if (task.integers) model.compute_in_integers(device, usual_threshold);
    build();
    for (size_t other = 1; device.planning() && other <= task.others.size(); ++other) take_up(other);
    turns_.end();
}

void Machine::take_up(size_t adapter) {
    network.reset();
    generator.reset();
    decoder.reset();
    turns_.next();
    trainable = make_trainable(device_, task_, adapter);
    build();
}

void Machine::build() {
    BatchBounds bounds = task_.training_bounds;
    if (task_.evaluation_bounds) bounds.include(task_.evaluation_bounds(std::max(choice_.eval_tokens, bounds.tokens)));
    Device::Turns turns(device_); // no answer is made while a batch is computed
    if (bounds.tokens > 0) {
        Network::Options options;
        options.precision = task_.precision;
        options.checkpointing = choice_.checkpointing;
        options.kept_layers = choice_.kept_layers;
        options.training = task_.training;
        options.offload = choice_.offload;
        options.chunk_rows = choice_.chunk_rows;
        options.dropout = task_.options.dropout;
        if (choice_.graphs) options.recorded = task_.common_shapes;
        network = std::make_unique<Network>(device_, model, trainable, options, bounds);
    }
    if (task_.answers > 0) {
        turns.next();
        generator = std::make_unique<Generator>(answer_generator(device_, model, trainable, task_.precision, *task_.answer_rows,
                                                                 task_.answers, choice_.eval_tokens));
    }
    if (task_.context > 0) {
        turns.next();
        decoder = std::make_unique<Decoder>(device_, model, trainable, task_.precision, std::min(task_.context, choice_.context),
                                            uint32_t(choice_.prompt_tokens));
    }
    turns.end();
    if (task_.training && network) {
        TrainOptions options = task_.options;
        options.optimizer_bytes = choice_.optimizer_bytes;
        trainer = std::make_unique<Trainer>(device_, *network, trainable, options);
    }
}

} // namespace finetune
