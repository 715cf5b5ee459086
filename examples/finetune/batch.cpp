#include "batch.h"

#include <algorithm>

namespace finetune {

void Batch::add(const int32_t *tokens, size_t count, size_t first_target,
                const std::vector<std::pair<size_t, size_t>> &given) {
    auto next_given = given.begin();
    // The last token predicts nothing that counts, so it need not be computed at all.
    const size_t rows = count - 1;
    const int32_t first = static_cast<int32_t>(ids.size());
    for (int32_t repeat = 0; repeat < 2; ++repeat) {
        sequences.push_back(first);
        sequences.push_back(static_cast<int32_t>(rows));
    }
    longest = std::max(longest, static_cast<uint32_t>(rows));
    for (size_t i = 0; i < rows; ++i) {
        ids.push_back(tokens[i]);
        positions.push_back(static_cast<int32_t>(i));
        while (next_given != given.end() && first_target + next_given->second <= i + 1) ++next_given;
        const bool is_given = next_given != given.end() && first_target + next_given->first <= i + 1;
        const bool counts = i + 1 >= first_target && !is_given;
        loss_index.push_back(counts ? static_cast<int32_t>(targets.size()) : -1);
        if (!counts) continue;
        loss_rows.push_back(first + static_cast<int32_t>(i));
        targets.push_back(tokens[i + 1]);
    }
}

void Batch::add(const Row &row) {
    std::vector<int32_t> tokens = row.prompt;
    tokens.insert(tokens.end(), row.answer.begin(), row.answer.end());
    add(tokens.data(), tokens.size(), row.prompt.size(), row.given);
    for (const Row &other : row.packed) add(other);
}

void BatchBounds::include(const Batch &batch) {
    include(BatchBounds{batch.tokens(), batch.losses(), batch.count(), batch.longest});
}

void BatchBounds::include(const BatchBounds &other) {
    tokens = std::max(tokens, other.tokens);
    losses = std::max(losses, other.losses);
    count = std::max(count, other.count);
    longest = std::max(longest, other.longest);
}

} // namespace finetune
