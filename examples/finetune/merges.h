// The byte-pair step that SentencePiece and byte-level tokenizers share: adjacent symbols merge, the lowest rank first
// and the leftmost among equals, until no pair of neighbours may merge.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace finetune {

struct Symbol {
    int32_t id; // negative: merges with nothing
    uint32_t bytes;
};

class Merges {
public:
    // Words of more symbols are cut to this length, which bounds the time of a symbol whatever the text is.
    static constexpr size_t longest_word = 4096;

    void reserve(size_t pairs);
    // Ids and rank are not negative. Of several merges of the same pair the first counts.
    void add(int32_t left, int32_t right, int32_t rank, int32_t product);
    bool has(int32_t left, int32_t right) const { return find(left, right).rank != none; }

    // Merges the symbols of a word in place.
    void apply(std::vector<Symbol> &word) const;

private:
    static constexpr int32_t none = INT32_MAX;
    struct Merge {
        int32_t rank, product;
    };
    struct Slot {
        uint64_t pair;
        Merge merge;
    };

    Merge find(int32_t left, int32_t right) const;
    size_t place(uint64_t pair) const;
    void grow(size_t slots);
    size_t apply_short(Symbol *word, size_t count) const;
    size_t apply_long(Symbol *word, size_t count) const;

    std::vector<Slot> slots_; // a power of two of them
    size_t count_ = 0;
};

} // namespace finetune
