// Data that is token ids already.
#include "data_rows.h"

#include "json.h"
#include "safetensors.h"

namespace finetune {
namespace {

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
    data.forms["token ids"] = data.rows.size();
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
