#include "data.h"

#include "data_rows.h"
#include "rng.h"

#include <algorithm>
#include <cmath>

namespace finetune {
namespace {

const char *const learned_begins = "\xe2\x9f\xa6", *const learned_ends = "\xe2\x9f\xa7"; // U+27E6, U+27E7
const uint64_t split_stream = uint64_t(3) << 32;                                         // of random numbers

// The tokens of a row's part as text, control tokens spelled out; a long part loses its middle.
std::string spelled(const std::vector<int32_t> &ids, size_t begin, size_t end, const Tokenizer &tokenizer,
                    size_t most_bytes) {
    std::string text;
    std::vector<int32_t> plain;
    const auto flush = [&] {
        text += tokenizer.decode(plain);
        plain.clear();
    };
    for (size_t i = begin; i < end; ++i) {
        if (!tokenizer.is_control(ids[i])) {
            plain.push_back(ids[i]);
            continue;
        }
        flush();
        text += tokenizer.piece(ids[i]);
    }
    flush();
    if (text.size() <= most_bytes) return text;
    const auto at_character = [&](size_t at) {
        while (at > 0 && (text[at] & 0xc0) == 0x80) --at;
        return at;
    };
    return text.substr(0, at_character(most_bytes / 2)) + " ... " +
           text.substr(at_character(text.size() - most_bytes / 2));
}

} // namespace

void Row::truncate(size_t most_tokens) {
    if (tokens() <= most_tokens) return;
    answer.resize(most_tokens - std::min(most_tokens, prompt.size()));
    while (!given.empty() && given.back().first >= answer.size()) given.pop_back();
    if (!given.empty()) given.back().second = std::min(given.back().second, answer.size());
}

void Dataset::count() {
    answer_tokens = tokens = longest = 0;
    for (const Row &row : rows) {
        const auto add_one = [&](const Row &one) {
            tokens += one.tokens();
            answer_tokens += one.losses();
            longest = std::max<uint64_t>(longest, one.tokens());
        };
        add_one(row);
        for (const Row &other : row.packed) add_one(other);
    }
}

void add_row(Dataset &data, Row row, const DataLimits &limits, const std::string &where) {
    if (row.tokens() > limits.sequence) {
        if (limits.too_long == TooLong::error)
            fail(where, ": the row has ", row.tokens(), " tokens, more than --sequence ", limits.sequence,
                 "; raise it, or choose --too-long drop or --too-long truncate");
        if (limits.too_long == TooLong::truncate) row.truncate(limits.sequence);
        if (row.tokens() > limits.sequence || row.losses() == 0) {
            ++data.dropped;
            return;
        }
        ++data.truncated;
    }
    data.rows.push_back(std::move(row));
}

void check_not_empty(Dataset &data) {
    data.count();
    if (!data.rows.empty()) return;
    if (data.broken > 0)
        fail(data.source, ": every row is broken and was dropped; ", data.broken_why.empty() ? "" : data.broken_why[0]);
    if (data.dropped > 0) fail(data.source, ": every row is longer than --sequence and was dropped; raise it");
    fail(data.source, ": holds no rows; expected at least one");
}

Dataset split_off(Dataset &data, double fraction, uint64_t seed) {
    const size_t rows = data.rows.size();
    if (rows < 2) fail(data.source, ": one row cannot be split into training and held-out rows; give --eval-data");
    const size_t count = std::clamp<size_t>(size_t(std::llround(fraction * double(rows))), 1, rows - 1);
    std::vector<size_t> order(rows);
    for (size_t i = 0; i < rows; ++i) order[i] = i;
    Random(seed, split_stream).shuffle(order);
    std::vector<bool> taken(rows);
    for (size_t i = 0; i < count; ++i) taken[order[i]] = true;
    Dataset held;
    held.source = data.source;
    held.chat_template = data.chat_template;
    std::vector<Row> kept;
    for (size_t i = 0; i < rows; ++i) (taken[i] ? held.rows : kept).push_back(std::move(data.rows[i]));
    data.rows = std::move(kept);
    data.count();
    held.count();
    return held;
}

void pack(Dataset &data, uint64_t tokens) {
    std::vector<Row> rows = std::move(data.rows);
    std::stable_sort(rows.begin(), rows.end(), [](const Row &a, const Row &b) { return a.tokens() > b.tokens(); });
    data.rows.clear();
    // Into the fullest of those with room, by the room that they have left. The last token of a row is not computed.
    std::multimap<uint64_t, size_t> room;
    for (Row &row : rows) {
        const uint64_t size = row.tokens() - 1;
        const auto found = room.lower_bound(size);
        if (found == room.end()) {
            room.emplace(tokens > size ? tokens - size : 0, data.rows.size());
            data.rows.push_back(std::move(row));
            continue;
        }
        const auto [left, at] = *found;
        room.erase(found);
        room.emplace(left - size, at);
        data.rows[at].packed.push_back(std::move(row));
    }
}

std::string describe(const Dataset &data) {
    std::ostringstream out;
    bool first = true;
    for (const auto &[form, count] : data.forms) {
        out << (first ? "" : ", ") << count << (count == 1 ? " row of " : " rows of ") << form;
        first = false;
    }
    if (first) out << data.rows.size() << " rows";
    if (!data.chat_template.empty()) out << " through the template " << data.chat_template;
    if (data.dropped + data.truncated > 0)
        out << "; too long: " << data.dropped << " dropped, " << data.truncated << " truncated";
    if (data.broken > 0) {
        out << "; " << data.broken << " dropped: ";
        for (size_t i = 0; i < data.broken_why.size(); ++i) out << (i > 0 ? "; " : "") << data.broken_why[i];
        if (data.broken > data.broken_why.size()) out << "; and " << data.broken - data.broken_why.size() << " more";
    }
    return out.str();
}

std::string describe_lengths(const Dataset &data) {
    std::vector<size_t> lengths;
    for (const Row &row : data.rows) {
        lengths.push_back(row.tokens());
        for (const Row &other : row.packed) lengths.push_back(other.tokens());
    }
    std::sort(lengths.begin(), lengths.end());
    std::ostringstream out;
    if (lengths.empty()) return "no rows";
    const size_t p95 = (lengths.size() * 95 + 99) / 100 - 1; // at least 95 % are no longer
    out << "tokens a row: least " << lengths.front() << ", mean " << (data.tokens + lengths.size() / 2) / lengths.size()
        << ", 95 % up to " << lengths[p95] << ", most " << lengths.back() << "; " << data.answer_tokens << " of "
        << data.tokens << " are learned";
    if (lengths.size() > data.rows.size())
        out << "; packed into " << data.rows.size() << (data.rows.size() == 1 ? " sequence" : " sequences");
    return out.str();
}

std::string marked(const Row &row, const Tokenizer &tokenizer, size_t most_bytes) {
    std::string text = spelled(row.prompt, 0, row.prompt.size(), tokenizer, most_bytes);
    size_t begin = 0;
    const auto learned = [&](size_t end) {
        if (end > begin) text += learned_begins + spelled(row.answer, begin, end, tokenizer, most_bytes) + learned_ends;
    };
    for (const auto &[first, end] : row.given) {
        learned(first);
        text += spelled(row.answer, first, end, tokenizer, most_bytes);
        begin = end;
    }
    learned(row.answer.size());
    return text;
}

} // namespace finetune
