#define PCRE2_CODE_UNIT_WIDTH 8
#include "pre_tokenizer.h"

#include "error.h"
#include "utf8.h"

#include <algorithm>
#include <new>
#include <pcre2.h>

namespace finetune {

// Patterns are applied one after the other, each to the words that the ones before it made; what lies between two
// matches is a word too.
struct PreTokenizer::Rule {
    const char *names; // with a space before and after each
    std::vector<const char *> patterns;
    bool whole_words = false, begins = false;
};

namespace {

#define CONTRACTIONS "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define UPPER "\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}"
#define LOWER "\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}"

const char gpt2[] = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const char llama3[] = CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
const char qwen2[] = CONTRACTIONS "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" SPACES;
const char tekken[] = "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+|[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]+[" LOWER
                      "]*|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES;
const char gpt4o[] = "[^\\r\\n\\p{L}\\p{N}]?[" UPPER "]*[" LOWER "]+" CONTRACTIONS "?|[^\\r\\n\\p{L}\\p{N}]?[" UPPER
                     "]+[" LOWER "]*" CONTRACTIONS "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" SPACES;
const char bloom[] = " ?[^(\\s|.,!?\\x{2026}\\x{3002}\\x{FF0C}\\x{3001}\\x{964}\\x{6D4}\\x{60C})]+";
const char digit[] = "\\p{N}", digits[] = "\\p{N}+", three_digits[] = "[0-9][0-9][0-9]", line_end[] = "[\\r\\n]";
const char han_to_hangul[] = "[\\x{4E00}-\\x{9FA5}\\x{800}-\\x{4E00}\\x{AC00}-\\x{D7FF}]+";
const char falcon_marks[] = "[\\p{P}\\$\\+<=>\\^~\\|`]+", default_marks[] = "[\\p{P}\\$\\+<=>\\^~\\|]+";
const char deepseek3_words[] =
    "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
    "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" SPACES;
// The letters with case, of one version of Unicode.
const char deepseek_letters[] =
    "\\s?[A-Za-z\\x{B5}\\x{C0}-\\x{D6}\\x{D8}-\\x{F6}\\x{F8}-\\x{1BA}\\x{1BC}-\\x{1BF}\\x{1C4}-\\x{293}"
    "\\x{295}-\\x{2AF}\\x{370}-\\x{373}\\x{376}\\x{377}\\x{37B}-\\x{37D}\\x{37F}\\x{386}\\x{388}-\\x{38A}\\x{38C}"
    "\\x{38E}-\\x{3A1}\\x{3A3}-\\x{3F5}\\x{3F7}-\\x{481}\\x{48A}-\\x{52F}\\x{531}-\\x{556}\\x{10A0}-\\x{10C5}"
    "\\x{13A0}-\\x{13F5}\\x{13F8}-\\x{13FD}\\x{1C90}-\\x{1CBA}\\x{1CBD}-\\x{1CBF}\\x{1D00}-\\x{1D2B}"
    "\\x{1D6B}-\\x{1D77}\\x{1D79}-\\x{1D9A}\\x{1E00}-\\x{1F15}\\x{1F18}-\\x{1F1D}\\x{1F20}-\\x{1F45}"
    "\\x{1F48}-\\x{1F4D}\\x{1F50}-\\x{1F57}\\x{1F59}\\x{1F5B}\\x{1F5D}\\x{1F5F}-\\x{1F7D}\\x{1F80}-\\x{1FB4}"
    "\\x{1FB6}-\\x{1FBC}\\x{1FBE}\\x{1FC2}-\\x{1FC4}\\x{1FC6}-\\x{1FCC}\\x{1FD0}-\\x{1FD3}\\x{1FD6}-\\x{1FDB}"
    "\\x{1FE0}-\\x{1FEC}\\x{1FF2}-\\x{1FF4}\\x{1FF6}-\\x{1FFC}\\x{2102}\\x{2107}\\x{210A}-\\x{2113}\\x{2115}"
    "\\x{2119}-\\x{211D}\\x{2124}\\x{2126}\\x{2128}\\x{212A}-\\x{212D}\\x{212F}-\\x{2134}\\x{2139}\\x{213C}-\\x{213F}"
    "\\x{2145}-\\x{2149}\\x{214E}\\x{2183}\\x{2184}\\x{2C00}-\\x{2C7B}\\x{2C7E}-\\x{2CE4}\\x{2CEB}-\\x{2CEE}\\x{2CF2}"
    "\\x{2CF3}\\x{A640}-\\x{A66D}\\x{A680}-\\x{A69B}\\x{A722}-\\x{A76F}\\x{A771}-\\x{A787}\\x{A78B}-\\x{A78E}"
    "\\x{AB70}-\\x{ABBF}\\x{FB00}-\\x{FB06}\\x{FB13}-\\x{FB17}\\x{FF21}-\\x{FF3A}\\x{FF41}-\\x{FF5A}"
    "\\x{10400}-\\x{1044F}\\x{104B0}-\\x{104D3}\\x{104D8}-\\x{104FB}\\x{10C80}-\\x{10CB2}\\x{10CC0}-\\x{10CF2}"
    "\\x{118A0}-\\x{118DF}\\x{1E900}-\\x{1E943}]+";
const char deepseek_marks[] =
    "\\s?[!-/:-~\\x{FF01}-\\x{FF0F}\\x{FF1A}-\\x{FF5E}\\x{2018}-\\x{201F}\\x{3000}-\\x{3002}]+";

// Unicode's property White_Space; PCRE2's own \s has U+180E besides.
#define WHITE "\\x09-\\x0d\\x20\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}\\x{205f}\\x{3000}"

std::string with_white_space(std::string_view pattern) {
    std::string out;
    bool in_class = false;
    for (size_t i = 0; i < pattern.size(); ++i) {
        if (pattern[i] == '\\') {
            if (++i == pattern.size()) { // PCRE2 refuses it
                out += '\\';
                break;
            }
            const char next = pattern[i];
            if (next == 's') out += in_class ? WHITE : "[" WHITE "]";
            else if (next == 'S' && !in_class) out += "[^" WHITE "]"; // in a class PCRE2's own: it differs at U+180E alone
            else (out += '\\') += next;
            continue;
        }
        if (pattern[i] == '[') in_class = true;
        if (pattern[i] == ']') in_class = false;
        out += pattern[i];
    }
    return out;
}

} // namespace

struct PreTokenizer::Pattern {
    pcre2_code *code = nullptr;
    pcre2_match_data *data = nullptr;
    pcre2_match_context *limits = nullptr;
    bool compiled = false; // to machine code

