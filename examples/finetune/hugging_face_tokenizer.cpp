// The tokenizer of a Hugging Face directory: tokenizer.model or tokenizer.json, with what tokenizer_config.json and
// chat_template.jinja add.
#include "base_model.h"
#include "json.h"
#include "tokenizer.h"

namespace finetune {
namespace {

const Json *find(const Json &object, const char *key) {
    const auto found = object.is_object() ? object.find(key) : object.end();
    return found == object.end() || found->is_null() ? nullptr : &*found;
}

// A token is named by its text, or by an object that has it.
std::string token_text(const Json &config, const char *key) {
    const Json *value = find(config, key);
    if (value != nullptr && value->is_object()) value = find(*value, "content");
    return value != nullptr && value->is_string() ? value->get<std::string>() : std::string();
}

// One template, or several with names, of which "default" is for conversations.
std::string template_text(const Json &config) {
    const Json *value = find(config, "chat_template");
    if (value == nullptr) return "";
    if (value->is_string()) return value->get<std::string>();
    if (value->is_array())
        for (const Json &one : *value)
            if (token_text(one, "name") == "default") return token_text(one, "template");
    return "";
}

void add_tokens(const std::string &path, const Json &config, Vocabulary &vocabulary, uint64_t most) {
    const Json *added = find(config, "added_tokens_decoder");
    if (added == nullptr || !added->is_object()) return;
    for (const auto &[key, token] : added->items()) {
        const bool digits = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
        const uint64_t id = digits ? std::stoull(key) : UINT64_MAX;
        if (id >= most) fail(path, ": added_tokens_decoder: ", shown(key), " is not a token id below ", most);
        const std::string piece = token_text(token, "content");
        if (piece.empty()) fail(path, ": added_tokens_decoder: token ", id, " has no content");
        const Json *special = find(token, "special");
        const bool control = special != nullptr && special->is_boolean() && special->get<bool>();
        if (id < vocabulary.pieces.size() && vocabulary.pieces[id] == piece) continue;
        vocabulary.place(id, piece, control ? piece_control : piece_user_defined);
    }
}

int32_t id_of(const Vocabulary &vocabulary, const std::string &piece) {
    for (size_t id = 0; id < vocabulary.pieces.size(); ++id)
        if (!piece.empty() && vocabulary.pieces[id] == piece) return static_cast<int32_t>(id);
    return -1;
}

} // namespace

std::unique_ptr<Tokenizer> BaseModel::directory_tokenizer(bool needed) const {
    const std::string folder = safetensors_->folder(), model = folder + "tokenizer.model", json = folder + "tokenizer.json";
    const bool listed = !exists(model);
    if (listed && !exists(json)) {
        if (!needed) return nullptr;
        reject("there is no tokenizer.json and no tokenizer.model; put the model's own beside its config.json, or give "
               "token ids: --train-ids, --eval-ids");
    }
    Vocabulary vocabulary;
    try {
        vocabulary = listed ? read_tokenizer_json(json) : read_sentencepiece(model);
    } catch (const Error &) {
        if (needed || !listed) throw;
        return nullptr; // token ids need none
    }
    const std::string config_path = folder + "tokenizer_config.json";
    if (exists(config_path)) {
        const MappedFile file(config_path);
        const Json config = parse_json(file.text(), config_path, 16);
        if (!config.is_object()) fail(config_path, ": expected a JSON object");
        const Json *begins = find(config, "add_bos_token");
        if (begins != nullptr && !begins->is_boolean()) fail(config_path, ": key 'add_bos_token' is not true or false");
        if (begins != nullptr || !listed) vocabulary.adds_begin = begins == nullptr || begins->get<bool>();
        vocabulary.chat_template = template_text(config);
        if (!listed) add_tokens(config_path, config, vocabulary, shape_.vocabulary);
        else {
            if (const int32_t id = id_of(vocabulary, token_text(config, "bos_token")); id >= 0) vocabulary.begin = id;
            if (const int32_t id = id_of(vocabulary, token_text(config, "eos_token")); id >= 0) vocabulary.end = id;
        }
    }
    const int32_t named_end = vocabulary.end;
    if (exists(folder + "chat_template.jinja"))
        vocabulary.chat_template = std::string(MappedFile(folder + "chat_template.jinja").text());
    if (vocabulary.pieces.size() > shape_.vocabulary)
        reject(listed ? "tokenizer.json" : "tokenizer.model", " has ", vocabulary.pieces.size(), " tokens, the embedding ",
               shape_.vocabulary, " rows");
    if (vocabulary.pieces.size() < shape_.vocabulary)
        vocabulary.place(shape_.vocabulary - 1, "", piece_unused); // padding rows
    if (begin_token_ >= 0) vocabulary.begin = begin_token_;
    if (end_token_ >= 0) vocabulary.end = end_token_;
    for (int32_t token : {vocabulary.begin, vocabulary.end})
        if (token >= static_cast<int32_t>(shape_.vocabulary))
            reject("config.json: token ", token, " is outside the vocabulary of ", shape_.vocabulary);
    if (named_end >= 0 && named_end != vocabulary.end) vocabulary.turn_end = named_end;
    return std::make_unique<Tokenizer>(std::move(vocabulary));
}

} // namespace finetune
