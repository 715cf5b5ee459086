// What a template computes with.
#pragma once

#include "error.h"

#include <memory>
#include <vector>

namespace finetune {

// Without a place, which the caller adds. `raised`: by the template itself.
struct TemplateError : std::runtime_error {
    explicit TemplateError(const std::string &message, bool by_template = false)
        : std::runtime_error(message), raised(by_template) {}
    bool raised;
};

enum TextOrigin : char { from_data = 0, from_template = 1, from_answer = 2 };

// Text, and the origin of each of its bytes.
struct TemplateText {
    static constexpr size_t most_bytes = 64 << 20;
    std::string bytes, origin;

    TemplateText() = default;
    TemplateText(std::string text, TextOrigin from) : bytes(std::move(text)), origin(bytes.size(), from) {}
    TemplateText part(size_t first, size_t count = std::string::npos) const {
        TemplateText out;
        out.bytes = bytes.substr(first, count);
        out.origin = origin.substr(first, count);
        return out;
    }
    TemplateText &operator+=(const TemplateText &other) {
        if (bytes.size() + other.bytes.size() > most_bytes) throw TemplateError("a text of more than 64 MiB");
        bytes += other.bytes;
        origin += other.origin;
        return *this;
    }
};

struct TemplateValue;
using TemplateList = std::vector<TemplateValue>;
using TemplateDict = std::vector<std::pair<std::string, TemplateValue>>; // in order

struct TemplateValue {
    enum Kind { undefined, none, boolean, integer, decimal, text, list, dict };

    Kind kind = undefined;
    int64_t number = 0; // of a boolean or an integer; of a mapping: whether it is a namespace
    double real = 0;
    std::shared_ptr<TemplateText> string;
    std::shared_ptr<TemplateList> items;
    std::shared_ptr<TemplateDict> entries; // shared: a namespace changes in place

    TemplateValue() = default;
    static TemplateValue of_none() {
        TemplateValue value;
        value.kind = none;
        return value;
    }
    static TemplateValue of(bool truth) {
        TemplateValue value;
        value.kind = boolean;
        value.number = truth;
        return value;
    }
    static TemplateValue of(int64_t number) {
        TemplateValue value;
        value.kind = integer;
        value.number = number;
        return value;
    }
    static TemplateValue of(double real) {
        TemplateValue value;
        value.kind = decimal;
        value.real = real;
        return value;
    }
    static TemplateValue of(TemplateText string) {
        TemplateValue value;
        value.kind = text;
        value.string = std::make_shared<TemplateText>(std::move(string));
        return value;
    }
    static TemplateValue of(std::string bytes, TextOrigin from) { return of(TemplateText(std::move(bytes), from)); }
    static TemplateValue of(TemplateList items) {
        TemplateValue value;
        value.kind = list;
        value.items = std::make_shared<TemplateList>(std::move(items));
        return value;
    }
    static TemplateValue of(TemplateDict entries) {
        TemplateValue value;
        value.kind = dict;
        value.entries = std::make_shared<TemplateDict>(std::move(entries));
        return value;
    }

    bool truth() const {
        switch (kind) {
        case undefined:
        case none:
            return false;
        case boolean:
        case integer:
            return number != 0;
        case decimal:
            return real != 0;
        case text:
            return !string->bytes.empty();
        case list:
            return !items->empty();
        case dict:
            return !entries->empty();
        }
        return false;
    }
    bool is_namespace() const { return kind == dict && number != 0; }
    bool is_number() const { return kind == integer || kind == boolean || kind == decimal; }
    double as_real() const { return kind == decimal ? real : double(number); }
    const TemplateValue *find(std::string_view key) const {
        if (kind != dict) return nullptr;
        for (const auto &[name, value] : *entries)
            if (name == key) return &value;
        return nullptr;
    }
    const char *kind_name() const {
        static const char *const names[] = {"undefined", "none",   "a boolean", "a number",
                                            "a number",  "a text", "a list",    "a mapping"};
        return names[kind];
    }
};

bool equal(const TemplateValue &a, const TemplateValue &b);
// As JSON, with Python's spaces after ':' and ','; indent 0 is one line.
std::string to_json(const TemplateValue &value, int indent = 0, int depth = 0);

} // namespace finetune
