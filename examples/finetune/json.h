// JSON from strangers: parsed with a limit on depth, duplicate keys refused, errors as one line without the text.
#pragma once

#include "error.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_set>
#include <vector>

namespace finetune {

using Json = nlohmann::json;

// `where` begins every message: "rows.jsonl:7".
inline Json parse_json(std::string_view text, const std::string &where, int most_depth) {
    std::vector<std::unordered_set<std::string>> keys; // of the objects that are open
    const auto check = [&](int depth, Json::parse_event_t event, Json &value) {
        if (depth > most_depth) fail(where, ": nested deeper than ", most_depth, " levels");
        if (event == Json::parse_event_t::object_start) keys.emplace_back();
        if (event == Json::parse_event_t::object_end && !keys.empty()) keys.pop_back();
        if (event == Json::parse_event_t::key && !keys.empty() && !keys.back().insert(value.get<std::string>()).second)
            fail(where, ": key ", shown(value.get<std::string>()), " appears twice");
        return true;
    };
    try {
        return Json::parse(text.begin(), text.end(), check);
    } catch (const Json::parse_error &error) {
        // The parser stands at the byte that is wrong, or behind one that wanted another.
        const std::string_view last = text.substr(std::min(text.size(), error.byte < 2 ? 0 : error.byte - 2), 2);
        const bool ascii = std::all_of(last.begin(), last.end(), [](char c) { return (c & 0x80) == 0; });
        fail(where, ": not valid JSON at byte ", error.byte, " of the text", ascii ? "" : ": not UTF-8");
    } catch (const Json::exception &) { fail(where, ": not valid JSON: a number is out of range"); }
}

} // namespace finetune
