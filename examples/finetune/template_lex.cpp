// The words of a template. White space follows Hugging Face's settings: the line break after a block is dropped, and so
// are the blanks before one that begins a line.
#include "template_lex.h"

#include "template_tree.h"

#include <algorithm>
#include <cstring>

namespace finetune {
namespace {

using Token = TemplateToken;

const size_t most_tokens = 2000; // of one block: bounds the depth of its tree

bool is_blank(char c) { return c == ' ' || c == '\t'; }
bool is_space(char c) { return is_blank(c) || c == '\n' || c == '\r' || c == '\f' || c == '\v'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }

class Lexer {
public:
    Lexer(std::string_view text, const std::string &source) : text_(text), source_(source) {}

    std::vector<Token> run() {
        if (!text_.empty() && text_.back() == '\n') text_.remove_suffix(1);
        bool trim_left = false, trim_line = false; // of the text that comes next
        while (at_ < text_.size()) {
            size_t open = at_;
            while (open < text_.size() &&
                   !(text_[open] == '{' && open + 1 < text_.size() && strchr("{%#", text_[open + 1]) != nullptr))
                ++open;
            std::string plain(text_.substr(at_, open - at_));
            const int plain_line = line_;
            line_ += int(std::count(plain.begin(), plain.end(), '\n'));
            if (trim_left) plain.erase(0, std::min(plain.size(), size_t(first_not_space(plain))));
            else if (trim_line && !plain.empty() && plain[0] == '\n') plain.erase(0, 1);
            const bool whole_line = !trim_left; // nothing but this text stands before the block on its line
            if (open == text_.size()) {
                push(Token::text, plain, plain_line);
                break;
            }
            const char kind = text_[open + 1];
            const char mark = open + 2 < text_.size() ? text_[open + 2] : 0;
            if (mark == '-') {
                while (!plain.empty() && is_space(plain.back())) plain.pop_back();
            } else if (kind != '{' && mark != '+') {
                size_t blanks = plain.size();
                while (blanks > 0 && is_blank(plain[blanks - 1])) --blanks;
                if (blanks > 0 ? plain[blanks - 1] == '\n' : (whole_line && starts_line(open))) plain.resize(blanks);
            }
            push(Token::text, plain, plain_line);
            at_ = open + 2 + (mark == '-' || mark == '+');
            char last = 0;
            if (kind == '#') last = comment();
            else last = inside(kind == '%');
            trim_left = last == '-';
            trim_line = kind != '{' && last != '+';
        }
        push(Token::end, "", line_);
        return std::move(tokens_);
    }

private:
    template <class... Parts> [[noreturn]] void reject(int line, const Parts &...parts) const {
        reject_template(source_, line, parts...);
    }

    static size_t first_not_space(const std::string &text) {
        size_t i = 0;
        while (i < text.size() && is_space(text[i])) ++i;
        return i;
    }

    bool starts_line(size_t open) const {
        while (open > 0 && is_blank(text_[open - 1])) --open;
        return open == 0 || text_[open - 1] == '\n';
    }

    void push(Token::Kind kind, std::string bytes, int line) {
        if (kind == Token::text && bytes.empty()) return;
        tokens_.push_back({kind, std::move(bytes), line});
    }

    char comment() {
        const size_t close = text_.find("#}", at_);
        if (close == std::string_view::npos) reject(line_, "a comment {# without its end");
        line_ += int(std::count(text_.begin() + long(at_), text_.begin() + long(close), '\n'));
        const char last = close > at_ ? text_[close - 1] : 0;
        at_ = close + 2;
        return last;
    }

    // The tokens of a block or an expression; returns the sign before its end.
    char inside(bool block) {
        const int first_line = line_;
        push(block ? Token::block_begin : Token::print_begin, "", line_);
        const std::string_view close = block ? "%}" : "}}";
        int open = 0; // brackets and braces
        const size_t first = tokens_.size();
        while (at_ < text_.size()) {
            if (tokens_.size() - first > most_tokens)
                reject(first_line, "a block of more than ", most_tokens, " words");
            const char c = text_[at_];
            if (is_space(c)) {
                line_ += c == '\n';
                ++at_;
                continue;
            }
            const bool marked = (c == '-' || c == '+') && text_.substr(at_ + 1, 2) == close;
            if (marked || (open == 0 && text_.substr(at_, 2) == close)) {
                push(block ? Token::block_end : Token::print_end, "", line_);
                at_ += marked ? 3 : 2;
                return marked ? c : 0;
            }
            const size_t start = at_;
            if (is_letter(c)) {
                while (at_ < text_.size() && (is_letter(text_[at_]) || is_digit(text_[at_]))) ++at_;
                push(Token::name, std::string(text_.substr(start, at_ - start)), line_);
            } else if (is_digit(c)) {
                while (at_ < text_.size() && (is_digit(text_[at_]) || (text_[at_] == '.' && at_ + 1 < text_.size() &&
                                                                       is_digit(text_[at_ + 1]))))
                    ++at_;
                push(Token::number, std::string(text_.substr(start, at_ - start)), line_);
            } else if (c == '"' || c == '\'') {
                push(Token::string, quoted(c), line_);
            } else {
                static const char *const pairs[] = {"==", "!=", "<=", ">=", "//", "**"};
                size_t length = 1;
                for (const char *pair : pairs)
                    if (text_.substr(at_, 2) == pair) length = 2;
                if (strchr("+-*/%~<>=!()[]{}.,:|", c) == nullptr || c == 0)
                    reject(line_, "the character ", shown(text_.substr(at_, 1)), " in an expression");
                if (strchr("([{", c) != nullptr) ++open;
                if (strchr(")]}", c) != nullptr) --open;
                push(Token::sign, std::string(text_.substr(at_, length)), line_);
                at_ += length;
            }
        }
        reject(first_line, block ? "a block {% without its end" : "an expression {{ without its end");
    }

    std::string quoted(char quote) {
        std::string out;
        const int first_line = line_;
        for (++at_; at_ < text_.size(); ++at_) {
            char c = text_[at_];
            if (c == quote) {
                ++at_;
                return out;
            }
            line_ += c == '\n';
            if (c == '\\' && at_ + 1 < text_.size()) {
                c = text_[++at_];
                if (c == 'n') c = '\n';
                else if (c == 't') c = '\t';
                else if (c == 'r') c = '\r';
                else if (c != '\\' && c != '\'' && c != '"') out += '\\';
            }
            out += c;
        }
        reject(first_line, "a text in quotes without its end");
    }

    std::string_view text_;
    const std::string &source_;
    size_t at_ = 0;
    int line_ = 1;
    std::vector<Token> tokens_;
};

} // namespace

std::vector<TemplateToken> lex_template(std::string_view text, const std::string &source) {
    std::string lines; // every line break as one byte
    for (size_t i = 0; i < text.size(); ++i)
        if (text[i] != '\r') lines += text[i];
        else if (i + 1 == text.size() || text[i + 1] != '\n') lines += '\n';
    return Lexer(lines, source).run();
}

} // namespace finetune
