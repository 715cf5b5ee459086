// What a model is worth: answer loss over held-out rows, perplexity over windows of a long text.
#pragma once

#include "network.h"

namespace finetune {

// Rows packed in file order into batches of at most `tokens` tokens (at least one row each).
std::vector<Batch> pack_rows(const std::vector<Row> &rows, uint64_t tokens);
// Windows of `window` tokens without overlap, the last partial one dropped; every token but a window's first counts.
std::vector<Batch> pack_windows(const std::vector<int32_t> &ids, uint32_t window, uint64_t tokens);

// The mean loss of a token over all batches.
double mean_loss(Network &network, const std::vector<Batch> &batches);

} // namespace finetune
