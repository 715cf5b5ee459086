#include "data.h"

#include "json.h"
#include "safetensors.h"

namespace finetune {
namespace {

struct Text {
    std::string prompt, answer;
};

const std::string *find_text(const Json &row, const char *key, const std::string &where) {
    const auto found = row.find(key);
    if (found == row.end()) return nullptr;
    if (!found->is_string()) fail(where, ": '", key, "' is ", found->type_name(), ", expected a string");
    return found->get_ptr<const std::string *>();
}

Text render(const Json &row, const std::string &where) {
    if (!row.is_object()) fail(where, ": expected a JSON object, found ", row.type_name());
    const std::string *answer = nullptr;
    Text text;
    if (const std::string *prompt = find_text(row, "prompt", where)) {
        answer = find_text(row, "answer", where);
        if (answer == nullptr) answer = find_text(row, "completion", where);
        text.prompt = *prompt;
    } else if (const std::string *instruction = find_text(row, "instruction", where)) {
        answer = find_text(row, "output", where);
        const std::string *input = find_text(row, "input", where);
        text.prompt = "### Instruction:\n" + *instruction + "\n\n";
        if (input != nullptr && !input->empty()) text.prompt += "### Input:\n" + *input + "\n\n";
        text.prompt += "### Response:\n";
    } else if (const std::string *question = find_text(row, "question", where)) {
        answer = find_text(row, "answer", where);
        text.prompt = "### Question:\n" + *question + "\n\n### Answer:\n";
    } else {
        fail(where, ": no prompt; expected the keys prompt and answer, instruction and output, or question and answer");
    }
    if (answer == nullptr || answer->empty()) fail(where, ": the row has no answer; add one or remove the row");
    text.answer = *answer;
    return text;
}

// Applies the limit on length, counts, and keeps the row unless it is dropped.
void add_row(Dataset &data, Row row, const DataLimits &limits, const std::string &where) {
    if (row.tokens() > limits.sequence) {
        if (limits.too_long == TooLong::error)
            fail(where, ": the row has ", row.tokens(), " tokens, more than --sequence ", limits.sequence,
                 "; raise it, or choose --too-long drop or --too-long truncate");
        const bool keep = limits.too_long == TooLong::truncate && row.prompt.size() < limits.sequence;
        if (!keep) {
            ++data.dropped;
            return;
        }
        row.answer.resize(limits.sequence - row.prompt.size());
        ++data.truncated;
    }
    data.tokens += row.tokens();
    data.answer_tokens += row.answer.size();
    data.longest = std::max<uint64_t>(data.longest, row.tokens());
    data.rows.push_back(std::move(row));
}

void check_not_empty(const Dataset &data) {
    if (!data.rows.empty()) return;
    if (data.dropped > 0) fail(data.source, ": every row is longer than --sequence and was dropped; raise it");
    fail(data.source, ": holds no rows; expected at least one");
}

std::vector<int32_t> read_ids(const Json &ids, const DataLimits &limits, const std::string &where) {
    if (!ids.is_array()) fail(where, ": expected an array of token ids, found ", ids.type_name());
    std::vector<int32_t> out;
    for (const Json &id : ids) {
        if (!id.is_number_unsigned() || id.get<uint64_t>() >= limits.vocabulary)
            fail(where, ": ", id.dump().substr(0, 40), " is not a token id below ", limits.vocabulary);
        out.push_back(id.get<int32_t>());
    }
    return out;
}

std::pair<std::string, std::string> split_source(const std::string &source, const char *example) {
    const size_t colon = source.rfind(':');
    if (colon == std::string::npos || colon == 0 || colon + 1 == source.size())
        fail(source, ": expected a file and a name in it, such as ", example);
    return {source.substr(0, colon), source.substr(colon + 1)};
}

} // namespace

Dataset read_jsonl(const std::string &path, const Tokenizer &tokenizer, const DataLimits &limits) {
    const MappedFile file(path);
    Dataset data;
    data.source = path;
    std::string_view rest = file.text();
    if (rest.substr(0, 3) == "\xef\xbb\xbf") rest.remove_prefix(3);
    for (uint64_t line_number = 1; !rest.empty(); ++line_number) {
        const size_t end = std::min(rest.find('\n'), rest.size());
        const std::string_view line = rest.substr(0, end);
        rest.remove_prefix(std::min(end + 1, rest.size()));
        if (line.find_first_not_of(" \t\r") == std::string_view::npos) continue;
        const std::string where = path + ":" + std::to_string(line_number);
        const Text text = render(parse_json(line, where, 16), where);
        Row row;
        row.prompt = tokenizer.encode(text.prompt, true);
        if (tokenizer.adds_begin()) row.prompt.insert(row.prompt.begin(), tokenizer.begin_token());
        if (row.prompt.empty())
            fail(where, ": the prompt is empty, and this tokenizer begins texts with no token of its own");
        row.answer = tokenizer.encode(text.answer, false);
        if (tokenizer.end_token() >= 0) row.answer.push_back(tokenizer.end_token());
        row.prompt_text = text.prompt;
        row.answer_text = text.answer;
        add_row(data, std::move(row), limits, where);
    }
    check_not_empty(data);
    return data;
}

Dataset read_token_ids(const std::string &path_and_key, const DataLimits &limits) {
    const auto [path, key] = split_source(path_and_key, "rows.json:train");
    const MappedFile file(path);
    if (file.size() == 0) fail(path, ": the file is empty");
    const Json all = parse_json(file.text(), path, 8);
    if (!all.is_object() || !all.contains(key) || !all[key].is_array())
        fail(path, ": expected an object with an array of rows under the key ", shown(key));
    Dataset data;
    data.source = path_and_key;
    for (size_t i = 0; i < all[key].size(); ++i) {
        const std::string where = path_and_key + ": row " + std::to_string(i);
        const Json &pair = all[key][i];
        if (!pair.is_array() || pair.size() != 2) fail(where, ": expected [[prompt ids], [answer ids]]");
        Row row;
        row.prompt = read_ids(pair[0], limits, where);
        row.answer = read_ids(pair[1], limits, where);
        if (row.prompt.empty()) fail(where, ": the prompt is empty; at least one token must come before the answer");
        if (row.answer.empty()) fail(where, ": the row has no answer; add one or remove the row");
        add_row(data, std::move(row), limits, where);
    }
    check_not_empty(data);
    return data;
}

std::vector<int32_t> read_token_sequence(const std::string &path_and_name, uint64_t vocabulary) {
    const auto [path, name] = split_source(path_and_name, "ids.safetensors:wikitext2_test");
    const SafeTensors file(path);
    std::vector<int32_t> ids = file.integers(file.get(name));
    for (size_t i = 0; i < ids.size(); ++i)
        if (ids[i] < 0 || uint64_t(ids[i]) >= vocabulary)
            fail(path_and_name, ": element ", i, " is ", ids[i], ", not a token id below ", vocabulary);
    return ids;
}

} // namespace finetune
