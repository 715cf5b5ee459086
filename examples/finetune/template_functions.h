// What templates may call: operators, filters, tests, methods of texts and mappings, and a few functions.
#pragma once

#include "template_value.h"

namespace finetune {

struct TemplateArguments {
    const std::vector<TemplateValue> &values;
    const std::vector<std::string> &names; // "": by place

    // By name, or by place among those without a name; null when absent.
    const TemplateValue *find(size_t place, std::string_view name) const;
};

TemplateText as_text(const TemplateValue &value);
TemplateList characters(const TemplateText &text);
TemplateValue item_of(const TemplateValue &object, const TemplateValue &key);
TemplateValue slice_of(const TemplateValue &object, const TemplateValue &start, const TemplateValue &end,
                       const TemplateValue &stride);
TemplateValue apply_operator(const std::string &sign, const TemplateValue &left, const TemplateValue &right);
TemplateValue apply_filter(const std::string &name, const TemplateValue &subject, const TemplateArguments &arguments);
bool apply_test(const std::string &name, const TemplateValue &subject, const TemplateArguments &arguments);
TemplateValue call_method(const std::string &name, const TemplateValue &object, const TemplateArguments &arguments);
TemplateValue call_function(const std::string &name, const TemplateArguments &arguments);

} // namespace finetune
