// What a model is worth: answer loss over held-out rows, perplexity over windows of a long text.
#pragma once

#include "generate.h"
#include "network.h"
#include "tokenizer.h"

namespace finetune {

// Rows packed in file order into batches of at most `tokens` tokens (at least one row each).
std::vector<Batch> pack_rows(const std::vector<Row> &rows, uint64_t tokens);
// Windows of `window` tokens without overlap, the last partial one dropped; every token but a window's first counts.
std::vector<Batch> pack_windows(const std::vector<int32_t> &ids, uint32_t window, uint64_t tokens);

// What the largest of some batches needs.
BatchBounds bounds_of(const std::vector<Batch> &batches);

// The mean loss of a token over all batches.
double mean_loss(Network &network, const std::vector<Batch> &batches);

// A generator for the first `count` rows, of which it answers so many at once that their prompts have about `tokens` tokens, at
// most 32; and its answers to them.
Generator answer_generator(Device &device, const Model &model, const Trainable &adapter, const Precision &precision,
                           const std::vector<Row> &rows, uint32_t count, uint64_t tokens);
std::vector<std::vector<int32_t>> answer_rows(Generator &generator, const std::vector<Row> &rows, uint32_t count,
                                              int32_t end_token);
// Whether an answer is the row's, as ids or, with a tokenizer, as text.
bool is_right(const Row &row, const std::vector<int32_t> &answer, const Tokenizer *tokenizer, int32_t end_token);

} // namespace finetune
