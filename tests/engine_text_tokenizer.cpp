// Tokenizers of examples/finetune: the vocabulary files of llama.cpp with their texts and ids, a vocabulary made here,
// and texts that try to be slow or to break out.
#include "engine_text_support.h"

#include "merges.h"
#include "pre_tokenizer.h"
#include "rng.h"

#include <algorithm>
#include <ctime>
#include <dirent.h>

using namespace finetune;

namespace {

using namespace std::string_literals;
using Ids = std::vector<int32_t>;

std::string joined(const Ids &ids) {
    std::string text;
    for (int32_t id : ids) text += " " + std::to_string(id);
    return text;
}

std::vector<std::string> words_of(const char *name, std::string_view text) {
    std::vector<std::string> words;
    PreTokenizer(name, "test").split(text, [&](std::string_view word) { words.emplace_back(word); });
    return words;
}

} // namespace

TEST_CASE("tokenizer: every vocabulary of the golden folder, text for text") {
    const std::string folder = shared("data/vocab");
    if (folder.empty()) return;
    std::vector<std::string> files;
    DIR *entries = opendir(folder.c_str());
    REQUIRE(entries != nullptr);
    while (const dirent *entry = readdir(entries)) {
        const std::string name = entry->d_name;
        if (name.size() > 5 && name.substr(name.size() - 5) == ".gguf") files.push_back(folder + "/" + name);
    }
    closedir(entries);
    REQUIRE(files.size() >= 3);
    for (const std::string &path : files) {
        CAPTURE(path);
        const Gguf file(path);
        const Tokenizer tokenizer(file);
        const MappedFile inputs(path + ".inp"), outputs(path + ".out");
        const std::string_view separator = "\n__ggml_vocab_test__\n";
        std::string_view rest = inputs.text(), lines = outputs.text();
        int cases = 0;
        while (!lines.empty()) {
            const std::string_view text = rest.substr(0, rest.find(separator));
            rest.remove_prefix(std::min(rest.size(), text.size() + separator.size()));
            const std::string_view line = lines.substr(0, lines.find('\n'));
            lines.remove_prefix(std::min(lines.size(), line.size() + 1));
            CAPTURE(text);
            const Ids ids = tokenizer.encode(text);
            CHECK(joined(ids) == line);
            CHECK(tokenizer.decode(ids, true) == text);
            ++cases;
        }
        CHECK(cases > 40);
    }
}

TEST_CASE("tokenizer: the words of each family of models") {
    using Words = std::vector<std::string>;
    const std::string text = "I'VE it's 12345  x\n\n \n+=";
    CHECK(words_of("gpt-2", text) == Words{"I", "'", "VE", " it", "'s", " 12345", " ", " x", "\n\n ", "\n", "+="});
    CHECK(words_of("llama-bpe", text) == Words{"I", "'VE", " it", "'s", " ", "123", "45", " ", " x", "\n\n \n", "+="});
    CHECK(words_of("qwen2", text) ==
          Words{"I", "'VE", " it", "'s", " ", "1", "2", "3", "4", "5", " ", " x", "\n\n \n", "+="});
    CHECK(words_of("starcoder", text) ==
          Words{"I", "'", "VE", " it", "'s", " ", "1", "2", "3", "4", "5", " ", " x", "\n\n ", "\n", "+="});
    CHECK(words_of("falcon", text) ==
          Words{"I", "'", "VE", " it", "'", "s", " ", "123", "45", " ", " x", "\n\n \n", "+="});
    CHECK(words_of("deepseek-llm", text) ==
          Words{"I", "'", "VE", " it", "'", "s", " ", "12345", " ", " x", "\n", "\n", " ", "\n", "+="});
    CHECK(words_of("deepseek-coder", "a1\xe4\xb8\xad\xe6\x96\x87 b") ==
          Words{"a", "1", "\xe4\xb8\xad\xe6\x96\x87", " b"});
    CHECK(words_of("deepseek-v3", "(abc 1234 \xe4\xb8\xad\xe6\x96\x87y.\n") ==
          Words{"(abc", " ", "123", "4", " ", "\xe4\xb8\xad\xe6\x96\x87", "y", ".\n"});
    CHECK(words_of("tekken", "HelloWorld ABC12") == Words{"Hello", "World", " ABC", "1", "2"});
    CHECK(words_of("gpt-4o", "HelloWorld's 1234") == Words{"Hello", "World's", " ", "123", "4"});
    CHECK(words_of("bloom", "a, b") == Words{"a", ",", " b"});
    CHECK(words_of("viking", "a12") == Words{"a", "1", "2"});
    for (const char *name : {"gpt-2", "llama-bpe", "deepseek-llm", "tekken", "default"}) {
        const std::string broken = "a\xff\xc3\xc3\xa9 \xed\xa0\x80\xf0\x9f\x99 z";
        std::string whole;
        for (const std::string &word : words_of(name, broken)) whole += word;
        CHECK(whole == broken);
        CHECK(words_of(name, "").empty());
    }
    // White space is Unicode's: U+0085 and U+3000 are, U+180E is not any more.
    CHECK(words_of("gpt-2", "a\xe3\x80\x80\xc2\x85") == Words{"a", "\xe3\x80\x80\xc2\x85"});
    CHECK(words_of("gpt-2", "\xe1\xa0\x8e!") == Words{"\xe1\xa0\x8e!"});
    CHECK(
        contains(error_of([] { PreTokenizer("no-such", "m.gguf"); }), "m.gguf: pre-tokenizer 'no-such' is not known"));
}

