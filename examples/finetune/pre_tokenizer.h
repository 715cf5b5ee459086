// How a text is cut into words before byte pairs merge: regular expressions that each family of models published with
// its tokenizer, matched by PCRE2.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace finetune {

class PreTokenizer {
public:
    // A name as in "tokenizer.ggml.pre"; `source` begins the message about a name that is not known.
    PreTokenizer(std::string_view name, const std::string &source);
    // Patterns of the tokenizer's own, in the syntax of Perl; none: a text is one word.
    PreTokenizer(const std::vector<std::string> &patterns, bool whole_words, const std::string &source);
    ~PreTokenizer();

    // Calls word(text) for each word in order; together they are the whole text. Bytes that are no UTF-8 count as
    // control characters. Takes time near linear in the text.
    void split(std::string_view text, const std::function<void(std::string_view)> &word) const;

    // Whether a word that is a token as a whole is taken as such, whatever its merges say.
    bool whole_words() const { return whole_words_; }
    // Whether texts begin with the begin token where the file does not say.
    bool begins() const { return begins_; }

private:
    struct Pattern;
    struct Rule;
    void split(size_t pattern, std::string_view text, std::string_view valid,
               const std::function<void(std::string_view)> &word) const;

    bool whole_words_ = false, begins_ = false;
    std::vector<std::unique_ptr<Pattern>> patterns_;
};

} // namespace finetune