    explicit Pattern(const std::string &text) {
        int error = 0;
        PCRE2_SIZE place = 0;
        code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(),
                             PCRE2_UTF | PCRE2_UCP | PCRE2_DOLLAR_ENDONLY | PCRE2_NEVER_BACKSLASH_C, &error, &place, nullptr);
        if (code == nullptr) {
            PCRE2_UCHAR message[128] = {};
            pcre2_get_error_message(error, message, sizeof(message));
            fail("PCRE2 refuses the pattern ", shown(text), " at ", place, ": ", reinterpret_cast<char *>(message));
        }
        compiled = pcre2_jit_compile(code, PCRE2_JIT_COMPLETE) == 0; // else it is interpreted: the same, but slower
        data = pcre2_match_data_create_from_pattern(code, nullptr);
        limits = pcre2_match_context_create(nullptr);
        if (data == nullptr || limits == nullptr) {
            release();
            throw std::bad_alloc();
        }
        pcre2_set_match_limit(limits, 10000000);
        pcre2_set_depth_limit(limits, 100000);
        pcre2_set_heap_limit(limits, 65536); // KiB
    }
    ~Pattern() { release(); }
    Pattern(const Pattern &) = delete;
    Pattern &operator=(const Pattern &) = delete;

    // Whether there is a match at `from` or later, and where. Text that meets a limit has none.
    bool find(std::string_view text, size_t from, size_t *begin, size_t *end) const {
        const auto subject = reinterpret_cast<PCRE2_SPTR>(text.data());
        const int found = compiled ? pcre2_jit_match(code, subject, text.size(), from, 0, data, limits)
                                   : pcre2_match(code, subject, text.size(), from, PCRE2_NO_UTF_CHECK, data, limits);
        if (found < 1) return false;
        const PCRE2_SIZE *places = pcre2_get_ovector_pointer(data);
        *begin = places[0];
        *end = places[1];
        return true;
    }

private:
    void release() {
        pcre2_match_context_free(limits);
        pcre2_match_data_free(data);
        pcre2_code_free(code);
    }
};