TEST_CASE("tokenizer: byte pairs of a small vocabulary") {
    const std::string space = "\xc4\xa0"; // how a space is spelled
    const Tokenizer tokenizer(
        byte_vocabulary({{"l", "o"}, {"lo", "w"}, {space, "lo"}, {"e", "r"}, {"w", "er"}, {"w", "e"}}, "gpt-2"));
    CHECK(tokenizer.encode("lower") == Ids{257, 259});     // the lowest rank first: lo, low, then er
    CHECK(tokenizer.encode("we lo") == Ids{261, 258});     // a space belongs to the word after it
    CHECK(tokenizer.encode("<|end|>").size() == 7);        // data cannot forge control tokens,
    CHECK(tokenizer.encode("a<|tool|>") == Ids{'a', 263}); // user-defined ones match,
    const std::string text = "a<|end|>b<|end|>", markup = "\1\1\1\1\1\1\1\1" + std::string(8, '\0');
    const Ids mixed = tokenizer.encode(text, markup, true); // and templates write control tokens
    CHECK(mixed.size() == 3 + 7);
    CHECK(mixed[1] == 262);
    CHECK(tokenizer.decode(mixed) == "ab<|end|>");
    CHECK(tokenizer.find("<|end|>") == 262);
    CHECK(tokenizer.find("<|en") == -1);
    const std::string bytes = "\xff\xfe z\0 \xc3"s;
    CHECK(tokenizer.decode(tokenizer.encode(bytes)) == bytes);
    CHECK(tokenizer.encode("").empty());

    Vocabulary whole = byte_vocabulary({{"a", "b"}}, "llama-bpe");
    whole.pieces.push_back("xyz");
    whole.types.push_back(piece_normal);
    CHECK(Tokenizer(std::move(whole)).encode("xyz") == Ids{259}); // no merge makes it, but the word is a token
    Vocabulary broken = byte_vocabulary({{"a", "b"}}, "gpt-2");
    broken.merges.push_back("ab");
    CHECK(contains(error_of([&] { Tokenizer tokenizer_of_broken(std::move(broken)); }), "merge 1 'ab'"));
}

TEST_CASE("tokenizer: unigram takes the likeliest pieces") {
    Vocabulary vocabulary;
    vocabulary.kind = TokenizerKind::unigram;
    vocabulary.source = "unigram";
    const std::string mark = "\xe2\x96\x81";
    vocabulary.pieces = {"<unk>", mark + "un", "re", "al", "real", mark,     "u",
                         "n",     "a",         "l",  "r",  "e",    "<0xC3>", "<0xA9>"};
    vocabulary.scores = {0, -3, -2, -2, -5, -4, -6, -6, -6, -6, -6, -6, 0, 0};
    vocabulary.types = {2, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 6, 6};
    vocabulary.adds_begin = false;
    const Tokenizer tokenizer(vocabulary);
    CHECK(tokenizer.encode("unreal") == Ids{1, 2, 3});
    CHECK(tokenizer.encode("real", false) == Ids{2, 3});
    CHECK(tokenizer.decode({1, 2, 3}, true) == "unreal");
    CHECK(tokenizer.encode("\xc3\xa9", false) == Ids{12, 13}); // byte tokens,
    CHECK(tokenizer.encode("zzz", false) == Ids{0});           // or one unknown token for a run
    CHECK(tokenizer.encode("  un  real ", true) == Ids{5, 5, 1, 5, 5, 2, 3, 5});
    vocabulary.trims = true;
    CHECK(Tokenizer(vocabulary).encode("  un  real ", true) == Ids{1, 5, 2, 3});
    vocabulary.character_map = std::string("\x10\0\0\0abc", 7);
    CHECK(contains(error_of([&] { Tokenizer broken(vocabulary); }), "character map"));
}

