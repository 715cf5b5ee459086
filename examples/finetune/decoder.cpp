#include "decoder.h"

#include <algorithm>
#include <numeric>

namespace finetune {

Decoder::Decoder(Device &device, const Model &model, const Trainable &adapter, const Precision &precision, uint32_t context,
                 uint32_t chunk)
    : device_(device), model_(model), adapter_(adapter), precision_(precision), context_(context),
      chunk_(std::min(chunk, context)) {
    take_spans();
    arena_.commit(device_);
    take_spans();
    host_logits_.resize(model_.shape().vocabulary);
    device_.measure([&] {
        for (uint32_t tokens : {chunk_, 1u}) {
            Pass pass = make_pass(tokens, context_);
            forward(pass, context_ - tokens);
        }
    });
}

void Decoder::take_spans() {
    const ModelShape &shape = model_.shape();
    const uint64_t bytes = type_bytes(precision_.activations), width = shape.embedding * bytes, cached = context_ * bytes;
    arena_.section("tokens at a time");
    space_ = take_block_space(arena_, shape, adapter_.rank(), precision_.activations, chunk_);
    for (qlora_span &hidden : hidden_) hidden = arena_.take(chunk_ * width);
    ids_ = arena_.take(uint64_t(chunk_) * 4);
    positions_ = arena_.take(uint64_t(chunk_) * 4);
    sequences_ = arena_.take(16);
    rows_ = arena_.take(uint64_t(chunk_) * 4);
    logits_ = take_logits_space(arena_, shape, 1);
    arena_.section("keys and values");
    keys_.clear();
    values_.clear();
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
        keys_.push_back(arena_.take(cached * key_width(shape)));
        values_.push_back(arena_.take(cached * value_width(shape)));
    }
}

Pass Decoder::make_pass(uint32_t tokens, uint32_t most_k_rows) {
    Pass pass = {device_, model_, adapter_, precision_, tokens, positions_, sequences_, 1, tokens, most_k_rows};
    pass.reach = context_;
    return pass;
}

void Decoder::forward(Pass &pass, uint32_t first) {
    const ModelShape &shape = model_.shape();
    const uint64_t wide = key_width(shape), narrow = value_width(shape);
    const auto rows = [&](qlora_span cache, uint64_t width, uint64_t start, uint64_t count) {
        if (width == 0) return qlora_tensor{};
        const uint64_t bytes = type_bytes(precision_.activations);
        return qlora::tensor(precision_.activations, count, width, part(cache, start * width * bytes, count * width * bytes));
    };
    embed(pass, ids_, hidden_[0]);
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
        model_.bring(device_, layer, true);
        const KeyValueCache cache = {rows(keys_[layer], wide, first, pass.tokens), rows(values_[layer], narrow, first, pass.tokens),
                                     rows(keys_[layer], wide, 0, context_), rows(values_[layer], narrow, 0, context_), rows_};
        forward_block(pass, layer, space_, hidden_[layer % 2], hidden_[(layer + 1) % 2], &cache);
    }
    const uint64_t row = shape.embedding * type_bytes(precision_.activations);
    const qlora_span last = part(hidden_[shape.layers % 2], (pass.tokens - 1) * row, row);
    forward_logits(pass, last, 1, rows_, 1, logits_); // the first of rows_ is 0
}

// Tokens [first, first + tokens) of the sequence, those before them being there.
void Decoder::compute(uint32_t first, uint32_t tokens) {
    std::vector<int32_t> positions(tokens);
    for (uint32_t i = 0; i < tokens; ++i) positions[i] = static_cast<int32_t>(first + i);
    const int32_t sequence[4] = {0, static_cast<int32_t>(tokens), 0, static_cast<int32_t>(first + tokens)};
    device_.write(ids_, &tokens_[first], uint64_t(tokens) * 4);
    device_.write(positions_, positions.data(), uint64_t(tokens) * 4);
    device_.write(sequences_, sequence, sizeof(sequence));
    Pass pass = make_pass(tokens, first + tokens);
    pass.host_ids = &tokens_[first];
    forward(pass, first);
}

const std::vector<float> &Decoder::set(const std::vector<int32_t> &tokens) {
    if (tokens.empty() || tokens.size() > context_)
        fail("internal: a sequence of ", tokens.size(), " tokens, but memory for ", context_);
    const size_t most = std::min(tokens.size() - 1, tokens_.size());
    size_t kept = 0;
    while (kept < most && tokens[kept] == tokens_[kept]) ++kept;
    tokens_ = tokens;
    std::vector<int32_t> rows(chunk_);
    std::iota(rows.begin(), rows.end(), 0);
    device_.write(rows_, rows.data(), rows.size() * 4);
    for (uint32_t first = uint32_t(kept); first < tokens_.size(); first += chunk_)
        compute(first, std::min(chunk_, uint32_t(tokens_.size()) - first));
    return read_logits();
}

const std::vector<float> &Decoder::read_logits() {
    device_.read(logits_.logits, host_logits_.data(), host_logits_.size() * 4);
    cap_logits(model_.shape(), host_logits_);
    return host_logits_;
}

const std::vector<float> &Decoder::append(int32_t token) {
    if (tokens_.size() >= context_) fail("internal: the context of ", context_, " tokens is full");
    tokens_.push_back(token);
    compute(uint32_t(tokens_.size() - 1), 1);
    return read_logits();
}

} // namespace finetune
