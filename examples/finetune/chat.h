// Conversations as a model reads them: by its own chat template or one with a name, and which of the tokens are
// answers.
#pragma once

#include "data.h"
#include "template.h"

namespace finetune {

struct Message {
    std::string role; // system, user, assistant, tool, ...
    std::string content;
    bool learned = true; // where it is an answer
};

// "chatml, llama2, ...", for messages.
std::string chat_template_names();

class ChatTemplate {
public:
    // `choice`: "model" for the model's own; a name; or "auto", the model's own, else the one that the vocabulary's
    // tokens speak for, else vicuna.
    ChatTemplate(const std::string &choice, const Tokenizer &tokenizer);

    const std::string &name() const { return name_; } // for people

    // The row of a conversation. Its answers are what the assistant said, each from the end of what the template writes
    // to make it speak, up to the token that ends its turn and with it. Throws Error when the template refuses.
    Row encode(const std::vector<Message> &messages) const { return encode(messages, false); }
    // The tokens after which the assistant speaks next; earlier answers are cut from the text as when they are learned.
    std::vector<int32_t> prompt(const std::vector<Message> &messages) const;
    // Tokens that end an answer.
    std::vector<int32_t> turn_end_tokens() const;

private:
    Row encode(const std::vector<Message> &messages, bool asks) const;
    TemplateText render(const std::vector<Message> &messages, size_t count, bool asks) const;
    bool ends_turn(const TemplateText &text, size_t at, size_t *bytes) const;

    const Tokenizer &tokenizer_;
    std::string name_;
    std::unique_ptr<Template> template_;
    std::vector<std::string> turn_ends_;
};

} // namespace finetune
