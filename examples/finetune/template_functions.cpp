#include "template_functions.h"

#include "template_texts.h"
#include "utf8.h"

#include <algorithm>
#include <cmath>
#include <ctime>

namespace finetune {
namespace {

using Value = TemplateValue;

Value items_of(const Value &object) {
    TemplateList items;
    for (const auto &[key, value] : *object.entries)
        items.push_back(Value::of(TemplateList{Value::of(key, from_data), value}));
    return Value::of(std::move(items));
}

TemplateText join(const TemplateList &items, const Value *separator) {
    TemplateText out;
    for (size_t i = 0; i < items.size(); ++i) {
        if (i > 0 && separator != nullptr) out += text_of(separator, "join");
        out += as_text(items[i]);
    }
    return out;
}

const TemplateList &list_of(const Value &value, const std::string &what) {
    if (value.kind != Value::list) raise("the filter ", what, " needs a list, not ", value.kind_name());
    return *value.items;
}

int64_t length(const Value &value) {
    if (value.kind == Value::list) return int64_t(value.items->size());
    if (value.kind == Value::dict) return int64_t(value.entries->size());
    if (value.kind == Value::text) return int64_t(characters(*value.string).size());
    raise("the length of ", value.kind_name());
}

// selectattr and rejectattr.
Value select(const TemplateList &items, const TemplateArguments &arguments, bool keep) {
    const std::string field = text_of(arguments.find(0, "attribute"), "selectattr").bytes;
    const Value *test = arguments.find(1, "test"), *with = arguments.find(2, "value");
    std::vector<Value> given;
    if (with != nullptr) given.push_back(*with);
    const std::vector<std::string> names(given.size());
    TemplateList out;
    for (const Value &item : items) {
        const Value *found = item.find(field);
        const Value value = found == nullptr ? Value() : *found;
        const bool passes =
            test == nullptr ? value.truth() : apply_test(text_of(test, "selectattr").bytes, value, {given, names});
        if (passes == keep) out.push_back(item);
    }
    return Value::of(std::move(out));
}

int compare(const Value &a, const Value &b) {
    if (a.is_number() && b.is_number()) return a.as_real() < b.as_real() ? -1 : a.as_real() > b.as_real();
    if (a.kind == Value::text && b.kind == Value::text) {
        const int order = a.string->bytes.compare(b.string->bytes);
        return order < 0 ? -1 : order > 0;
    }
    raise(a.kind_name(), " and ", b.kind_name(), " have no order");
}

bool contains(const Value &whole, const Value &part) {
    if (whole.kind == Value::text) return whole.string->bytes.find(text_of(&part, "in").bytes) != std::string::npos;
    if (whole.kind == Value::undefined) return false; // as an empty one
    if (whole.kind == Value::dict) return part.kind == Value::text && whole.find(part.string->bytes) != nullptr;
    if (whole.kind != Value::list) raise("'in' needs a text, a list or a mapping, not ", whole.kind_name());
    return std::any_of(whole.items->begin(), whole.items->end(), [&](const Value &item) { return equal(item, part); });
}

// Friday 26 July 2024: what Llama 3 takes where there is no clock.
tm date_of_templates() {
    tm date = {};
    date.tm_year = 2024 - 1900;
    date.tm_mon = 6;
    date.tm_mday = 26;
    date.tm_wday = 5;
    date.tm_yday = 207;
    return date;
}
const tm template_date = date_of_templates();

} // namespace

const TemplateValue *TemplateArguments::find(size_t place, std::string_view name) const {
    size_t plain = 0;
    for (size_t i = 0; i < values.size(); ++i) {
        if (names[i] == name) return &values[i];
        if (names[i].empty() && plain++ == place) return &values[i];
    }
    return nullptr;
}

bool equal(const TemplateValue &a, const TemplateValue &b) {
    if (a.is_number() && b.is_number()) return a.as_real() == b.as_real();
    if (a.kind != b.kind) return false;
    switch (a.kind) {
    case Value::text:
        return a.string->bytes == b.string->bytes;
    case Value::list:
        return std::equal(a.items->begin(), a.items->end(), b.items->begin(), b.items->end(), equal);
    case Value::dict:
        return std::equal(a.entries->begin(), a.entries->end(), b.entries->begin(), b.entries->end(),
                          [](const auto &x, const auto &y) { return x.first == y.first && equal(x.second, y.second); });
    default:
        return true;
    }
}

TemplateText as_text(const TemplateValue &value) {
    switch (value.kind) {
    case Value::undefined:
        return {};
    case Value::none:
        return {"None", from_template};
    case Value::boolean:
        return {value.number ? "True" : "False", from_template};
    case Value::integer:
        return {std::to_string(value.number), from_data};
    case Value::text:
        return *value.string;
    default:
        return {to_json(value), from_data};
    }
}

std::string to_json(const TemplateValue &value, int indent, int depth) {
    const std::string line = indent > 0 ? "\n" + std::string(size_t(indent * (depth + 1)), ' ') : "";
    const std::string last = indent > 0 ? "\n" + std::string(size_t(indent * depth), ' ') : "";
    const std::string comma = indent > 0 ? "," + line : ", ";
    if (depth > 50) raise("JSON nested deeper than 50 levels");
    std::string out;
    switch (value.kind) {
    case Value::undefined:
        raise("JSON of something that is undefined");
    case Value::none:
        return "null";
    case Value::boolean:
        return value.number ? "true" : "false";
    case Value::integer:
        return std::to_string(value.number);
    case Value::decimal: {
        char digits[32];
        for (int precision : {15, 16, 17}) { // the shortest that reads back
            snprintf(digits, sizeof(digits), "%.*g", precision, value.real);
            if (strtod(digits, nullptr) == value.real) break;
        }
        out = digits;
        return out.find_first_of(".en") == std::string::npos ? out + ".0" : out;
    }
    case Value::text:
        out = "\"";
        for (char c : value.string->bytes) {
            if (c == '"' || c == '\\') (out += '\\') += c;
            else if (c == '\n') out += "\\n";
            else if (c == '\r') out += "\\r";
            else if (c == '\t') out += "\\t";
            else if (static_cast<unsigned char>(c) < 0x20) {
                char code[8];
                snprintf(code, sizeof(code), "\\u%04x", unsigned(c));
                out += code;
            } else out += c;
        }
        return out + "\"";
    case Value::list:
        if (value.items->empty()) return "[]";
        out = "[" + line;
        for (size_t i = 0; i < value.items->size(); ++i)
            out += (i > 0 ? comma : "") + to_json((*value.items)[i], indent, depth + 1);
        return out + last + "]";
    case Value::dict:
        if (value.entries->empty()) return "{}";
        out = "{" + line;
        for (size_t i = 0; i < value.entries->size(); ++i)
            out += (i > 0 ? comma : "") + to_json(Value::of((*value.entries)[i].first, from_data)) + ": " +
                   to_json((*value.entries)[i].second, indent, depth + 1);
        return out + last + "}";
    }
    return out;
}

TemplateList characters(const TemplateText &text) {
    TemplateList out;
    for (size_t i = 0; i < text.bytes.size();) {
        uint32_t code = 0;
        const size_t bytes = std::max<size_t>(read_character(text.bytes, i, &code), 1);
        out.push_back(Value::of(text.part(i, bytes)));
        i += bytes;
    }
    return out;
}

TemplateValue item_of(const TemplateValue &object, const TemplateValue &key) {
    if (object.kind == Value::dict) {
        const Value *found = object.find(text_of(&key, "a key").bytes);
        return found == nullptr ? Value() : *found;
    }
    if (object.kind != Value::list && object.kind != Value::text) raise("an item of ", object.kind_name());
    if (key.kind == Value::text) return {}; // as in Python's templates: no such item
    const TemplateList items = object.kind == Value::list ? *object.items : characters(*object.string);
    int64_t at = integer_of(key, "an index");
    if (at < 0) at += int64_t(items.size());
    return at < 0 || at >= int64_t(items.size()) ? Value() : items[size_t(at)];
}

TemplateValue slice_of(const TemplateValue &object, const TemplateValue &start, const TemplateValue &end,
                       const TemplateValue &stride) {
    if (object.kind != Value::list && object.kind != Value::text) raise("a slice of ", object.kind_name());
    const TemplateList items = object.kind == Value::list ? *object.items : characters(*object.string);
    const auto given = [](const Value &value) { return value.kind != Value::undefined && value.kind != Value::none; };
    const int64_t count = int64_t(items.size()), by = given(stride) ? integer_of(stride, "a slice") : 1;
    if (by == 0) raise("a slice with step 0");
    const int64_t low = by > 0 ? 0 : -1, high = by > 0 ? count : count - 1;
    const auto bound = [&](const Value &value, int64_t otherwise) {
        if (!given(value)) return otherwise;
        int64_t at = integer_of(value, "a slice");
        if (at < 0) at += count;
        return std::clamp(at, low, high);
    };
    const int64_t from = bound(start, by > 0 ? 0 : high), to = bound(end, by > 0 ? count : -1);
    TemplateList out;
    for (int64_t i = from; by > 0 ? i < to : i > to; i += std::clamp(by, -count - 1, count + 1))
        out.push_back(items[size_t(i)]);
    return object.kind == Value::list ? Value::of(std::move(out)) : Value::of(join(out, nullptr));
}

TemplateValue apply_operator(const std::string &sign, const TemplateValue &left, const TemplateValue &right) {
    if (sign == "==") return Value::of(equal(left, right));
    if (sign == "!=") return Value::of(!equal(left, right));
    if (sign == "in") return Value::of(contains(right, left));
    if (sign == "not in") return Value::of(!contains(right, left));
    if (sign == "<") return Value::of(compare(left, right) < 0);
    if (sign == ">") return Value::of(compare(left, right) > 0);
    if (sign == "<=") return Value::of(compare(left, right) <= 0);
    if (sign == ">=") return Value::of(compare(left, right) >= 0);
    if (sign == "~" || (sign == "+" && left.kind == Value::text && right.kind == Value::text)) {
        TemplateText out = as_text(left);
        return Value::of(out += as_text(right));
    }
    if (sign == "+" && left.kind == Value::list && right.kind == Value::list) {
        TemplateList out = *left.items;
        out.insert(out.end(), right.items->begin(), right.items->end());
        return Value::of(std::move(out));
    }
    if (!left.is_number() || !right.is_number())
        raise("the operator ", sign, " between ", left.kind_name(), " and ", right.kind_name());
    if (left.kind == Value::decimal || right.kind == Value::decimal || sign == "/") {
        const double a = left.as_real(), b = right.as_real();
        if (b == 0 && (sign == "/" || sign == "//" || sign == "%")) raise("division by zero");
        if (sign == "+") return Value::of(a + b);
        if (sign == "-") return Value::of(a - b);
        if (sign == "*") return Value::of(a * b);
        if (sign == "/") return Value::of(a / b);
        if (sign == "//") return Value::of(std::floor(a / b));
        return Value::of(a - b * std::floor(a / b));
    }
    const int64_t a = left.number, b = right.number, most = int64_t(1) << 31;
    if (a > most || a < -most || b > most || b < -most) raise("a number beyond 2^31");
    if (sign == "+") return Value::of(a + b);
    if (sign == "-") return Value::of(a - b);
    if (sign == "*") return Value::of(a * b);
    if (b == 0) raise("division by zero");
    const int64_t quotient = a / b - (a % b != 0 && (a < 0) != (b < 0) ? 1 : 0);
    return Value::of(sign == "//" ? quotient : a - b * quotient);
}

TemplateValue apply_filter(const std::string &name, const TemplateValue &subject, const TemplateArguments &arguments) {
    if (name == "tojson") {
        const Value *indent = arguments.find(0, "indent");
        const bool flat = indent == nullptr || indent->kind == Value::none;
        return Value::of(to_json(subject, flat ? 0 : int(std::clamp<int64_t>(integer_of(*indent, "tojson"), 0, 16))),
                         from_data);
    }
    if (name == "trim") return Value::of(stripped(as_text(subject), arguments.find(0, "chars"), true, true));
    if (name == "string" || name == "safe") return Value::of(as_text(subject));
    if (name == "upper" || name == "lower") return Value::of(mapped(as_text(subject), name == "upper"));
    if (name == "capitalize" || name == "title") return Value::of(titled(as_text(subject), name == "title"));
    if (name == "length" || name == "count") return Value::of(length(subject));
    if (name == "replace") return Value::of(replace_with(text_of(&subject, "replace"), arguments));
    if (name == "default" || name == "d") {
        const Value *other = arguments.find(0, "default_value"), *empty = arguments.find(1, "boolean");
        const bool missing =
            subject.kind == Value::undefined || (empty != nullptr && empty->truth() && !subject.truth());
        return !missing ? subject : other != nullptr ? *other : Value::of("", from_template);
    }
    if (name == "list") return subject.kind == Value::text ? Value::of(characters(*subject.string)) : subject;
    if (name == "items" || name == "dictsort") {
        if (subject.kind != Value::dict) raise("the filter ", name, " needs a mapping, not ", subject.kind_name());
        Value items = items_of(subject);
        if (name == "dictsort")
            std::stable_sort(items.items->begin(), items.items->end(), [](const Value &a, const Value &b) {
                return a.items->at(0).string->bytes < b.items->at(0).string->bytes;
            });
        return items;
    }
    if (name == "int") {
        if (subject.is_number()) return Value::of(int64_t(std::clamp(subject.as_real(), -2e9, 2e9)));
        return Value::of(int64_t(strtol(text_of(&subject, "int").bytes.substr(0, 9).c_str(), nullptr, 10)));
    }
    if (name == "first" || name == "last") {
        const TemplateList items = subject.kind == Value::text ? characters(*subject.string) : list_of(subject, name);
        return items.empty() ? Value() : name == "first" ? items.front() : items.back();
    }
    if (name == "join") return Value::of(join(list_of(subject, name), arguments.find(0, "d")));
    if (name == "reverse") {
        TemplateList items = list_of(subject, name);
        std::reverse(items.begin(), items.end());
        return Value::of(std::move(items));
    }
    if (name == "selectattr" || name == "rejectattr")
        return select(list_of(subject, name), arguments, name == "selectattr");
    if (name == "map") {
        const TemplateList &items = list_of(subject, name);
        const Value *field = arguments.find(SIZE_MAX, "attribute");
        TemplateList out;
        for (const Value &item : items) {
            if (field != nullptr) {
                const Value *found = item.find(text_of(field, "map").bytes);
                out.push_back(found == nullptr ? Value() : *found);
            } else {
                const std::vector<Value> nothing;
                out.push_back(apply_filter(text_of(arguments.find(0, "filter"), "map").bytes, item, {nothing, {}}));
            }
        }
        return Value::of(std::move(out));
    }
    raise("the filter ", shown(name), " is not supported");
}

bool apply_test(const std::string &name, const TemplateValue &subject, const TemplateArguments &arguments) {
    const Value *other = arguments.find(0, "other");
    if (name == "defined") return subject.kind != Value::undefined;
    if (name == "undefined") return subject.kind == Value::undefined;
    if (name == "none") return subject.kind == Value::none;
    if (name == "string") return subject.kind == Value::text;
    if (name == "number") return subject.is_number();
    if (name == "integer") return subject.kind == Value::integer;
    if (name == "boolean") return subject.kind == Value::boolean;
    if (name == "true") return subject.kind == Value::boolean && subject.number != 0;
    if (name == "false") return subject.kind == Value::boolean && subject.number == 0;
    if (name == "mapping") return subject.kind == Value::dict;
    if (name == "iterable" || name == "sequence")
        return subject.kind == Value::list || subject.kind == Value::dict || subject.kind == Value::text;
    if (name == "odd") return integer_of(subject, "odd") % 2 != 0;
    if (name == "even") return integer_of(subject, "even") % 2 == 0;
    if (name == "equalto" || name == "eq" || name == "ne" || name == "in") {
        if (other == nullptr) raise("the test ", name, " needs a value");
        return name == "in" ? contains(*other, subject) : equal(subject, *other) == (name != "ne");
    }
    raise("the test ", shown(name), " is not supported");
}

TemplateValue call_method(const std::string &name, const TemplateValue &object, const TemplateArguments &arguments) {
    if (object.kind == Value::text) {
        const TemplateText &text = *object.string;
        if (name == "strip" || name == "lstrip" || name == "rstrip")
            return Value::of(stripped(text, arguments.find(0, "chars"), name != "rstrip", name != "lstrip"));
        if (name == "split" || name == "rsplit") return split(text, arguments, name == "rsplit");
        if (name == "startswith" || name == "endswith") {
            const std::string &part = text_of(arguments.find(0, "prefix"), name.c_str()).bytes;
            if (part.size() > text.bytes.size()) return Value::of(false);
            return Value::of(
                text.bytes.compare(name == "startswith" ? 0 : text.bytes.size() - part.size(), part.size(), part) == 0);
        }
        if (name == "upper" || name == "lower") return Value::of(mapped(text, name == "upper"));
        if (name == "capitalize" || name == "title") return Value::of(titled(text, name == "title"));
        if (name == "replace") return Value::of(replace_with(text, arguments));
        if (name == "find") {
            const size_t at = text.bytes.find(text_of(arguments.find(0, "sub"), "find").bytes);
            return Value::of(at == std::string::npos ? int64_t(-1) : int64_t(characters(text.part(0, at)).size()));
        }
        if (name == "join" && arguments.values.size() == 1)
            return Value::of(join(list_of(arguments.values[0], name), &object));
    }
    if (object.kind == Value::dict) {
        if (name == "items") return items_of(object);
        if (name == "get") {
            const Value *found = object.find(text_of(arguments.find(0, "key"), "get").bytes);
            const Value *other = arguments.find(1, "default");
            return found != nullptr ? *found : other != nullptr ? *other : Value::of_none();
        }
        if (name == "keys" || name == "values") {
            TemplateList out;
            for (const auto &[key, value] : *object.entries)
                out.push_back(name == "keys" ? Value::of(key, from_data) : value);
            return Value::of(std::move(out));
        }
    }
    raise("the method ", shown(name), " of ", object.kind_name(), " is not supported");
}

TemplateValue call_function(const std::string &name, const TemplateArguments &arguments) {
    if (name == "raise_exception")
        throw TemplateError(arguments.values.empty() ? "without a reason" : as_text(arguments.values[0]).bytes, true);
    if (name == "namespace" || name == "dict") {
        TemplateDict entries;
        for (size_t i = 0; i < arguments.values.size(); ++i) {
            if (arguments.names[i].empty()) raise(name, " with arguments that have no names is not supported");
            entries.emplace_back(arguments.names[i], arguments.values[i]);
        }
        Value made = Value::of(std::move(entries));
        made.number = name == "namespace";
        return made;
    }
    if (name == "range") {
        int64_t bounds[3] = {0, 0, 1};
        const size_t count = arguments.values.size();
        if (count < 1 || count > 3) raise("range needs one to three numbers");
        for (size_t i = 0; i < count; ++i) bounds[count == 1 ? 1 : i] = integer_of(arguments.values[i], "range");
        if (bounds[2] == 0 || std::abs(double(bounds[1]) - double(bounds[0])) > 1e5)
            raise("a range of step 0 or more than 100000 numbers");
        TemplateList out;
        for (int64_t i = bounds[0]; bounds[2] > 0 ? i < bounds[1] : i > bounds[1]; i += bounds[2])
            out.push_back(Value::of(i));
        return Value::of(std::move(out));
    }
    if (name == "strftime_now") {
        const std::string &format = text_of(arguments.find(0, "format"), "strftime_now").bytes;
        char date[256] = "";
        if (strftime(date, sizeof date, format.substr(0, 64).c_str(), &template_date) == 0) date[0] = 0;
        return Value::of(std::string(date), from_template);
    }
    raise("the function ", shown(name), " is not supported");
}

} // namespace finetune
