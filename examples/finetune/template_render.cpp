#include "template.h"
#include "template_functions.h"
#include "template_tree.h"

#include <algorithm>

namespace finetune {
namespace {

const uint64_t most_steps = 5000000;
const uint64_t most_output = TemplateText::most_bytes; // of all texts made

class Renderer {
public:
    Renderer(const std::string &source, const TemplateDict &variables) : source_(source), scopes_{variables, {}} {}

    TemplateText run(const TemplateNode &node) {
        statement(node);
        return std::move(out_);
    }

private:
    template <class... Parts> [[noreturn]] void reject(const TemplateNode &node, const Parts &...parts) const {
        reject_template(source_, node.line, parts...);
    }

    void step(const TemplateNode &node) {
        if (++steps_ > most_steps) reject(node, "the template does not end within ", most_steps, " steps");
    }
    void spend(const TemplateNode &node, uint64_t bytes) {
        spent_ += bytes;
        if (spent_ > most_output) reject(node, "the template makes more than ", most_output >> 20, " MiB of text");
    }

    void statement(const TemplateNode &node) {
        step(node);
        switch (node.kind) {
        case NodeKind::sequence:
            for (const auto &part : node.parts) statement(*part);
            return;
        case NodeKind::output: {
            const TemplateText text = printed(node, value(*node.parts[0]));
            spend(node, text.bytes.size());
            out_ += text;
            return;
        }
        case NodeKind::condition:
            if (value(*node.parts[0]).truth()) statement(*node.parts[1]);
            else if (node.parts.size() > 2) statement(*node.parts[2]);
            return;
        case NodeKind::loop:
            return loop(node);
        case NodeKind::assign:
            return assign(node, value(*node.parts[0]));
        case NodeKind::capture: {
            TemplateText outer;
            std::swap(outer, out_);
            statement(*node.parts[0]);
            std::swap(outer, out_);
            return assign(node, TemplateValue::of(std::move(outer)));
        }
        default:
            reject(node, "not a statement");
        }
    }

    // A value that becomes part of another. A namespace may not, so that none ever holds itself.
    TemplateValue member(const TemplateNode &node) {
        TemplateValue part = value(node);
        if (part.is_namespace()) reject(node, "a namespace inside something else is not supported");
        return part;
    }

    void assign(const TemplateNode &node, TemplateValue what) {
        if (node.flag) {
            if (what.is_namespace()) reject(node, "a namespace inside something else is not supported");
            TemplateValue *object = find(node.names[0]);
            if (object == nullptr || !object->is_namespace())
                reject(node, "{% set ", node.names[0], ".", node.names[1], " %} needs a namespace");
            return put(*object->entries, node.names[1], std::move(what));
        }
        bind(node, node.names, std::move(what));
    }

    void bind(const TemplateNode &node, const std::vector<std::string> &names, TemplateValue what) {
        if (names.size() == 1) return put(scopes_.back(), names[0], std::move(what));
        if (what.kind != TemplateValue::list || what.items->size() != names.size())
            reject(node, what.kind_name(), " cannot be taken apart into ", names.size(), " names");
        const TemplateList items = *what.items;
        for (size_t i = 0; i < names.size(); ++i) put(scopes_.back(), names[i], items[i]);
    }

    static void put(TemplateDict &where, const std::string &name, TemplateValue what) {
        for (auto &[key, old] : where)
            if (key == name) {
                old = std::move(what);
                return;
            }
        where.emplace_back(name, std::move(what));
    }

    TemplateValue *find(const std::string &name) {
        for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
            for (auto &[key, what] : *scope)
                if (key == name) return &what;
        return nullptr;
    }

    void loop(const TemplateNode &node) {
        TemplateList items = listed(node, value(*node.parts[0]));
        if (node.parts[3]) {
            TemplateList kept;
            for (TemplateValue &item : items) {
                scopes_.emplace_back();
                bind(node, node.names, item);
                if (value(*node.parts[3]).truth()) kept.push_back(item);
                scopes_.pop_back();
            }
            items = std::move(kept);
        }
        if (items.empty() && node.parts[2]) return statement(*node.parts[2]);
        const int64_t count = int64_t(items.size());
        for (int64_t i = 0; i < count; ++i) {
            step(node);
            scopes_.emplace_back();
            bind(node, node.names, items[size_t(i)]);
            TemplateDict about = {
                {"index", TemplateValue::of(i + 1)},        {"index0", TemplateValue::of(i)},
                {"revindex", TemplateValue::of(count - i)}, {"revindex0", TemplateValue::of(count - i - 1)},
                {"first", TemplateValue::of(i == 0)},       {"last", TemplateValue::of(i + 1 == count)},
                {"length", TemplateValue::of(count)}};
            if (i > 0) about.emplace_back("previtem", items[size_t(i) - 1]);
            if (i + 1 < count) about.emplace_back("nextitem", items[size_t(i) + 1]);
            put(scopes_.back(), "loop", TemplateValue::of(std::move(about)));
            statement(*node.parts[1]);
            scopes_.pop_back();
        }
    }

    TemplateList listed(const TemplateNode &node, const TemplateValue &what) {
        if (what.kind == TemplateValue::list) return *what.items;
        TemplateList items;
        if (what.kind == TemplateValue::dict)
            for (const auto &[key, ignored] : *what.entries) items.push_back(TemplateValue::of(key, from_data));
        else if (what.kind == TemplateValue::text) items = characters(*what.string);
        else if (what.kind != TemplateValue::undefined)
            reject(node, what.kind_name(), " is nothing that {% for %} can walk over");
        return items;
    }

