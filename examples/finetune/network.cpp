#include "network.h"

#include <algorithm>

namespace finetune {

Network::Network(Device &device, const Model &model, const Trainable &adapter, const Options &options,
                 const BatchBounds &bounds)
    : device_(device), model_(model), adapter_(adapter), options_(options), bounds_(bounds) {
    if (options_.offload && (!options_.training || !options_.checkpointing)) options_.offload = false;
    options_.kept_layers = std::min(options_.kept_layers, model.shape().layers);
    take_spans();
    arena_.commit(device_);
    take_spans();
    if (options_.offload)
        host_hidden_ = device_.take(uint64_t(model_.shape().layers) * bounds_.tokens * model_.shape().embedding * type_bytes(options_.precision.activations), true);
    host_losses_.resize(bounds_.losses);
    // The largest batch that may come, asked through the same code that will run.
    uint64_t operations = 0;
    device_.measure([&] {
        const uint64_t before = device_.asked();
        Pass pass = {device_,    model_,     adapter_,      options_.precision, bounds_.tokens,
                     positions_, sequences_, bounds_.count, bounds_.longest,    bounds_.longest};
        if (options_.training) pass.dropout = dropout_;
        forward(pass, options_.training);
        loss(pass, bounds_.losses, 1, options_.training);
        if (!options_.training) return;
        loss_grad(pass, bounds_.losses);
        backward(pass, false);
        operations = device_.asked() - before;
        backward(pass, true);
    });
    // Weights and activations that stream keep the bus busy, beside which launches take no time; masks of dropout change in every step.
    if (options_.training && !options_.offload && !model_.streams() && dropout_.probability == 0)
        graphs_ = StepGraphs(device_, options_.recorded, operations);
}

void Network::take_spans() {
    const ModelShape &shape = model_.shape();
    const int32_t type = options_.precision.activations;
    const uint64_t width = uint64_t(shape.embedding) * type_bytes(type), tokens = bounds_.tokens,
                   losses = bounds_.losses;
    const bool all = options_.training && !options_.offload;
    hidden_.clear();
    spaces_.clear();
    arena_.section("checkpoints");
    for (uint32_t i = 0; i < (all ? shape.layers : std::min(shape.layers, 2u)); ++i) hidden_.push_back(arena_.take(tokens * width));
    last_hidden_ = dhidden_ = arena_.take(tokens * width);
    const uint32_t kept = !options_.training ? 0 : options_.checkpointing ? options_.kept_layers : shape.layers;
    arena_.section("recompute space");
    spaces_.resize(1); // also of evaluations; where all is kept, of those alone, in the first layer's place
    if (kept < shape.layers) spaces_[0] = take_block_space(arena_, shape, adapter_.rank(), type, tokens);
    arena_.section("kept activations");
    for (uint32_t i = 0; i < kept; ++i) spaces_.push_back(take_block_space(arena_, shape, adapter_.rank(), type, tokens));
    if (kept == shape.layers) spaces_[0] = spaces_[1];
    arena_.section("batch");
    ids_ = arena_.take(tokens * 4);
    positions_ = arena_.take(tokens * 4);
    sequences_ = arena_.take(uint64_t(bounds_.count) * 16);
    loss_rows_ = arena_.take(losses * 4);
    targets_ = arena_.take(losses * 4);
    if (options_.training) loss_index_ = arena_.take(tokens * 4);
    const qlora_span &last = options_.training ? loss_index_ : targets_;
    batch_ = {ids_.handle, ids_.offset, last.offset + last.size - ids_.offset};
    dropout_.probability = options_.training ? options_.dropout : 0;
    if (dropout_.probability > 0) {
        uint64_t widest = 0;
        for (const AdapterLinear &linear : adapter_.shape().linears) widest = std::max(widest, linear.inputs);
        dropout_.input = arena_.take(tokens * widest * type_bytes(type));
        for (qlora_span *span : {&dropout_.first, &dropout_.second, &dropout_.third})
            *span = arena_.take(tokens * adapter_.rank() * type_bytes(type));
    }
    losses_ = arena_.take(losses * 4);
    // The loss is done before the blocks' gradients begin.
    const uint64_t shared = arena_.mark();
    arena_.section("loss and gradients of blocks");
    picked_ = arena_.take(losses * width);
    picked_normed_ = arena_.take(losses * width);
    picked_rstd_ = arena_.take(losses * 4);
    if (!options_.training) return;
    dpicked_normed_ = arena_.take(losses * width);
    dpicked_ = arena_.take((losses + 1) * width); // and a row of zeros, for tokens that no loss follows
    const uint64_t end = arena_.mark();
    arena_.rewind(shared);
    arena_.section("");
    gradients_ = take_gradient_space(arena_, shape, type, tokens);
    arena_.rewind(std::max(end, arena_.mark()));
}

void Network::check_bounds(const Batch &batch) const {
    if (batch.tokens() > bounds_.tokens || batch.losses() > bounds_.losses || batch.count() > bounds_.count ||
        batch.longest > bounds_.longest)
        fail("internal: a batch of ", batch.tokens(), " tokens is larger than what was planned for");
}

Pass Network::upload(const Batch &batch) {
    check_bounds(batch);
    const auto put = [&](const qlora_span &place, const std::vector<int32_t> &values) {
        std::copy(values.begin(), values.end(), host_batch_.begin() + long((place.offset - batch_.offset) / 4));
    };
    host_batch_.resize(batch_.size / 4);
    put(ids_, batch.ids);
    put(positions_, batch.positions);
    put(sequences_, batch.sequences);
    put(loss_rows_, batch.loss_rows);
    put(targets_, batch.targets);
    if (options_.training) {
        std::vector<int32_t> index = batch.loss_index;
        for (int32_t &place : index)
            if (place < 0) place = static_cast<int32_t>(batch.losses());
        put(loss_index_, index);
    }
    device_.write(batch_, host_batch_.data(), batch_.size);
    Pass pass = {device_,    model_,     adapter_,      options_.precision, batch.tokens(),
                 positions_, sequences_, batch.count(), batch.longest,      batch.longest};
    pass.host_ids = batch.ids.data();
    place_rows(pass, hidden(0));
    return pass;
}

void Network::forward(Pass &pass, bool training) {
    const ModelShape &shape = model_.shape();
    embed(pass, ids_, hidden(0));
    const uint64_t bytes = pass.tokens * shape.embedding * type_bytes(options_.precision.activations);
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
        model_.bring(device_, layer, true);
        if (training && options_.offload) {
            device_.join(true); // the place that the block's output takes has left
            device_.copy_beside(host_hidden(layer), hidden(layer), bytes, true);
        }
        forward_block(pass, layer, training ? space_of(layer) : spaces_[0], hidden(layer), hidden(layer + 1));
    }
}

