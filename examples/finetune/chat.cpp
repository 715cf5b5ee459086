#include "chat.h"

#include <algorithm>

namespace finetune {
namespace {

struct Named {
    const char *name;
    const char *token; // a control token that speaks for it, or null
    const char *text;
};

#define SYSTEM_FIRST                                                                                                   \
    "{%- set system = '' -%}{%- if messages[0].role == 'system' -%}{%- set system = messages[0].content -%}"           \
    "{%- set messages = messages[1:] -%}{%- endif -%}"

const Named templates[] = {
    {"chatml", "<|im_start|>",
     "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"},
    {"llama3", "<|start_header_id|>",
     "{{ bos_token }}{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' + m.content | "
     "trim "
     "+ '<|eot_id|>' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"},
    {"gemma", "<start_of_turn>",
     SYSTEM_FIRST
     "{{ bos_token }}{% for m in messages %}{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + "
     "'\n' }}"
     "{% if loop.first and system %}{{ system | trim + '\n\n' }}{% endif %}{{ m.content | trim + '<end_of_turn>\n' }}"
     "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"},
    {"phi3", "<|assistant|>",
     "{{ bos_token }}{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + '<|end|>\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"},
    {"deepseek",
     "<\xef\xbd\x9c"
     "Assistant\xef\xbd\x9c>",
     SYSTEM_FIRST "{{ bos_token + system }}{% for m in messages %}{% if m.role == 'user' %}{{ "
                  "'<\xef\xbd\x9cUser\xef\xbd\x9c>' + m.content }}"
                  "{% elif m.role == 'assistant' %}{{ '<\xef\xbd\x9c"
                  "Assistant\xef\xbd\x9c>' + m.content + eos_token }}{% endif %}{% endfor %}"
                  "{% if add_generation_prompt %}{{ '<\xef\xbd\x9c"
                  "Assistant\xef\xbd\x9c>' }}{% endif %}"},
    {"mistral", "[INST]",
     SYSTEM_FIRST "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '[INST] ' }}"
                  "{% if loop.first and system %}{{ system + '\n\n' }}{% endif %}{{ m.content + ' [/INST]' }}"
                  "{% elif m.role == 'assistant' %}{{ ' ' + m.content + eos_token }}{% endif %}{% endfor %}"},
    {"llama2", nullptr,
     SYSTEM_FIRST
     "{% for m in messages %}{% if m.role == 'user' %}{{ bos_token + '[INST] ' }}"
     "{% if loop.first and system %}{{ '<<SYS>>\n' + system + '\n<</SYS>>\n\n' }}{% endif %}{{ m.content | trim + ' "
     "[/INST]' }}"
     "{% elif m.role == 'assistant' %}{{ ' ' + m.content | trim + ' ' + eos_token }}{% endif %}{% endfor %}"},
    {"zephyr", nullptr,
     "{% for m in messages %}{{ '<|' + m.role + '|>\n' + m.content + eos_token + '\n' }}{% endfor %}"
     "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"},
    {"alpaca", nullptr,
     SYSTEM_FIRST
     "{{ bos_token }}{% if system %}{{ system + '\n\n' }}{% endif %}{% for m in messages %}"
     "{% if m.role == 'user' %}{{ '### Instruction:\n' + m.content + '\n\n' }}"
     "{% elif m.role == 'assistant' %}{{ '### Response:\n' + m.content + eos_token + '\n\n' }}{% endif %}{% endfor %}"
     "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"},
    {"vicuna", nullptr,
     SYSTEM_FIRST "{{ bos_token }}{% if system %}{{ system + ' ' }}{% endif %}{% for m in messages %}"
                  "{% if m.role == 'user' %}{{ 'USER: ' + m.content + ' ' }}"
                  "{% elif m.role == 'assistant' %}{{ 'ASSISTANT: ' + m.content + eos_token }}{% endif %}{% endfor %}"
                  "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"},
};

const Named *find_named(const std::string &name) {
    for (const Named &one : templates)
        if (name == one.name) return &one;
    return nullptr;
}

// What ends a turn besides the tokens that the vocabulary names.
const char *const usual_turn_ends[] = {"<|im_end|>",
                                       "<|eot_id|>",
                                       "<|end|>",
                                       "<end_of_turn>",
                                       "<|eom_id|>",
                                       "<\xef\xbd\x9c"
                                       "end\xe2\x96\x81of\xe2\x96\x81sentence\xef\xbd\x9c>"};

const size_t most_prompts = 64; // turns of a conversation whose beginning is looked for

} // namespace

std::string chat_template_names() {
    std::string names;
    for (const Named &one : templates) names += (names.empty() ? "" : ", ") + std::string(one.name);
    return names;
}

ChatTemplate::ChatTemplate(const std::string &choice, const Tokenizer &tokenizer) : tokenizer_(tokenizer) {
    for (int32_t id : {tokenizer.end_token(), tokenizer.turn_end_token()})
        if (id >= 0 && !tokenizer.piece(id).empty()) turn_ends_.push_back(tokenizer.piece(id));
    for (const char *one : usual_turn_ends)
        if (std::find(turn_ends_.begin(), turn_ends_.end(), one) == turn_ends_.end()) turn_ends_.push_back(one);

    const bool automatic = choice.empty() || choice == "auto";
    if (choice == "model" && tokenizer.chat_template().empty())
        fail(tokenizer.source(), ": the model has no chat template; choose one by name, --chat-template ",
             chat_template_names());
    if ((automatic && !tokenizer.chat_template().empty()) || choice == "model") {
        name_ = "the model's own";
        template_ = std::make_unique<Template>(tokenizer.chat_template(), tokenizer.source() + ": chat template");
        return;
    }
    const Named *named = automatic ? nullptr : find_named(choice);
    for (const Named &one : templates)
        if (automatic && named == nullptr && one.token != nullptr && tokenizer.find(one.token) >= 0) named = &one;
    if (automatic && named == nullptr) named = find_named("vicuna");
    if (named == nullptr)
        fail("--chat-template ", shown(choice), ": expected auto, model, or one of ", chat_template_names());
    name_ = named->name;
    if (automatic) name_ += " (the model has none of its own)";
    template_ = std::make_unique<Template>(named->text, "chat template " + std::string(named->name));
}

TemplateText ChatTemplate::render(const std::vector<Message> &messages, size_t count, bool asks) const {
    TemplateList list;
    for (size_t i = 0; i < count; ++i) {
        const bool answer = messages[i].role == "assistant" && messages[i].learned;
        list.push_back(TemplateValue::of(
            TemplateDict{{"role", TemplateValue::of(messages[i].role, from_data)},
                         {"content", TemplateValue::of(messages[i].content, answer ? from_answer : from_data)}}));
    }
    const auto token = [&](int32_t id) {
        return TemplateValue::of(id >= 0 ? tokenizer_.piece(id) : std::string(), from_template);
    };
    return template_->render({{"messages", TemplateValue::of(std::move(list))},
                              {"bos_token", token(tokenizer_.begin_token())},
                              {"eos_token", token(tokenizer_.end_token())},
                              {"add_generation_prompt", TemplateValue::of(asks)},
                              {"tools", TemplateValue::of_none()},
                              {"documents", TemplateValue::of_none()}});
}

bool ChatTemplate::ends_turn(const TemplateText &text, size_t at, size_t *bytes) const {
    for (const std::string &end : turn_ends_)
        if (text.bytes.compare(at, end.size(), end) == 0 &&
            text.origin.compare(at, end.size(), std::string(end.size(), char(from_template))) == 0) {
            *bytes = end.size();
            return true;
        }
    return false;
}

std::vector<int32_t> ChatTemplate::turn_end_tokens() const {
    std::vector<int32_t> ids;
    for (const std::string &end : turn_ends_)
        if (const int32_t id = tokenizer_.find(end); id >= 0) ids.push_back(id);
    return ids;
}

std::vector<int32_t> ChatTemplate::prompt(const std::vector<Message> &messages) const {
    const Row row = encode(messages, true);
    std::vector<int32_t> ids = row.prompt;
    ids.insert(ids.end(), row.answer.begin(), row.answer.end());
    return ids;
}

Row ChatTemplate::encode(const std::vector<Message> &messages, bool asks) const {
    const TemplateText text = render(messages, messages.size(), asks);
    // Where the template, given what came before, would let the assistant speak.
    std::vector<size_t> prompts;
    for (size_t i = 0; i < messages.size() && prompts.size() < most_prompts; ++i) {
        if (messages[i].role != "assistant" || i == 0) continue;
        try {
            const std::string prompt = render(messages, i, true).bytes;
            if (text.bytes.compare(0, prompt.size(), prompt) == 0) prompts.push_back(prompt.size());
        } catch (const Error &) {} // then the answer's first byte is its beginning
    }

    std::string markup = text.origin;
    for (char &origin : markup) origin = origin == from_template;
    Row row;
    bool answered = false;
    // Tokens of the text up to `end`, of an answer or not.
    size_t done = 0;
    const auto take = [&](size_t end, bool trained) {
        if (end == done) return;
        const std::vector<int32_t> &before = row.answer.empty() ? row.prompt : row.answer;
        const bool begins = before.empty() || tokenizer_.is_control(before.back());
        std::vector<int32_t> ids = tokenizer_.encode(std::string_view(text.bytes).substr(done, end - done),
                                                     std::string_view(markup).substr(done, end - done), begins);
        if (!trained && !answered && tokenizer_.adds_begin() && (ids.empty() || ids[0] != tokenizer_.begin_token()))
            ids.insert(ids.begin(), tokenizer_.begin_token());
        std::vector<int32_t> &to = trained || answered ? row.answer : row.prompt;
        if (!trained && answered) row.given.emplace_back(to.size(), to.size() + ids.size());
        to.insert(to.end(), ids.begin(), ids.end());
        answered = answered || trained;
        done = end;
    };
    bool ended = false;
    for (size_t at = text.origin.find(char(from_answer)); at != std::string::npos;
         at = text.origin.find(char(from_answer), done)) {
        size_t start = at;
        for (size_t prompt : prompts)
            if (prompt >= done && prompt <= at) start = prompt;
        if (start == 0 && done == 0 && at == 0 && !tokenizer_.adds_begin())
            fail("the template writes nothing before the answer");
        size_t end = at, bytes = 0, last = at;
        ended = false;
        for (; end < text.bytes.size() && text.origin[end] != from_data && !ended; ++end) {
            if (text.origin[end] == from_answer) last = end + 1;
            else if ((ended = ends_turn(text, end, &bytes))) last = end + bytes;
        }
        if (start == 0) row.prompt.push_back(tokenizer_.begin_token());
        take(start, false);
        take(last, true);
    }
    if (asks) {
        take(text.bytes.size(), false);
        return row;
    }
    if (!answered) fail("no message of the assistant has any text to learn");
    // What follows the last answer teaches nothing. An answer without an end learns the end of the text.
    const bool control = !row.answer.empty() && tokenizer_.is_control(row.answer.back());
    if ((!ended || !control) && tokenizer_.end_token() >= 0) row.answer.push_back(tokenizer_.end_token());
    return row;
}

} // namespace finetune
