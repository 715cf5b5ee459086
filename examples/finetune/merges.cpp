#include "merges.h"

#include <algorithm>
#include <functional>

namespace finetune {
namespace {

const uint64_t empty = UINT64_MAX;
const int32_t gone = INT32_MIN;
const size_t short_word = 32; // symbols up to which looking at every pair beats a heap

uint64_t pair_of(int32_t left, int32_t right) { return uint64_t(uint32_t(left)) << 32 | uint32_t(right); }

} // namespace

size_t Merges::place(uint64_t pair) const {
    const size_t mask = slots_.size() - 1;
    size_t at = (pair * 0x9e3779b97f4a7c15) >> 20 & mask;
    while (slots_[at].pair != empty && slots_[at].pair != pair) at = (at + 1) & mask;
    return at;
}

void Merges::grow(size_t slots) {
    std::vector<Slot> old(slots, {empty, {none, -1}});
    old.swap(slots_);
    for (const Slot &slot : old)
        if (slot.pair != empty) slots_[place(slot.pair)] = slot;
}

void Merges::reserve(size_t pairs) {
    size_t slots = 16;
    while (slots < 2 * pairs) slots *= 2;
    if (slots > slots_.size()) grow(slots);
}

void Merges::add(int32_t left, int32_t right, int32_t rank, int32_t product) {
    reserve(count_ + 1);
    Slot &slot = slots_[place(pair_of(left, right))];
    if (slot.pair != empty) return;
    slot = {pair_of(left, right), {rank, product}};
    ++count_;
}

Merges::Merge Merges::find(int32_t left, int32_t right) const {
    if ((left | right) < 0 || slots_.empty()) return {none, -1};
    return slots_[place(pair_of(left, right))].merge;
}

void Merges::apply(std::vector<Symbol> &word) const {
    size_t kept = 0;
    for (size_t first = 0; first < word.size(); first += longest_word) {
        Symbol *part = word.data() + first;
        size_t count = std::min(word.size() - first, longest_word);
        count = count <= short_word ? apply_short(part, count) : apply_long(part, count);
        std::copy(part, part + count, word.data() + kept);
        kept += count;
    }
    word.resize(kept);
}

size_t Merges::apply_short(Symbol *word, size_t count) const {
    Merge merges[short_word]; // of each symbol with its right neighbour
    for (size_t i = 0; i + 1 < count; ++i) merges[i] = find(word[i].id, word[i + 1].id);
    while (count > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < count; ++i)
            if (merges[i].rank < merges[best].rank) best = i;
        if (merges[best].rank == none) break;
        word[best] = {merges[best].product, word[best].bytes + word[best + 1].bytes};
        --count;
        std::copy(word + best + 2, word + count + 1, word + best + 1);
        if (best + 1 < count) {
            std::copy(merges + best + 2, merges + count, merges + best + 1);
            merges[best] = find(word[best].id, word[best + 1].id);
        }
        if (best > 0) merges[best - 1] = find(word[best - 1].id, word[best].id);
    }
    return count;
}

size_t Merges::apply_long(Symbol *word, size_t count) const {
    static_assert(longest_word < UINT16_MAX, "places are 16-bit");
    const uint16_t end = UINT16_MAX;
    uint16_t before[longest_word], after[longest_word];
    Merge merges[longest_word]; // of each symbol with the one after it, as things are
    // Rank, then place: the least is next. One whose rank is no longer that of its place is out of date. The first ones
    // are sorted; those that merging brings wait in a heap, which is sorted as a whole when only it is left.
    std::vector<uint64_t> sorted, heap;
    sorted.reserve(count);
    const auto propose = [&](size_t left, size_t right) {
        merges[left] = find(word[left].id, word[right].id);
        if (merges[left].rank != none) heap.push_back(uint64_t(merges[left].rank) << 32 | left);
        return merges[left].rank != none;
    };
    for (size_t i = 0; i < count; ++i) {
        before[i] = i == 0 ? end : static_cast<uint16_t>(i - 1);
        after[i] = i + 1 == count ? end : static_cast<uint16_t>(i + 1);
        if (i + 1 < count) propose(i, i + 1);
        else merges[i].rank = none;
    }
    const std::greater<uint64_t> later;
    for (size_t at = 0; at < sorted.size() || !heap.empty();) {
        if (at == sorted.size()) {
            sorted.swap(heap);
            heap.clear();
            std::sort(sorted.begin(), sorted.end());
            at = 0;
        }
        uint64_t next = sorted[at];
        if (!heap.empty() && heap[0] < next) {
            next = heap[0];
            std::pop_heap(heap.begin(), heap.end(), later);
            heap.pop_back();
        } else {
            ++at;
        }
        const size_t left = next & UINT32_MAX;
        if (merges[left].rank != static_cast<int32_t>(next >> 32)) continue;
        const size_t right = after[left];
        word[left] = {merges[left].product, word[left].bytes + word[right].bytes};
        word[right].id = gone;
        merges[right].rank = none;
        after[left] = after[right];
        if (after[left] != end) {
            before[after[left]] = static_cast<uint16_t>(left);
            if (propose(left, after[left])) std::push_heap(heap.begin(), heap.end(), later);
        } else {
            merges[left].rank = none;
        }
        if (before[left] != end && propose(before[left], left)) std::push_heap(heap.begin(), heap.end(), later);
    }
    size_t kept = 0;
    for (size_t i = 0; i < count; ++i)
        if (word[i].id != gone) word[kept++] = word[i];
    return kept;
}

} // namespace finetune
