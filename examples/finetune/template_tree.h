// The tree of a template. One kind of node serves statements and expressions; `kind` says what its parts mean.
#pragma once

#include "template_value.h"

namespace finetune {

enum class NodeKind {
    // Statements
    sequence,  // parts: statements
    output,    // parts: [expression]
    condition, // parts: [test, then, else?]
    loop,      // parts: [list, body, else or null, filter or null]; names: variables
    assign,    // parts: [value]; names: variables, or [object, field]; flag: the latter
    capture,   // parts: [body]; names: [variable]
    // Expressions
    literal,   // value
    name,      // text
    list,      // parts
    dict,      // parts: key, value, ...
    attribute, // parts: [object]; text
    item,      // parts: [object, key]
    slice,     // parts: [object, start or null, end or null, step or null]
    call,      // parts: [callee, arguments...]; names: of the arguments, "" for one by place
    filter,    // parts: [value, arguments...]; text; names
    test,      // parts: [value, arguments...]; text; flag: negated
    unary,     // text: "not", "-", "+"; parts: [value]
    binary,    // text: the operator; parts: [left, right]
    choice     // parts: [then, condition, else or null]
};

struct TemplateNode {
    NodeKind kind;
    int line;
    std::string text;
    std::vector<std::string> names;
    std::vector<std::unique_ptr<TemplateNode>> parts;
    TemplateValue value;
    bool flag = false;
};

std::unique_ptr<TemplateNode> parse_template(std::string_view text, const std::string &source);

// Ends a message about something that the subset does not have.
constexpr const char *template_advice = "; choose a template by name instead, with --chat-template, such as chatml";

template <class... Parts>
[[noreturn]] void reject_template(const std::string &source, int line, const Parts &...parts) {
    fail(source, ": line ", line, ": ", parts..., template_advice);
}

} // namespace finetune
