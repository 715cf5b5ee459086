// Data that is text: which form a file and a row have, and their tokens.
#include "chat.h"
#include "data_rows.h"
#include "data_values.h"
#include "json.h"

namespace finetune {
namespace {

const int most_depth = 16;
const size_t most_reasons = 5;

// A row of text before it is tokens.
struct TextRow {
    const char *form = "";
    std::vector<Message> messages;            // of a conversation, and of what can become one
    std::string prompt, answer;               // of other forms
    bool conversation = false, whole = false; // whole: every token counts, the answer is the text
};

const std::string *find_text(const Json &row, const char *key) {
    const auto found = row.find(key);
    if (found == row.end() || found->is_null()) return nullptr;
    if (!found->is_string()) fail("'", key, "' is ", found->type_name(), ", expected a string");
    return found->get_ptr<const std::string *>();
}

const std::string &need_text(const Json &row, std::initializer_list<const char *> keys) {
    for (const char *key : keys)
        if (const std::string *text = find_text(row, key)) {
            if (text->empty()) fail("'", key, "' is empty");
            return *text;
        }
    fail("'", *keys.begin(), "' is missing");
}

// ShareGPT's names of roles, and the usual ones.
std::string role_of(const std::string &from) {
    if (from == "human" || from == "user") return "user";
    if (from == "gpt" || from == "assistant" || from == "model" || from == "bot" || from == "chatgpt")
        return "assistant";
    if (from == "system" || from == "developer") return "system";
    if (from == "tool" || from == "function" || from == "observation" || from == "ipython") return "tool";
    fail("role ", shown(from), " is unknown; expected system, user, assistant or tool (human and gpt in ShareGPT)");
}

// A text, or OpenAI's list of parts that are texts.
std::string content_of(const Json &message, const char *key, size_t number) {
    const auto found = message.find(key);
    if (found == message.end() || found->is_null()) {
        if (message.contains("tool_calls") || message.contains("function_call"))
            fail("message ", number, " calls a tool and has no text; only texts are learned");
        fail("message ", number, ": '", key, "' is missing");
    }
    if (found->is_string()) return found->get<std::string>();
    if (!found->is_array()) fail("message ", number, ": '", key, "' is ", found->type_name(), ", expected a string");
    std::string all;
    for (const Json &part : *found) {
        const std::string *text = part.is_object() ? find_text(part, "text") : nullptr;
        if (text == nullptr) fail("message ", number, ": a part of '", key, "' is no text");
        all += *text;
    }
    return all;
}

// OpenAI's "weight" of an answer: 0 is read and not learned.
bool is_learned(const Json &message, size_t number) {
    const auto found = message.find("weight");
    if (found == message.end() || found->is_null()) return true;
    if (*found != 0 && *found != 1) fail("message ", number, ": 'weight' is ", found->dump(-1, ' ', true, Json::error_handler_t::replace), ", expected 0 or 1");
    return *found == 1;
}

TextRow conversation(const Json &messages, const std::string *system) {
    TextRow row;
    row.conversation = true;
    row.form = "OpenAI messages";
    if (!messages.is_array() || messages.empty())
        fail("the conversation is ", messages.empty() ? "empty" : messages.type_name(),
             ", expected an array of messages");
    if (system != nullptr && !system->empty()) row.messages.push_back({"system", *system});
    bool answers = false;
    for (size_t i = 0; i < messages.size(); ++i) {
        const Json &message = messages[i];
        if (!message.is_object()) fail("message ", i + 1, " is ", message.type_name(), ", expected an object");
        const bool share = message.contains("from");
        if (share) row.form = "ShareGPT";
        const std::string *from = find_text(message, share ? "from" : "role");
        if (from == nullptr) fail("message ", i + 1, ": 'role' (or 'from') is missing");
        row.messages.push_back({role_of(*from), content_of(message, share ? "value" : "content", i + 1), is_learned(message, i + 1)});
        const Message &read = row.messages.back();
        answers = answers || (read.role == "assistant" && read.learned && !read.content.empty());
    }
    if (!answers) fail("no message of the assistant has any text to learn");
    return row;
}

TextRow read_row(const Json &row) {
    if (row.is_array()) return conversation(row, nullptr);
    if (!row.is_object()) fail("expected a JSON object, found ", row.type_name());
    for (const char *key : {"messages", "conversations", "conversation"})
        if (row.contains(key)) return conversation(row[key], find_text(row, "system"));
    TextRow out;
    std::string asked;
    if (row.contains("prompt")) {
        out.form = "prompt and completion";
        if (const std::string *prompt = find_text(row, "prompt")) out.prompt = asked = *prompt;
        out.answer = need_text(row, {"completion", "answer", "response", "output"});
    } else if (row.contains("instruction")) {
        out.form = "Alpaca";
        const std::string &instruction = need_text(row, {"instruction"});
        const std::string *input = find_text(row, "input"), *system = find_text(row, "system");
        if (system != nullptr && !system->empty()) {
            out.prompt = *system + "\n\n";
            out.messages.push_back({"system", *system});
        }
        asked = instruction;
        out.prompt += "### Instruction:\n" + instruction + "\n\n";
        if (input != nullptr && !input->empty()) {
            out.prompt += "### Input:\n" + *input + "\n\n";
            asked += "\n\n" + *input;
        }
        out.prompt += "### Response:\n";
        out.answer = need_text(row, {"output", "response"});
    } else if (row.contains("question")) {
        out.form = "question and answer";
        asked = need_text(row, {"question"});
        out.prompt = "### Question:\n" + asked + "\n\n### Answer:\n";
        out.answer = need_text(row, {"answer"});
    } else if (row.contains("text")) {
        out.form = "text";
        out.answer = need_text(row, {"text"});
        out.whole = true;
        return out;
    } else {
        for (const auto &[key, value] : row.items())
            if (value.is_array() && !value.empty() && value[0].is_object())
                fail("an object with rows under ", shown(key), "; give a file with that array alone");
        fail("no form of row that is known; expected messages, conversations, instruction and output, prompt and "
             "completion, question and answer, or text");
    }
    out.messages.push_back({"user", asked});
    out.messages.push_back({"assistant", out.answer});
    return out;
}

class Reader {
public:
    Reader(const std::string &path, const Tokenizer &tokenizer, const DataLimits &limits,
           const std::string &chat_template)
        : tokenizer_(tokenizer), limits_(limits), choice_(chat_template) {
        data_.source = path;
    }

