// Chat templates: a small part of the language Jinja, as models' own templates use it, on messages and nothing else.
// There is no way from a template to files, time, or anything but its input; its steps and its output are bounded. One that asks
// for the date (strftime_now) gets 26 July 2024, on every day: what is learned does not change while a run is paused.
//
// Every byte of the output knows who wrote it, through all filters and slices. So control tokens are recognized only
// where the template wrote them, and the answers are known without a search.
#pragma once

#include "template_value.h"

namespace finetune {

struct TemplateNode;

class Template {
public:
    // `source` begins every message. A construct outside the subset is an Error that names it and its line.
    Template(std::string_view text, std::string source);
    ~Template();
    Template(Template &&) noexcept;

    // Variables by name. The template's own raise_exception() is an Error too.
    TemplateText render(const TemplateDict &variables) const;

private:
    std::string source_;
    std::unique_ptr<TemplateNode> root_;
};

} // namespace finetune
