// Rows packed one after the other, without padding, as the library's packed attention takes them, and the place of
// every loss: the hidden state before each answer token predicts it.
#pragma once

#include "data.h"

namespace finetune {

struct Batch {
    std::vector<int32_t> ids, positions;
    std::vector<int32_t> sequences;  // [count][4]: first row, rows, first row, rows
    std::vector<int32_t> loss_rows;  // rows of `ids` whose next token counts
    std::vector<int32_t> targets;    // that token, for each of loss_rows
    std::vector<int32_t> loss_index; // for each row of `ids`: its place in loss_rows, or -1
    uint32_t longest = 0;

    uint64_t tokens() const { return ids.size(); }
    uint64_t losses() const { return targets.size(); }
    uint32_t count() const { return static_cast<uint32_t>(sequences.size() / 4); }

    // Appends a sequence in which the tokens from `first_target` on are predicted, but for those that are given:
    // [first, end), counted from first_target, rising.
    void add(const int32_t *tokens, size_t count, size_t first_target,
             const std::vector<std::pair<size_t, size_t>> &given = {});
    void add(const Row &row); // and the rows packed with it, each as a sequence of its own
};

// Upper bounds of the batches of a run, for planning memory.
struct BatchBounds {
    uint64_t tokens = 0, losses = 0;
    uint32_t count = 0, longest = 0;

    void include(const Batch &batch);
    void include(const BatchBounds &other);
};

// All that decides what work a batch is, but for its contents.
struct BatchShape {
    uint64_t tokens = 0, losses = 0;
    uint32_t count = 0, longest = 0;
    bool accumulate = false; // its gradients are added to those of batches before

    bool operator==(const BatchShape &o) const {
        return tokens == o.tokens && losses == o.losses && count == o.count && longest == o.longest && accumulate == o.accumulate;
    }
};

} // namespace finetune
