#include "network.h"

namespace finetune {

Network::Network(Device &device, const Model &model, const Trainable &adapter, const Options &options,
                 const BatchBounds &bounds)
    : device_(device), model_(model), adapter_(adapter), options_(options), bounds_(bounds) {
    take_spans();
    arena_.commit(device_);
    take_spans();
    host_losses_.resize(bounds_.losses);
    // The largest batch that may come, asked through the same code that will run.
    device_.measure([&] {
        Pass pass = {device_,    model_,     adapter_,      options_.precision, bounds_.tokens,
                     positions_, sequences_, bounds_.count, bounds_.longest,    bounds_.longest};
        forward(pass, options_.training);
        loss(pass, bounds_.losses, 1, options_.training);
        if (!options_.training) return;
        loss_grad(pass, bounds_.losses);
        backward(pass, false);
        backward(pass, true);
    });
}

void Network::take_spans() {
    const ModelShape &shape = model_.shape();
    const int32_t type = options_.precision.activations;
    const uint64_t width = uint64_t(shape.embedding) * type_bytes(type), tokens = bounds_.tokens,
                   losses = bounds_.losses;
    hidden_.clear();
    spaces_.clear();
    const uint32_t kept = options_.training ? shape.layers + 1 : 2;
    for (uint32_t i = 0; i < kept; ++i) hidden_.push_back(arena_.take(tokens * width));
    const uint32_t spaces = options_.training && !options_.checkpointing ? shape.layers : 1;
    for (uint32_t i = 0; i < spaces; ++i)
        spaces_.push_back(take_block_space(arena_, shape, adapter_.rank(), type, tokens));
    ids_ = arena_.take(tokens * 4);
    positions_ = arena_.take(tokens * 4);
    sequences_ = arena_.take(uint64_t(bounds_.count) * 16);
    loss_rows_ = arena_.take(losses * 4);
    targets_ = arena_.take(losses * 4);
    picked_ = arena_.take(losses * width);
    picked_normed_ = arena_.take(losses * width);
    picked_rstd_ = arena_.take(losses * 4);
    losses_ = arena_.take(losses * 4);
    if (!options_.training) return;
    loss_index_ = arena_.take(tokens * 4);
    dpicked_normed_ = arena_.take(losses * width);
    dpicked_ = arena_.take((losses + 1) * width); // and a row of zeros, for tokens that no loss follows
    dhidden_ = arena_.take(tokens * width);
    gradients_ = take_gradient_space(arena_, shape, type, tokens);
}

void Network::check_bounds(const Batch &batch) const {
    if (batch.tokens() > bounds_.tokens || batch.losses() > bounds_.losses || batch.count() > bounds_.count ||
        batch.longest > bounds_.longest)
        fail("internal: a batch of ", batch.tokens(), " tokens is larger than what was planned for");
}

Pass Network::upload(const Batch &batch) {
    check_bounds(batch);
    device_.write(ids_, batch.ids.data(), batch.tokens() * 4);
    device_.write(positions_, batch.positions.data(), batch.tokens() * 4);
    device_.write(sequences_, batch.sequences.data(), uint64_t(batch.count()) * 16);
    device_.write(loss_rows_, batch.loss_rows.data(), batch.losses() * 4);
    device_.write(targets_, batch.targets.data(), batch.losses() * 4);
    return {device_,    model_,     adapter_,      options_.precision, batch.tokens(),
            positions_, sequences_, batch.count(), batch.longest,      batch.longest};
}

void Network::forward(Pass &pass, bool training) {
    const ModelShape &shape = model_.shape();
    embed(pass, ids_, hidden(0));
    for (uint32_t layer = 0; layer < shape.layers; ++layer)
        forward_block(pass, layer, training ? space_of(layer) : spaces_[0], hidden(layer), hidden(layer + 1));
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
    for (uint32_t layer = model_.shape().layers; layer-- > 0;) {
        BlockSpace space = space_of(layer);
        if (options_.checkpointing) forward_block_again(pass, layer, space, hidden(layer));
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

void Network::train(const Batch &batch, float grad_scale, bool accumulate) {
    Pass pass = upload(batch);
    std::vector<int32_t> index = batch.loss_index;
    for (int32_t &place : index)
        if (place < 0) place = static_cast<int32_t>(batch.losses());
    device_.write(loss_index_, index.data(), index.size() * 4);
    forward(pass, true);
    loss(pass, batch.losses(), grad_scale, true);
    loss_grad(pass, batch.losses());
    backward(pass, accumulate);
    last_losses_ = batch.losses();
}

} // namespace finetune
