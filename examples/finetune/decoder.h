// One sequence, token after token: keys and values stay on the device, and the logits after the last token come back.
#pragma once

#include "block.h"

namespace finetune {

class Decoder {
public:
    // Takes memory for `context` tokens, computed at most `chunk` at a time.
    Decoder(Device &device, const Model &model, const Trainable &adapter, const Precision &precision, uint32_t context,
            uint32_t chunk);

    uint32_t context() const { return context_; }
    const std::vector<int32_t> &tokens() const { return tokens_; }
    uint64_t bytes() const { return arena_.bytes(); }

    // Makes `tokens` the sequence and returns the logits after its last: what begins as the sequence so far is not
    // computed again. At least one and at most context() tokens.
    const std::vector<float> &set(const std::vector<int32_t> &tokens);
    const std::vector<float> &append(int32_t token);

private:
    void take_spans();
    Pass make_pass(uint32_t tokens, uint32_t most_k_rows);
    void compute(uint32_t first, uint32_t tokens);
    void forward(Pass &pass, uint32_t first);
    const std::vector<float> &read_logits();

    Device &device_;
    const Model &model_;
    const Trainable &adapter_;
    Precision precision_;
    uint32_t context_, chunk_;
    Arena arena_;
    BlockSpace space_;
    qlora_span hidden_[2], ids_, positions_, sequences_, rows_;
    LogitsSpace logits_;
    std::vector<qlora_span> keys_, values_; // of each layer: [context][width]
    std::vector<int32_t> tokens_;
    std::vector<float> host_logits_;
};

} // namespace finetune
