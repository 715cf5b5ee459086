// A model with its adapter, ready to train: all device memory for batches up to given bounds planned and taken at
// construction, then nothing but enqueued operations.
#pragma once

#include "batch.h"
#include "block.h"
#include "step_graphs.h"

namespace finetune {

class Network {
public:
    struct Options {
        Precision precision;
        bool checkpointing = true; // keep each block's input only, and compute the rest again in the backward pass
        bool training = true;
        bool offload = false;    // with checkpointing: the kept inputs lie in host memory
        uint32_t chunk_rows = 0; // tokens whose logits exist at a time; 0: chosen by the device
        uint32_t kept_layers = 0; // with checkpointing: of which all is kept nevertheless
        float dropout = 0;       // of the adapters' inputs, while training
        std::vector<BatchShape> recorded = {}; // of batches that are trained from a graph, where the device records; not with dropout or offload
    };
    Network(Device &device, const Model &model, const Trainable &adapter, const Options &options,
            const BatchBounds &bounds);

    // The sum of the batch's losses. Waits for the device.
    double evaluate(const Batch &batch);

    // Forward and backward: gradients of grad_scale * sum(losses), overwriting the parameters' gradients or adding to
    // them. Does not wait; the losses are kept until read_loss(). seed: of the dropout's masks.
    void train(const Batch &batch, float grad_scale, bool accumulate, uint64_t seed = 0);
    // The sum of the losses of the last batch trained. Waits for the device.
    double read_loss();

    const StepGraphs &graphs() const { return graphs_; }
    uint64_t bytes() const { return arena_.bytes(); }
    const BatchBounds &bounds() const { return bounds_; }

private:
    void take_spans();
    void check_bounds(const Batch &batch) const;
    Pass upload(const Batch &batch);
    void forward(Pass &pass, bool training);
    void loss(Pass &pass, uint64_t losses, float grad_scale, bool training);
    void loss_grad(Pass &pass, uint64_t losses);
    void backward(Pass &pass, bool accumulate);
    bool keeps(uint32_t layer) const { return !options_.checkpointing || layer < options_.kept_layers; }
    // The first space is that of layers that are computed again.
    const BlockSpace &space_of(uint32_t layer) const { return spaces_[keeps(layer) ? layer + 1 : 0]; }
    // The last block's output has a place of its own, which the gradient of the hidden states takes over.
    qlora_span hidden(uint32_t layer) const { return layer == model_.shape().layers ? last_hidden_ : hidden_[layer % hidden_.size()]; }
    qlora_span host_hidden(uint32_t layer) const;

    Device &device_;
    const Model &model_;
    const Trainable &adapter_;
    Options options_;
    BatchBounds bounds_;
    Arena arena_;
    std::vector<qlora_span> hidden_; // inputs of blocks: all of them, or two in turn
    qlora_span last_hidden_;
    Memory host_hidden_; // offloaded inputs of blocks
    std::vector<BlockSpace> spaces_;
    GradientSpace gradients_;
    Dropout dropout_;
    qlora_span ids_, positions_, sequences_, loss_rows_, targets_, loss_index_;
    qlora_span batch_; // all of these, which travel at once
    std::vector<int32_t> host_batch_;
    qlora_span picked_, picked_normed_, picked_rstd_, losses_, dpicked_normed_, dpicked_, dhidden_;
    StepGraphs graphs_;
    std::vector<float> host_losses_;
    uint64_t last_losses_ = 0;
};

} // namespace finetune