    Dataset run(std::string_view text) {
        if (is_plain_text(text, data_.source)) {
            add_whole("plain text", text, data_.source, false);
        } else {
            JsonValues values(text);
            std::string_view value;
            uint64_t line = 0;
            while (values.next(&value, &line)) add(value, line);
        }
        check_not_empty(data_);
        return std::move(data_);
    }

private:
    void add(std::string_view value, uint64_t line) {
        const std::string where = data_.source + ":" + std::to_string(line);
        Row row;
        TextRow text;
        try {
            text = read_row(parse_json(value, "", most_depth));
        } catch (const Error &error) { return drop(error, line); }
        if (text.conversation || chosen()) choose_template(); // its errors are no fault of the row
        try {
            if (!text.whole) row = tokens_of(text);
        } catch (const Error &error) { return drop(error, line); }
        if (text.whole) return add_whole(text.form, text.answer, where, true);
        const size_t before = data_.rows.size();
        add_row(data_, std::move(row), limits_, where);
        data_.forms[text.form] += data_.rows.size() - before;
    }

    void drop(const Error &error, uint64_t line) {
        std::string why = error.what();
        if (why.substr(0, 2) == ": ") why.erase(0, 2); // parse_json without a place
        if (limits_.strict)
            fail(data_.source, ":", line, ": ", why, "; remove the row, or leave out --strict to drop it");
        ++data_.broken;
        if (data_.broken_why.size() < most_reasons)
            data_.broken_why.push_back("line " + std::to_string(line) + ": " + why);
    }

    bool chosen() const { return !choice_.empty() && choice_ != "auto"; }

    void choose_template() {
        if (template_) return;
        template_ = std::make_unique<ChatTemplate>(choice_, tokenizer_);
        data_.chat_template = template_->name();
    }

    Row tokens_of(const TextRow &text) {
        if (text.conversation || chosen()) return template_->encode(text.messages);
        Row row;
        row.prompt = tokenizer_.encode(text.prompt, true);
        if (tokenizer_.adds_begin()) row.prompt.insert(row.prompt.begin(), tokenizer_.begin_token());
        if (row.prompt.empty()) fail("the prompt is empty, and this tokenizer begins texts with no token of its own");
        row.answer = tokenizer_.encode(text.answer, false);
        if (tokenizer_.end_token() >= 0) row.answer.push_back(tokenizer_.end_token());
        return row;
    }

    // A text of which every token counts, in rows that are as long as they may be; the first token of a row is its
    // prompt.
    void add_whole(const char *form, std::string_view text, const std::string &where, bool ends) {
        std::vector<int32_t> ids = tokenizer_.encode(text, true);
        if (tokenizer_.adds_begin()) ids.insert(ids.begin(), tokenizer_.begin_token());
        if (ends && tokenizer_.end_token() >= 0) ids.push_back(tokenizer_.end_token());
        const size_t window = size_t(std::min<uint64_t>(limits_.sequence, ids.size()));
        for (size_t first = 0; first + 1 < ids.size(); first += window) {
            const size_t end = std::min(ids.size(), first + window);
            if (end - first < 2) break;
            Row row;
            row.prompt = {ids[first]};
            row.answer.assign(ids.begin() + long(first) + 1, ids.begin() + long(end));
            add_row(data_, std::move(row), limits_, where);
            ++data_.forms[form];
        }
    }

    const Tokenizer &tokenizer_;
    const DataLimits &limits_;
    const std::string &choice_;
    std::unique_ptr<ChatTemplate> template_;
    Dataset data_;
};

} // namespace

Dataset read_data(const std::string &path, const Tokenizer &tokenizer, const DataLimits &limits,
                  const std::string &chat_template) {
    const MappedFile file(path);
    return Reader(path, tokenizer, limits, chat_template).run(file.text());
}

} // namespace finetune