    TemplateText printed(const TemplateNode &node, const TemplateValue &what) {
        if (what.kind == TemplateValue::list || what.kind == TemplateValue::dict)
            reject(node, "printing ", what.kind_name(), " without the filter tojson is not supported");
        return as_text(what);
    }

    std::vector<TemplateValue> arguments(const TemplateNode &node, std::vector<std::string> *names) {
        std::vector<TemplateValue> out;
        for (size_t i = 1; i < node.parts.size(); ++i) out.push_back(member(*node.parts[i]));
        *names = node.names;
        names->resize(out.size());
        return out;
    }

    // Functions and methods report with their own messages; the place is added here.
    template <class Action> auto placed(const TemplateNode &node, const Action &action) {
        try {
            return action();
        } catch (const TemplateError &error) {
            if (error.raised) fail(source_, ": the template refuses the conversation: ", shown(error.what()));
            reject(node, error.what());
        }
    }

    TemplateValue value(const TemplateNode &node) {
        step(node);
        switch (node.kind) {
        case NodeKind::literal:
            return node.value;
        case NodeKind::name: {
            const TemplateValue *found = find(node.text);
            return found != nullptr ? *found : TemplateValue();
        }
        case NodeKind::list: {
            TemplateList items;
            for (const auto &part : node.parts) items.push_back(member(*part));
            return TemplateValue::of(std::move(items));
        }
        case NodeKind::dict: {
            TemplateDict entries;
            for (size_t i = 0; i < node.parts.size(); i += 2)
                put(entries, as_text(value(*node.parts[i])).bytes, member(*node.parts[i + 1]));
            return TemplateValue::of(std::move(entries));
        }
        case NodeKind::attribute: {
            const TemplateValue object = value(*node.parts[0]);
            if (object.kind == TemplateValue::undefined)
                reject(node, "field ", shown(node.text), " of something that is undefined");
            const TemplateValue *found = object.find(node.text);
            return found != nullptr ? *found : TemplateValue();
        }
        case NodeKind::item: {
            const TemplateValue object = value(*node.parts[0]), key = value(*node.parts[1]);
            return placed(node, [&] { return item_of(object, key); });
        }
        case NodeKind::slice: {
            const TemplateValue object = value(*node.parts[0]);
            TemplateValue bounds[3];
            for (size_t i = 0; i < 3; ++i)
                if (node.parts[i + 1]) bounds[i] = value(*node.parts[i + 1]);
            return placed(node, [&] { return slice_of(object, bounds[0], bounds[1], bounds[2]); });
        }
        case NodeKind::call:
            return call(node);
        case NodeKind::filter: {
            const TemplateValue subject = value(*node.parts[0]);
            std::vector<std::string> names;
            const std::vector<TemplateValue> given = arguments(node, &names);
            TemplateValue made = placed(node, [&] { return apply_filter(node.text, subject, {given, names}); });
            if (made.kind == TemplateValue::text) spend(node, made.string->bytes.size());
            return made;
        }
        case NodeKind::test: {
            const TemplateValue subject = value(*node.parts[0]);
            std::vector<std::string> names;
            const std::vector<TemplateValue> given = arguments(node, &names);
            return TemplateValue::of(placed(node, [&] {
                                         return apply_test(node.text, subject, {given, names});
                                     }) != node.flag);
        }
        case NodeKind::unary: {
            const TemplateValue subject = value(*node.parts[0]);
            if (node.text == "not") return TemplateValue::of(!subject.truth());
            if (!subject.is_number()) reject(node, "the sign ", node.text, " of ", subject.kind_name());
            if (node.text == "+") return subject;
            if (subject.kind == TemplateValue::decimal) return TemplateValue::of(-subject.real);
            return TemplateValue::of(int64_t(0 - uint64_t(subject.number)));
        }
        case NodeKind::binary: {
            if (node.text == "and" || node.text == "or") {
                TemplateValue left = value(*node.parts[0]);
                return left.truth() == (node.text == "or") ? left : value(*node.parts[1]);
            }
            const TemplateValue left = value(*node.parts[0]), right = value(*node.parts[1]);
            TemplateValue made = placed(node, [&] { return apply_operator(node.text, left, right); });
            if (made.kind == TemplateValue::text) spend(node, made.string->bytes.size());
            if (made.kind == TemplateValue::list) spend(node, made.items->size() * sizeof(TemplateValue));
            return made;
        }
        case NodeKind::choice:
            if (value(*node.parts[1]).truth()) return value(*node.parts[0]);
            return node.parts[2] ? value(*node.parts[2]) : TemplateValue();
        default:
            reject(node, "not an expression");
        }
    }

    TemplateValue call(const TemplateNode &node) {
        const TemplateNode &callee = *node.parts[0];
        std::vector<std::string> names;
        if (callee.kind == NodeKind::attribute) {
            const TemplateValue object = value(*callee.parts[0]);
            const std::vector<TemplateValue> given = arguments(node, &names);
            return placed(node, [&] { return call_method(callee.text, object, {given, names}); });
        }
        if (callee.kind != NodeKind::name) reject(node, "a call of something that is no name");
        const std::vector<TemplateValue> given = arguments(node, &names);
        return placed(node, [&] { return call_function(callee.text, {given, names}); });
    }

    const std::string &source_;
    std::vector<TemplateDict> scopes_;
    TemplateText out_;
    uint64_t steps_ = 0, spent_ = 0;
};

} // namespace

Template::Template(std::string_view text, std::string source)
    : source_(std::move(source)), root_(parse_template(text, source_)) {}
Template::~Template() = default;
Template::Template(Template &&) noexcept = default;

TemplateText Template::render(const TemplateDict &variables) const { return Renderer(source_, variables).run(*root_); }

} // namespace finetune