TEST_CASE("tokenizer: merging is the same for short and long words") {
    Merges merges;
    Random random(5, 0);
    const int letters = 4;
    struct Rule {
        int32_t left, right, product;
    };
    std::vector<Rule> rules;
    for (int32_t rank = 0; rank < 60; ++rank) {
        const int32_t product = letters + rank;
        Rule rule = {int32_t(random.next_below(uint64_t(product))), int32_t(random.next_below(uint64_t(product))),
                     product};
        if (merges.has(rule.left, rule.right)) continue;
        merges.add(rule.left, rule.right, rank, product);
        rules.push_back(rule);
    }
    for (size_t length : {2, 31, 32, 33, 100, 3000}) {
        std::vector<Symbol> word(length);
        for (Symbol &symbol : word) symbol = {int32_t(random.next_below(letters + 1)) - 1, 1};
        std::vector<int32_t> expected;
        for (const Symbol &symbol : word) expected.push_back(symbol.id);
        // The definition: again and again the lowest rank, leftmost.
        for (size_t rule = 0; rule < rules.size();) {
            size_t i = 0;
            while (i + 1 < expected.size() && (expected[i] != rules[rule].left || expected[i + 1] != rules[rule].right))
                ++i;
            if (i + 1 >= expected.size()) {
                ++rule;
                continue;
            }
            expected[i] = rules[rule].product;
            expected.erase(expected.begin() + long(i) + 1);
            rule = 0;
        }
        merges.apply(word);
        std::vector<int32_t> ids;
        size_t bytes = 0;
        for (const Symbol &symbol : word) {
            ids.push_back(symbol.id);
            bytes += symbol.bytes;
        }
        CHECK(ids == expected);
        CHECK(bytes == length);
    }
}

TEST_CASE("tokenizer: hostile texts are neither fatal nor slow") {
    const size_t bytes = getenv("QLORA_TEST_ALL") != nullptr ? 10u << 20 : 1u << 20;
    const auto repeated = [&](const std::string &part) {
        std::string text;
        while (text.size() < bytes) text += part;
        return text;
    };
    std::string noise(bytes, 0), letters(bytes, 0);
    Random random(3, 0);
    for (char &c : noise) c = char(random.next());
    for (char &c : letters) c = char('a' + random.next_below(26));
    const std::vector<std::pair<const char *, std::string>> texts = {
        {"random bytes", noise},
        {"one word of random letters", letters},
        {"one word of one letter", std::string(bytes, 'a')},
        {"one word of capitals", std::string(bytes, 'A')},
        {"spaces", std::string(bytes, ' ')},
        {"lines", std::string(bytes, '\n')},
        {"zeros", std::string(bytes, '\0')},
        {"digits", std::string(bytes, '7')},
        {"deep merges", repeated("antidisestablishmentarianism")},
        {"stray bytes", std::string(bytes, '\xbf')},
        {"cut characters", repeated("\xf0\x9f\x99")},
        {"four-byte characters", repeated("\xf0\x9f\xa6\x99")},
        {"white space between marks", repeated("   \n\t!")},
    };
    // The promise is 5 MB/s. Half of it, of processor time, leaves room for busy machines, a tenth for sanitizers and
    // builds without optimization.
#if defined(__OPTIMIZE__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    const double least = 5e6 / 2;
#else
    const double least = 5e5;
#endif
    std::vector<std::string> models = {bundled_model()};
    for (const char *name : {"gpt-2", "starcoder", "llama-spm"}) {
        const std::string path = shared("data/vocab/ggml-vocab-" + std::string(name) + ".gguf");
        if (!path.empty()) models.push_back(path);
    }
    for (const std::string &model : models) {
        const Gguf file(model);
        const Tokenizer tokenizer(file);
        for (const auto &[name, text] : texts) {
            CAPTURE(model);
            CAPTURE(name);
            const clock_t start = clock();
            const Ids ids = tokenizer.encode(text);
            const double seconds = double(clock() - start) / CLOCKS_PER_SEC;
            CHECK(double(text.size()) / seconds > least);
            if (model.find("starcoder") == std::string::npos) // it has no tokens for bytes that UTF-8 never has
                CHECK((tokenizer.decode(ids, true) == text));
        }
    }
    // Patterns of all families, without merges.
    for (const char *family : {"llama-bpe", "qwen2", "deepseek-llm", "deepseek-coder", "deepseek-v3", "falcon",
                               "tekken", "gpt-4o", "bloom", "viking", "default"})
        for (const auto &[name, text] : texts) {
            CAPTURE(family);
            CAPTURE(name);
            size_t seen = 0;
            const clock_t start = clock();
            PreTokenizer(family, "").split(text, [&](std::string_view word) { seen += word.size(); });
            CHECK(double(text.size()) / (double(clock() - start) / CLOCKS_PER_SEC) > least);
            CHECK(seen == text.size());
        }
}
