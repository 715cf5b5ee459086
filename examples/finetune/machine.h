// Everything of a run that takes memory, made in one go, so that it can be made for a plan first.
#pragma once

#include "decoder.h"
#include "generate.h"
#include "train.h"

#include <functional>

namespace finetune {

// An adapter that is used as it is.
struct TunedAdapter {
    AdapterShape shape;
    Adapter values;
};

// What a run computes, whatever memory there is.
struct Task {
    ModelChoice model; // of the linear layers
    bool integers = false;
    AdapterShape adapter_shape;
    const Adapter *initial = nullptr; // null while planning without one
    float alpha = 16;
    std::vector<const TunedAdapter *> others; // that take its place later
    Precision precision;
    bool training = true;
    BatchBounds training_bounds;
    std::vector<BatchShape> common_shapes; // that are recorded if the device can and there is room
    TrainOptions options;
    // What evaluations of about so many tokens at a time need.
    std::function<BatchBounds(uint64_t tokens)> evaluation_bounds;
    const std::vector<Row> *answer_rows = nullptr; // of which the first `answers` are answered
    uint32_t answers = 0;
    uint32_t context = 0, least_context = 0; // tokens of a text that is spoken, and of which it can do with; 0: none is
};

// What can be done about memory without another task.
struct MemoryChoice {
    bool checkpointing = true, host_embedding = false, offload = false, graphs = true;
    uint32_t chunk_rows = 0;
    uint64_t eval_tokens = 4096, prompt_tokens = 256; // at a time
    uint64_t optimizer_bytes = 0;
    int32_t head_format = 0;
    uint32_t streamed_layers = 0, file_layers = 0, kept_layers = 0;
    uint32_t context = UINT32_MAX; // the task's, but no more than this
};

const uint32_t usual_context = 4096; // of what is spoken, where the model has as much

struct Machine {
    Machine(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice);
    // The first adapter of the task is in its place then; this puts another there, by its number among them.
    void take_up(size_t adapter);

    Model model;

private:
    Device &device_;
    const Task task_;
    const MemoryChoice choice_;
    Device::Turns turns_; // of adapters and what is made with them

    void build();

public:
    Trainable trainable;
    std::unique_ptr<Network> network;     // null: there is nothing to compute
    std::unique_ptr<Trainer> trainer;     // null: there is nothing to train
    std::unique_ptr<Generator> generator; // null: there are no answers
    std::unique_ptr<Decoder> decoder;     // null: nothing is spoken
};

} // namespace finetune