qlora_span Network::host_hidden(uint32_t layer) const {
    const uint64_t bytes = host_hidden_.size() / model_.shape().layers;
    return host_hidden_.span(layer * bytes, bytes);
}

void Network::loss(Pass &pass, uint64_t losses, float grad_scale, bool training) {
    const uint64_t cols = model_.shape().embedding;
    const int32_t type = options_.precision.activations;
    gather_rows(pass, hidden(model_.shape().layers), pass.tokens, loss_rows_, picked_, losses);
    const qlora_tensor normed = qlora::tensor(type, losses, cols, picked_normed_);
    forward_norm(pass, qlora::tensor(type, losses, cols, picked_), model_.output_norm(), normed, picked_rstd_);
    auto args = qlora::make<qlora_cross_entropy_args>();
    args.weight = model_.head().get();
    args.x = normed;
    if (training) args.dx = qlora::tensor(type, losses, cols, dpicked_normed_);
    args.targets = targets_;
    args.losses = losses_;
    args.bias = model_.head_bias();
    args.soft_cap = model_.shape().logit_cap;
    args.grad_scale = grad_scale;
    args.chunk_rows = options_.chunk_rows;
    args.compute_type = options_.precision.compute;
    device_.run(QLORA_OP_CROSS_ENTROPY, qlora_cross_entropy_loss, args);
}

// From the loss back to the last block's output.
void Network::loss_grad(Pass &pass, uint64_t losses) {
    const uint64_t cols = model_.shape().embedding;
    const int32_t type = options_.precision.activations;
    const uint64_t row_bytes = cols * type_bytes(type);
    const auto matrix = [&](qlora_span span) { return qlora::tensor(type, losses, cols, span); };
    backward_norm(pass, matrix(picked_), model_.output_norm(), matrix(dpicked_normed_), matrix(dpicked_), picked_rstd_);
    device_.fill_zero(part(dpicked_, losses * row_bytes, row_bytes), row_bytes);
    gather_rows(pass, dpicked_, losses + 1, loss_index_, dhidden_, pass.tokens);
}

void Network::backward(Pass &pass, bool accumulate) {
    const uint32_t layers = model_.shape().layers;
    const uint64_t bytes = pass.tokens * model_.shape().embedding * type_bytes(options_.precision.activations);
    if (options_.offload) device_.join(true);
    for (uint32_t layer = layers; layer-- > 0;) {
        // One join for both: what is sent after it has this block's time to arrive.
        if (options_.offload && layer + 1 < layers) device_.join();
        model_.bring(device_, layer, false);
        if (options_.offload && layer > 0 && layer + 1 < layers)
            device_.copy_beside(hidden(layer - 1), host_hidden(layer - 1), bytes);
        BlockSpace space = space_of(layer);
        if (!keeps(layer)) forward_block_again(pass, layer, space, hidden(layer));
        backward_block(pass, layer, space, gradients_, hidden(layer), dhidden_, accumulate);
    }
}

double Network::read_loss() {
    device_.read(losses_, host_losses_.data(), last_losses_ * 4);
    double sum = 0;
    for (uint64_t i = 0; i < last_losses_; ++i) sum += double(host_losses_[i]);
    return sum;
}

double Network::evaluate(const Batch &batch) {
    Pass pass = upload(batch);
    forward(pass, false);
    loss(pass, batch.losses(), 1, false);
    last_losses_ = batch.losses();
    return read_loss();
}

void Network::train(const Batch &batch, float grad_scale, bool accumulate, uint64_t seed) {
    Pass pass = upload(batch);
    pass.dropout = dropout_;
    pass.dropout.seed = seed;
    graphs_.run({batch.tokens(), batch.losses(), batch.count(), batch.longest, accumulate}, grad_scale, [&] {
        forward(pass, true);
        loss(pass, batch.losses(), grad_scale, true);
        loss_grad(pass, batch.losses());
        backward(pass, accumulate);
    });
    last_losses_ = batch.losses();
}

} // namespace finetune
