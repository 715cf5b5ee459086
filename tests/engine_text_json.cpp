// Tokenizers as tokenizer.json describes them, against ids that the tokenizers package gave, and parts that are refused.
#include "engine_support.h"

#include "json.h"
#include "tokenizer.h"
#include "unicode.h"

namespace finetune {
namespace {

Json fixture() {
    const std::string path = std::string(QLORA_SOURCE_DIR) + "/tests/golden/tokenizer_json.json";
    const MappedFile file(path);
    return parse_json(file.text(), path, 64);
}

} // namespace

TEST_CASE("tokenizer.json: every kind of pipeline, id for id") {
    const Json all = fixture();
    for (const auto &[name, one] : all.items()) {
        if (name == "texts") continue;
        CAPTURE(name);
        Json described = one["tokenizer"];
        const Json &model = described["model"];
        if (model.value("byte_fallback", false) && model["type"] == "BPE") // listed a second time it is the same byte
            described["added_tokens"].push_back({{"id", model["vocab"].at("<0xC3>")}, {"content", "<0xC3>"}, {"special", true}});
        const Scratch file(described.dump());
        const Tokenizer tokenizer(read_tokenizer_json(file.path));
        for (size_t i = 0; i < all["texts"].size(); ++i) {
            const std::string text = all["texts"][i].get<std::string>();
            CAPTURE(text);
            const std::vector<int32_t> ids = tokenizer.encode(text, std::string(text.size(), 1), true);
            CHECK(ids == one["ids"][i].get<std::vector<int32_t>>());
        }
        CHECK(tokenizer.adds_begin() == one["tokenizer"]["post_processor"].is_object());
    }
}

TEST_CASE("tokenizer.json: what is not known is refused by its name") {
    const Json all = fixture();
    const auto refused = [&](const char *path, const Json &value) {
        Json changed = all["llama3"]["tokenizer"];
        changed[Json::json_pointer(path)] = value;
        const Scratch file(changed.dump());
        return error_of([&] { Tokenizer tokenizer(read_tokenizer_json(file.path)); });
    };
    CHECK(contains(refused("/model/type", "WordPiece"), "model: type 'WordPiece' is not supported"));
    CHECK(contains(refused("/normalizer", {{"type", "Lowercase"}}), "normalizer: 'Lowercase'"));
    CHECK(contains(refused("/pre_tokenizer/pretokenizers/0/behavior", "MergedWithNext"), "Split with behavior 'MergedWithNext'"));
    CHECK(contains(refused("/pre_tokenizer/pretokenizers/0", {{"type", "UnicodeScripts"}}), "'UnicodeScripts' is not supported"));
    CHECK(contains(refused("/model/vocab/x", -3), "its id is not a number"));
    CHECK(contains(refused("/model/merges/0", 7), "merge 0 is not a pair of tokens"));
    CHECK(contains(refused("/pre_tokenizer/pretokenizers/0/pattern/Regex", "(unclosed"), "PCRE2 refuses the pattern"));
    CHECK(contains(refused("/pre_tokenizer/pretokenizers/0/pattern/Regex", "a\\"), "PCRE2 refuses the pattern"));
    CHECK(contains(refused("/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\C"), "PCRE2 refuses the pattern")); // half a character
    const Json digits = {{"type", "Digits"}, {"individual_digits", true}};
    CHECK(contains(refused("/pre_tokenizer/pretokenizers", std::vector<Json>(1000, digits)), "more than 64 patterns"));
    CHECK(contains(error_of([&] { read_tokenizer_json(Scratch("[1]").path); }), "expected a JSON object"));
}

TEST_CASE("unicode: form C") {
    CHECK(composed("plain") == "plain");
    CHECK(composed("e\xcc\x81") == "\xc3\xa9");
    CHECK(composed("a\xcc\xa3\xcc\x82") == "\xe1\xba\xad");       // marks in canonical order
    CHECK(composed("a\xcc\x82\xcc\xa3") == "\xe1\xba\xad");       // and not
    CHECK(composed("\xe2\x84\xab") == "\xc3\x85");                 // a character that is another one
    CHECK(composed("\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab") == "\xed\x95\x9c"); // Hangul
    CHECK(composed("\xe0\xa5\x98") == "\xe0\xa4\x95\xe0\xa4\xbc"); // excluded from composition
    CHECK(composed("\xff" "e\xcc\x81\xcc") == "\xff\xc3\xa9\xcc");
}

} // namespace finetune
