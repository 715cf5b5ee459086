// The tokenizer.json of Hugging Face's tokenizers: a pipeline of named parts, of which those that models with byte pairs or
// unigram pieces are published with are known here.
#include "json.h"
#include "vocabulary.h"

#include <algorithm>
#include <cstring>

namespace finetune {
namespace {

const char space_mark[] = "\xe2\x96\x81"; // U+2581
// ByteLevel's own, GPT-2's.
const char byte_level_pattern[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char punctuation[] = "[\\p{P}$+<=>^`|~]";
const size_t most_tokens = 1 << 24;

// The tokens and rules of one file.
class Reader {
public:
    explicit Reader(const std::string &path) : path_(path) {
        vocabulary_.source = path;
        vocabulary_.adds_begin = false;
        vocabulary_.adds_prefix = false;
    }

    Vocabulary read() {
        const MappedFile file(path_);
        const Json json = parse_json(file.text(), path_, 64);
        if (!json.is_object()) reject("expected a JSON object");
        read_model(member(json, "model"));
        read_added_tokens(member(json, "added_tokens"));
        read_normalizer(member(json, "normalizer"));
        read_pre_tokenizer(member(json, "pre_tokenizer"));
        read_post_processor(member(json, "post_processor"));
        if (byte_level_ && vocabulary_.kind == TokenizerKind::sentencepiece_pairs)
            vocabulary_.kind = TokenizerKind::byte_pairs;
        // Bytes need none, and files name another token there.
        if (vocabulary_.unknown >= 0 && !byte_level_) vocabulary_.types[size_t(vocabulary_.unknown)] = piece_unknown;
        if (!byte_level_ && !vocabulary_.patterns.empty())
            reject("pre_tokenizer: patterns without ByteLevel are not supported");
        return std::move(vocabulary_);
    }

private:
    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const {
        fail(path_, ": ", parts..., "; use a SentencePiece tokenizer.model, a GGUF base, or token ids");
    }

    static const Json &member(const Json &object, const char *key) {
        static const Json none;
        const auto found = object.is_object() ? object.find(key) : object.end();
        return found == object.end() ? none : *found;
    }
    static std::string text(const Json &object, const char *key) {
        const Json &value = member(object, key);
        return value.is_string() ? value.get<std::string>() : std::string();
    }
    static bool flag(const Json &object, const char *key, bool absent) {
        const Json &value = member(object, key);
        return value.is_boolean() ? value.get<bool>() : absent;
    }
    // The parts of a Sequence, or the one part; none where it is null.
    std::vector<const Json *> parts_of(const Json &value, const char *key) const {
        std::vector<const Json *> parts;
        if (value.is_null()) return parts;
        if (text(value, "type") != "Sequence") return {&value};
        const Json &list = member(value, key);
        if (!list.is_array()) reject("a Sequence without ", key);
        for (const Json &one : list)
            for (const Json *part : parts_of(one, key)) parts.push_back(part);
        return parts;
    }

    uint64_t id_of(const Json &value, const std::string &piece) const {
        if (!value.is_number_unsigned() || value.get<uint64_t>() >= most_tokens)
            reject("token ", shown(piece), ": its id is not a number below ", most_tokens);
        return value.get<uint64_t>();
    }

    void read_model(const Json &model) {
        std::string type = text(model, "type");
        if (type.empty() && member(model, "merges").is_array()) type = "BPE"; // of older files
        if (type == "BPE") read_byte_pairs(model);
        else if (type == "Unigram") read_unigram(model);
        else reject("model: type ", shown(type), " is not supported, expected 'BPE' or 'Unigram'");
    }

    void read_byte_pairs(const Json &model) {
        vocabulary_.kind = TokenizerKind::sentencepiece_pairs; // until a ByteLevel says otherwise
        const Json &pieces = member(model, "vocab"), &merges = member(model, "merges");
        if (!pieces.is_object() || !merges.is_array()) reject("model: expected vocab and merges");
        for (const char *key : {"continuing_subword_prefix", "end_of_word_suffix"})
            if (!text(model, key).empty()) reject("model: ", key, " ", shown(text(model, key)), " is not supported");
        if (member(model, "dropout").is_number() && member(model, "dropout") != 0) reject("model: dropout is not supported");
        const bool bytes = flag(model, "byte_fallback", false);
        for (const auto &[piece, value] : pieces.items()) {
            const bool byte = bytes && piece.size() == 6 && piece.rfind("<0x", 0) == 0 && piece[5] == '>';
            vocabulary_.place(id_of(value, piece), piece, byte ? piece_byte : piece_normal);
        }
        for (size_t rank = 0; rank < merges.size(); ++rank) {
            const Json &merge = merges[rank];
            if (merge.is_string()) {
                vocabulary_.merges.push_back(merge.get<std::string>());
            } else if (merge.is_array() && merge.size() == 2 && merge[0].is_string() && merge[1].is_string()) {
                const std::string left = merge[0].get<std::string>(), right = merge[1].get<std::string>();
                if (left.find(' ') != std::string::npos || right.find(' ') != std::string::npos)
                    reject("model: merge ", rank, " of tokens with spaces is not supported");
                vocabulary_.merges.push_back(left + " " + right);
            } else {
                reject("model: merge ", rank, " is not a pair of tokens");
            }
        }
        vocabulary_.whole_words = flag(model, "ignore_merges", false);
        const std::string unknown = text(model, "unk_token");
        if (!unknown.empty()) vocabulary_.unknown = id_named(unknown);
    }

    void read_unigram(const Json &model) {
        vocabulary_.kind = TokenizerKind::unigram;
        const Json &pieces = member(model, "vocab");
        if (!pieces.is_array() || pieces.size() >= most_tokens) reject("model: expected a list of pieces and scores");
        const bool bytes = flag(model, "byte_fallback", false);
        for (const Json &entry : pieces) {
            if (!entry.is_array() || entry.size() != 2 || !entry[0].is_string() || !entry[1].is_number())
                reject("model: piece ", vocabulary_.pieces.size(), " is not a text and a score");
            const std::string piece = entry[0].get<std::string>();
            const bool byte = bytes && piece.size() == 6 && piece.rfind("<0x", 0) == 0 && piece[5] == '>';
            vocabulary_.pieces.push_back(piece);
            vocabulary_.scores.push_back(entry[1].get<float>());
            vocabulary_.types.push_back(byte ? piece_byte : piece_normal);
        }
        const Json &unknown = member(model, "unk_id");
        if (unknown.is_number_unsigned() && unknown.get<uint64_t>() < vocabulary_.pieces.size()) {
            vocabulary_.unknown = unknown.get<int32_t>();
            vocabulary_.types[size_t(vocabulary_.unknown)] = piece_unknown;
        }
    }

    int32_t id_named(const std::string &piece) const {
        const auto found = std::find(vocabulary_.pieces.begin(), vocabulary_.pieces.end(), piece);
        return found == vocabulary_.pieces.end() ? -1 : static_cast<int32_t>(found - vocabulary_.pieces.begin());
    }

    void read_added_tokens(const Json &tokens) {
        if (tokens.is_null()) return;
        if (!tokens.is_array()) reject("added_tokens is not a list");
        for (const Json &token : tokens) {
            const std::string piece = text(token, "content");
            if (piece.empty()) reject("an added token without content");
            const bool special = flag(token, "special", false);
            if (!special && (flag(token, "single_word", false) || flag(token, "lstrip", false) || flag(token, "rstrip", false)))
                reject("added token ", shown(piece), ": single_word, lstrip and rstrip are not supported");
            if (special && flag(token, "rstrip", false)) vocabulary_.control_trims = true;
            const uint64_t id = id_of(member(token, "id"), piece);
            // A byte that is listed among the added tokens is still what unknown characters fall back to.
            if (id < vocabulary_.types.size() && vocabulary_.types[id] == piece_byte && vocabulary_.pieces[id] == piece) continue;
            vocabulary_.place(id, piece, special ? piece_control : piece_user_defined);
        }
    }

    void read_normalizer(const Json &normalizer) {
        for (const Json *part : parts_of(normalizer, "normalizers")) {
            const std::string type = text(*part, "type");
            const std::string pattern = text(member(*part, "pattern"), "String"), content = text(*part, "content");
            if (type == "NFC") {
                vocabulary_.composes = true;
            } else if (type == "Prepend" && text(*part, "prepend") == space_mark) {
                vocabulary_.adds_prefix = true;
            } else if (type == "Replace" && pattern == " " && content == space_mark) {
                continue; // as SentencePiece's pieces are spelled
            } else if (type == "Replace" && text(member(*part, "pattern"), "Regex") == " {2,}" &&
                       (content == " " || content == space_mark)) {
                vocabulary_.trims = true;
            } else if (type == "Precompiled") {
                vocabulary_.character_map = from_base64(text(*part, "precompiled_charsmap"));
            } else if (type == "Strip" && vocabulary_.kind == TokenizerKind::unigram) {
                vocabulary_.trims = true;
            } else {
                reject("normalizer: ", shown(type), " ", shown(pattern), " is not supported");
            }
        }
    }

    void read_pre_tokenizer(const Json &pre_tokenizer) {
        for (const Json *part : parts_of(pre_tokenizer, "pretokenizers")) {
            const std::string type = text(*part, "type");
            if (type == "ByteLevel") {
                byte_level_ = true;
                if (flag(*part, "add_prefix_space", true)) vocabulary_.adds_prefix = true;
                if (flag(*part, "use_regex", true)) vocabulary_.patterns.push_back(byte_level_pattern);
            } else if (type == "Split") {
                read_split(*part);
            } else if (type == "Digits") {
                vocabulary_.patterns.push_back(flag(*part, "individual_digits", false) ? "\\p{N}" : "\\p{N}+");
            } else if (type == "Punctuation") {
                const std::string behavior = text(*part, "behavior");
                if (behavior != "Contiguous" && behavior != "Isolated" && !behavior.empty())
                    reject("pre_tokenizer: Punctuation with behavior ", shown(behavior), " is not supported");
                vocabulary_.patterns.push_back(std::string(punctuation) + (behavior == "Contiguous" ? "+" : ""));
            } else if (type == "Metaspace") {
                read_metaspace(*part);
            } else if (type == "WhitespaceSplit" && vocabulary_.kind == TokenizerKind::unigram) {
                continue; // Metaspace, which follows it, cuts there
            } else {
                reject("pre_tokenizer: ", shown(type), " is not supported");
            }
        }
        if (vocabulary_.patterns.size() > 64) reject("pre_tokenizer: more than 64 patterns are not supported");
    }

    void read_split(const Json &part) {
        const Json &pattern = member(part, "pattern");
        const std::string regex = text(pattern, "Regex"), plain = text(pattern, "String"), behavior = text(part, "behavior");
        // A space is gone where a normalizer has replaced it by its mark.
        if (plain == " " && (behavior == "MergedWithPrevious" || behavior == "Isolated")) return;
        const bool inverted = flag(part, "invert", false);
        if (regex.empty() && plain.empty()) reject("pre_tokenizer: Split without a pattern");
        if (!(behavior == "Isolated" || (behavior == "Removed" && inverted) || (behavior == "Contiguous" && !inverted)))
            reject("pre_tokenizer: Split with behavior ", shown(behavior), " is not supported");
        std::string quoted = regex;
        if (regex.empty())
            for (char c : plain) {
                if (strchr("\\^$.[]|()?*+{}", c) != nullptr) quoted += '\\';
                quoted += c;
            }
        vocabulary_.patterns.push_back(behavior == "Contiguous" ? "(?:" + quoted + ")+" : quoted);
    }

    void read_metaspace(const Json &part) {
        if (text(part, "replacement") != space_mark)
            reject("pre_tokenizer: Metaspace with ", shown(text(part, "replacement")), " is not supported");
        std::string scheme = text(part, "prepend_scheme");
        if (scheme.empty()) scheme = flag(part, "add_prefix_space", true) ? "always" : "never";
        vocabulary_.adds_prefix = scheme != "never";
        vocabulary_.prefix_first_only = scheme == "first";
        vocabulary_.prefix_unless_space = true;
        vocabulary_.splits_at_spaces = flag(part, "split", true);
    }

    // Whether a text gets the token that begins it.
    void read_post_processor(const Json &processor) {
        for (const Json *part : parts_of(processor, "processors")) {
            const Json &single = member(*part, "single");
            if (text(*part, "type") != "TemplateProcessing" || !single.is_array() || single.empty()) continue;
            const std::string first = text(member(single[0], "SpecialToken"), "id");
            if (first.empty()) continue;
            vocabulary_.adds_begin = true;
            vocabulary_.begin = id_named(first);
        }
    }

    std::string from_base64(const std::string &coded) const {
        const std::string digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        std::string bytes;
        uint32_t bits = 0, count = 0;
        for (char c : coded) {
            if (c == '=') break;
            const size_t value = digits.find(c);
            if (value == std::string::npos) reject("normalizer: precompiled_charsmap is not base64");
            bits = bits << 6 | uint32_t(value);
            if ((count += 6) >= 8) bytes += static_cast<char>(bits >> (count -= 8) & 255);
        }
        return bytes;
    }

    std::string path_;
    Vocabulary vocabulary_;
    bool byte_level_ = false;
};

} // namespace

Vocabulary read_tokenizer_json(const std::string &path) { return Reader(path).read(); }

} // namespace finetune