PreTokenizer::PreTokenizer(std::string_view name, const std::string &source) {
    static const Rule rules[] = {
        {" gpt-2 gpt2 mpt olmo jais phi-2 trillion granite-docling roberta-bpe jina-v2-es jina-v2-de jina-v2-code "
         "exaone4 modern-bert ",
         {gpt2}},
        {" llama3 llama-v3 llama-bpe falcon3 falcon-h1 pixtral midm-2.0 lfm2 ", {llama3}, true, true},
        {" dbrx smaug-bpe chatglm-bpe glm4 ", {llama3}},
        {" qwen2 stablelm2 deepseek-r1-qwen megrez hunyuan ", {qwen2}},
        {" deepseek-llm ", {line_end, deepseek_letters, deepseek_marks, "\\s+$", han_to_hangul, digits}},
        {" deepseek-coder ", {line_end, "\\s?\\p{L}+", "\\s?\\p{P}+", han_to_hangul, digit}},
        {" deepseek-v3 deepseek3 hunyuan-dense ",
         {"\\p{N}{1,3}", "[\\x{4E00}-\\x{9FA5}\\x{3040}-\\x{309F}\\x{30A0}-\\x{30FF}]+", deepseek3_words}},
        {" falcon ", {falcon_marks, gpt2, three_digits}},
        {" starcoder refact command-r smollm codeshell exaone minerva-7b ", {digit, gpt2}},
        {" bloom poro-chat gpt3-finnish ", {bloom}},
        {" viking ", {bloom, digit}},
        {" tekken ", {tekken}, true, true},
        {" gpt-4o llama4 o200k ", {gpt4o}},
        {" default ", {default_marks, gpt2, digits, three_digits}},
    };
    const Rule *found = nullptr;
    for (const Rule &rule : rules)
        if (std::string_view(rule.names).find(" " + std::string(name) + " ") != std::string_view::npos) found = &rule;
    if (name.empty() || found == nullptr) {
        std::string known;
        for (const Rule &rule : rules) known += rule.names + 1;
        known.pop_back();
        fail(source, ": pre-tokenizer ", shown(name), " is not known; expected one of ", known,
             ". Give token ids instead, with --train-ids");
    }
    for (const char *pattern : found->patterns)
        patterns_.push_back(std::make_unique<Pattern>(with_white_space(pattern)));
    whole_words_ = found->whole_words;
    begins_ = found->begins;
}

PreTokenizer::PreTokenizer(const std::vector<std::string> &patterns, bool whole_words, const std::string &source)
    : whole_words_(whole_words) {
    try {
        for (const std::string &pattern : patterns)
            patterns_.push_back(std::make_unique<Pattern>(with_white_space(pattern)));
    } catch (const Error &error) { fail(source, ": ", error.what()); }
}

PreTokenizer::~PreTokenizer() = default;

void PreTokenizer::split(std::string_view text, const std::function<void(std::string_view)> &word) const {
    // PCRE2 wants well-formed text. One stand-in for each byte that is not keeps all places the same.
    std::string repaired;
    for (size_t i = 0; i < text.size();) {
        uint32_t code = 0;
        const size_t bytes = read_character(text, i, &code);
        if (bytes == 0) {
            if (repaired.empty()) repaired = text;
            repaired[i] = '\x01';
        }
        i += std::max<size_t>(bytes, 1);
    }
    split(0, text, repaired.empty() ? text : repaired, word);
}

void PreTokenizer::split(size_t pattern, std::string_view text, std::string_view valid,
                         const std::function<void(std::string_view)> &word) const {
    if (patterns_.empty()) return word(text);
    const auto pass_on = [&](size_t begin, size_t end) {
        if (begin == end) return;
        if (pattern + 1 == patterns_.size()) word(text.substr(begin, end - begin));
        else split(pattern + 1, text.substr(begin, end - begin), valid.substr(begin, end - begin), word);
    };
    size_t done = 0, begin = 0, end = 0;
    while (done < text.size() && patterns_[pattern]->find(valid, done, &begin, &end) && end > begin) {
        pass_on(done, begin);
        pass_on(begin, end);
        done = end;
    }
    pass_on(done, text.size());
}

} // namespace finetune
