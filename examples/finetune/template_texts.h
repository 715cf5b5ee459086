// What templates do with texts, as Python's methods of the same names.
#pragma once

#include "template_functions.h"

#include <sstream>

namespace finetune {

template <class... Parts> [[noreturn]] void raise(const Parts &...parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw TemplateError(message.str());
}

// Arguments of a kind; `what` asks for them. Another kind is a TemplateError.
const TemplateText &text_of(const TemplateValue *value, const char *what);
int64_t integer_of(const TemplateValue &value, const char *what);

// `given`: the characters that go; null or none: white space.
TemplateText stripped(const TemplateText &text, const TemplateValue *given, bool left, bool right);
TemplateText mapped(TemplateText text, bool upper);
TemplateText titled(TemplateText text, bool every_word);
TemplateValue split(const TemplateText &text, const TemplateArguments &arguments, bool from_right);
TemplateText replace_with(const TemplateText &text, const TemplateArguments &arguments);

} // namespace finetune
