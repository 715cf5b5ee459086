// Many strings, found where they begin in a text: the longest of them, or every one.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace finetune {

class Trie {
public:
    Trie() = default;

    // Strings with an id that is not negative; the first id of a string counts, an empty string never matches.
    explicit Trie(std::vector<std::pair<std::string_view, int32_t>> strings) {
        std::stable_sort(strings.begin(), strings.end(), [](auto &a, auto &b) { return a.first < b.first; });
        strings.erase(std::unique(strings.begin(), strings.end(), [](auto &a, auto &b) { return a.first == b.first; }),
                      strings.end());
        if (!strings.empty() && strings[0].first.empty()) strings.erase(strings.begin());
        // Breadth first, so that the children of a node lie side by side, in the order of their bytes.
        struct Range {
            size_t begin, end, depth;
        };
        std::vector<Range> ranges = {{0, strings.size(), 0}};
        nodes_.push_back({0, 0, 0, -1});
        for (size_t node = 0; node < ranges.size(); ++node) {
            const Range range = ranges[node];
            nodes_[node].first = static_cast<uint32_t>(ranges.size());
            for (size_t i = range.begin; i < range.end;) {
                const char byte = strings[i].first[range.depth];
                size_t end = i + 1;
                while (end < range.end && strings[end].first[range.depth] == byte) ++end;
                const bool whole = strings[i].first.size() == range.depth + 1;
                nodes_.push_back({0, 0, static_cast<unsigned char>(byte), whole ? strings[i].second : -1});
                ranges.push_back({i + whole, end, range.depth + 1});
                ++nodes_[node].count;
                i = end;
            }
        }
        for (uint32_t i = 0; i < nodes_[0].count; ++i) roots_[nodes_[nodes_[0].first + i].byte] = nodes_[0].first + i;
    }

    bool empty() const { return nodes_.size() < 2; }

    // Calls found(bytes, id) for every string that begins at `at`, shortest first.
    template <class Found> void each(std::string_view text, size_t at, const Found &found) const {
        uint32_t node = at < text.size() ? roots_[static_cast<unsigned char>(text[at])] : 0;
        for (size_t i = at + 1; node != 0; ++i) {
            if (nodes_[node].id >= 0) found(i - at, nodes_[node].id);
            if (i == text.size()) return;
            node = child(node, static_cast<unsigned char>(text[i]));
        }
    }

    // Bytes of the longest one, and its id; 0 when there is none.
    size_t longest(std::string_view text, size_t at, int32_t *id) const {
        size_t most = 0;
        each(text, at, [&](size_t bytes, int32_t found) {
            most = bytes;
            *id = found;
        });
        return most;
    }

private:
    struct Node {
        uint32_t first, count; // children
        unsigned char byte;
        int32_t id;
    };

    uint32_t child(uint32_t node, unsigned char byte) const { // 0: none, as the root is nobody's child
        uint32_t begin = nodes_[node].first, count = nodes_[node].count;
        while (count > 4) {
            const uint32_t half = count / 2;
            if (nodes_[begin + half].byte <= byte) {
                begin += half;
                count -= half;
            } else {
                count = half;
            }
        }
        for (uint32_t i = begin; i < begin + count; ++i)
            if (nodes_[i].byte == byte) return i;
        return 0;
    }

    std::vector<Node> nodes_;
    uint32_t roots_[256] = {};
};

} // namespace finetune
