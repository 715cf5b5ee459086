// Greedy generation for several prompts at once, with earlier keys and values kept.
#pragma once

#include "block.h"

namespace finetune {

class Generator {
public:
    // Takes memory for `count` prompts of at most `longest_prompt` tokens and `most_new` tokens after each.
    Generator(Device &device, const Model &model, const Trainable &adapter, const Precision &precision, uint32_t count,
              uint32_t longest_prompt, uint32_t most_new);

    uint32_t count() const { return count_; }

    // The most likely continuation of each prompt (at most `count` of them), up to and without `end_token`.
    std::vector<std::vector<int32_t>> generate(const std::vector<std::vector<int32_t>> &prompts, int32_t end_token);

private:
    void take_spans();
    void prefill(Pass &pass, const std::vector<int32_t> &sequences, uint32_t count);
    void decode(Pass &pass, uint32_t step, uint32_t count);
    std::vector<int32_t> choose(uint32_t count);
    // Row longest_prompt + step of every prompt's part of a cache, as one matrix with a long stride.
    qlora_tensor cache_rows(qlora_span cache, uint64_t width, uint32_t step, uint32_t count) const;
    qlora_tensor whole_cache(qlora_span cache, uint64_t width) const;
    void keep(qlora_span cache, qlora_span made, uint64_t width, const std::vector<int32_t> &sequences);
    Pass make_pass(uint64_t tokens, uint32_t count, uint32_t most_q_rows, uint32_t most_k_rows);

    Device &device_;
    const Model &model_;
    const Trainable &adapter_;
    Precision precision_;
    uint32_t count_, longest_prompt_, most_new_;
    Arena arena_;
    BlockSpace space_;
    qlora_span hidden_[2], ids_, positions_, sequences_, rows_, last_rows_;
    LogitsSpace logits_;
    std::vector<qlora_span> keys_, values_; // of each layer: [prompt][longest_prompt + most_new][width]
    std::vector<float> host_logits_;
};

} // namespace finetune
