#include "unicode.h"

#include "utf8.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <unordered_map>
#include <vector>

namespace finetune {
namespace {

struct Decomposition {
    uint32_t code, first, second;
    bool excluded = false;
};
struct CombiningRange {
    uint32_t first, last;
    uint8_t combining;
};

#include "unicode_tables.inc"

// Hangul syllables are made of a lead, a vowel and perhaps a tail.
const uint32_t syllables = 0xac00, leads = 0x1100, vowels = 0x1161, tails = 0x11a7;
const uint32_t lead_count = 19, vowel_count = 21, tail_count = 28, syllable_count = lead_count * vowel_count * tail_count;

struct Tables {
    std::unordered_map<uint32_t, const Decomposition *> by_code;
    std::unordered_map<uint64_t, uint32_t> pairs;
    std::vector<bool> changes; // characters of the tables' range that composition may change, with what is before them

    Tables() : changes(0x30000, false) {
        for (const Decomposition &one : decompositions) {
            by_code.emplace(one.code, &one);
            if (one.second != 0 && !one.excluded) {
                pairs.emplace(uint64_t(one.first) << 32 | one.second, one.code);
                changes[one.second] = true;
            } else {
                changes[one.code] = true;
            }
        }
        for (const CombiningRange &range : combining_ranges)
            for (uint32_t code = range.first; code <= range.last; ++code) changes[code] = true;
        for (uint32_t code = vowels; code < tails + tail_count; ++code) changes[code] = true;
    }
    bool may_change(uint32_t code) const { return code < changes.size() && changes[code]; }
};

const Tables &tables() {
    static const Tables made;
    return made;
}

uint8_t combining_class(uint32_t code) {
    const auto next = std::upper_bound(std::begin(combining_ranges), std::end(combining_ranges), code,
                                       [](uint32_t value, const CombiningRange &range) { return value < range.first; });
    return next != std::begin(combining_ranges) && code <= std::prev(next)->last ? std::prev(next)->combining : 0;
}

void decompose(uint32_t code, std::vector<uint32_t> &out) {
    if (code >= syllables && code < syllables + syllable_count) {
        const uint32_t index = code - syllables;
        out.push_back(leads + index / (vowel_count * tail_count));
        out.push_back(vowels + index / tail_count % vowel_count);
        if (index % tail_count != 0) out.push_back(tails + index % tail_count);
        return;
    }
    const auto found = tables().by_code.find(code);
    if (found == tables().by_code.end()) return out.push_back(code);
    decompose(found->second->first, out);
    if (found->second->second != 0) decompose(found->second->second, out);
}

// The character that two make; 0: none.
uint32_t pair_of(uint32_t first, uint32_t second) {
    if (first >= leads && first < leads + lead_count && second >= vowels && second < vowels + vowel_count)
        return syllables + ((first - leads) * vowel_count + second - vowels) * tail_count;
    if (first >= syllables && first < syllables + syllable_count && (first - syllables) % tail_count == 0 && second > tails &&
        second < tails + tail_count)
        return first + second - tails;
    const auto found = tables().pairs.find(uint64_t(first) << 32 | second);
    return found == tables().pairs.end() ? 0 : found->second;
}

// A starter and what combines with it, in canonical order, put together.
void compose(std::vector<uint32_t> &codes, std::string &out) {
    for (size_t first = 0; first < codes.size();) { // runs of marks by their classes
        size_t end = first;
        while (end < codes.size() && combining_class(codes[end]) != 0) ++end;
        std::stable_sort(codes.begin() + long(first), codes.begin() + long(end),
                         [](uint32_t a, uint32_t b) { return combining_class(a) < combining_class(b); });
        first = end + (end == first);
    }
    size_t starter = SIZE_MAX;
    std::vector<uint32_t> kept;
    uint8_t last = 0; // class of the last kept character behind the starter
    for (uint32_t code : codes) {
        const uint8_t own = combining_class(code);
        const bool adjacent = starter != SIZE_MAX && starter + 1 == kept.size();
        const bool open = starter != SIZE_MAX && (adjacent || (last != 0 && last < own));
        const uint32_t both = open ? pair_of(kept[starter], code) : 0;
        if (both != 0) {
            kept[starter] = both;
            continue;
        }
        if (own == 0) starter = kept.size();
        last = own;
        kept.push_back(code);
    }
    for (uint32_t code : kept) append_character(out, code);
    codes.clear();
}

} // namespace

std::string composed(std::string_view text) {
    bool stays = true;
    for (size_t i = 0; i < text.size() && stays;) {
        uint32_t code = 0;
        i += std::max<size_t>(read_character(text, i, &code), 1);
        stays = code < 0x300 || !tables().may_change(code);
    }
    if (stays) return std::string(text);
    std::string out;
    std::vector<uint32_t> codes;
    for (size_t i = 0; i < text.size();) {
        uint32_t code = 0;
        const size_t bytes = read_character(text, i, &code);
        if (bytes == 0) {
            compose(codes, out);
            out += text[i++];
            continue;
        }
        // Nothing combines across a character that cannot be changed.
        if (!codes.empty() && !tables().may_change(code) && combining_class(code) == 0) compose(codes, out);
        decompose(code, codes);
        i += bytes;
    }
    compose(codes, out);
    return out;
}

} // namespace finetune
