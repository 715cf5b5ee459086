// Words to a tree.
#include "template_lex.h"
#include "template_tree.h"

#include <algorithm>
#include <cstdlib>

namespace finetune {
namespace {

const int most_depth = 100;

using Token = TemplateToken;
using Node = std::unique_ptr<TemplateNode>;

class Parser {
public:
    Parser(std::vector<Token> tokens, const std::string &source) : tokens_(std::move(tokens)), source_(source) {}

    Node run() {
        Node all = statements({});
        if (peek().kind != Token::end) reject("{% ", tokens_[at_ + 1].bytes, " %} without its beginning");
        return all;
    }

private:
    struct Deeper {
        Parser &parser;
        explicit Deeper(Parser &p) : parser(p) {
            if (++parser.depth_ > most_depth) parser.reject("nested deeper than ", most_depth, " levels");
        }
        ~Deeper() { --parser.depth_; }
    };

    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const {
        reject_template(source_, peek().line, parts...);
    }

    const Token &peek(size_t ahead = 0) const { return tokens_[std::min(at_ + ahead, tokens_.size() - 1)]; }
    bool is(Token::Kind kind, std::string_view bytes, size_t ahead = 0) const {
        return peek(ahead).kind == kind && peek(ahead).bytes == bytes;
    }
    bool take(Token::Kind kind, std::string_view bytes) {
        if (!is(kind, bytes)) return false;
        ++at_;
        return true;
    }
    bool take_sign(std::string_view sign) { return take(Token::sign, sign); }
    bool take_name(std::string_view name) { return take(Token::name, name); }
    void expect_sign(std::string_view sign) {
        if (!take_sign(sign)) reject("expected '", sign, "', found ", described());
    }
    std::string described() const {
        switch (peek().kind) {
        case Token::block_end:
        case Token::print_end:
            return "the end of the block";
        case Token::end:
            return "the end of the template";
        default:
            return shown(peek().bytes);
        }
    }
    std::string name() {
        if (peek().kind != Token::name) reject("expected a name, found ", described());
        return tokens_[at_++].bytes;
    }
    void block_end() {
        if (peek().kind != Token::block_end) reject("expected %}, found ", described());
        ++at_;
    }

    Node make(NodeKind kind, std::string text = "") const {
        Node node(new TemplateNode{kind, peek().line, std::move(text), {}, {}, {}});
        return node;
    }
    template <class... Rest> Node make(NodeKind kind, std::string text, Node first, Rest... rest) const {
        Node node = make(kind, std::move(text));
        node->parts.push_back(std::move(first));
        (node->parts.push_back(std::move(rest)), ...);
        return node;
    }

    bool at_block(std::string_view word) const { return peek().kind == Token::block_begin && is(Token::name, word, 1); }

    // Statements up to a block that begins with one of `ends`, which is not taken.
    Node statements(std::vector<std::string_view> ends) {
        const Deeper deeper(*this);
        Node all = make(NodeKind::sequence);
        while (peek().kind != Token::end) {
            if (peek().kind == Token::text) {
                Node text = make(NodeKind::literal);
                text->value = TemplateValue::of(tokens_[at_++].bytes, from_template);
                all->parts.push_back(make(NodeKind::output, "", std::move(text)));
                continue;
            }
            if (peek().kind == Token::print_begin) {
                ++at_;
                Node value = expression();
                if (peek().kind != Token::print_end) reject("expected }}, found ", described());
                ++at_;
                all->parts.push_back(make(NodeKind::output, "", std::move(value)));
                continue;
            }
            for (std::string_view end : ends)
                if (at_block(end)) return all;
            if (is(Token::name, "endif", 1) || is(Token::name, "endfor", 1) || is(Token::name, "else", 1) ||
                is(Token::name, "elif", 1) || is(Token::name, "endset", 1))
                return all;
            ++at_;
            all->parts.push_back(statement());
        }
        return all;
    }

    void end(std::string_view word) {
        if (!at_block(word)) reject("expected {% ", word, " %}, found ", described());
        at_ += 2;
        block_end();
    }

    Node statement() {
        const std::string word = name();
        if (word == "if") return condition();
        if (word == "for") return loop();
        if (word == "set") return assignment();
        if (word == "generation") { // marks answers for Hugging Face; here they are known anyway
            block_end();
            Node body = statements({"endgeneration"});
            end("endgeneration");
            return body;
        }
        reject("{% ", word, " %} is not supported");
    }

    Node condition() {
        Node test = expression();
        block_end();
        Node then = statements({"elif", "else", "endif"});
        Node node = make(NodeKind::condition, "", std::move(test), std::move(then));
        if (at_block("elif")) {
            const Deeper deeper(*this);
            at_ += 2;
            node->parts.push_back(condition());
            return node;
        }
        if (at_block("else")) {
            at_ += 2;
            block_end();
            node->parts.push_back(statements({"endif"}));
        }
        end("endif");
        return node;
    }

    Node loop() {
        std::vector<std::string> names = {name()};
        while (take_sign(",")) names.push_back(name());
        if (!take_name("in")) reject("expected in, found ", described());
        Node list = any(false);
        Node filter;
        if (take_name("if")) filter = expression();
        if (is(Token::name, "recursive")) reject("a recursive loop is not supported");
        block_end();
        Node body = statements({"else", "endfor"}), otherwise;
        if (at_block("else")) {
            at_ += 2;
            block_end();
            otherwise = statements({"endfor"});
        }
        end("endfor");
        Node node = make(NodeKind::loop, "", std::move(list), std::move(body), std::move(otherwise), std::move(filter));
        node->names = std::move(names);
        return node;
    }

    Node assignment() {
        Node node = make(NodeKind::assign);
        node->names.push_back(name());
        if (take_sign(".")) {
            node->flag = true;
            node->names.push_back(name());
        } else {
            while (take_sign(",")) node->names.push_back(name());
        }
        if (peek().kind == Token::block_end) {
            if (node->flag || node->names.size() > 1) reject("{% set %} of a block needs one plain name");
            block_end();
            node->kind = NodeKind::capture;
            node->parts.push_back(statements({"endset"}));
            end("endset");
            return node;
        }
        expect_sign("=");
        Node value = expression();
        if (is(Token::sign, ",")) {
            Node list = make(NodeKind::list, "", std::move(value));
            while (take_sign(",")) list->parts.push_back(expression());
            value = std::move(list);
        }
        node->parts.push_back(std::move(value));
        block_end();
        return node;
    }

    Node expression() { return any(true); }

    Node any(bool with_choice) {
        const Deeper deeper(*this);
        Node value = either();
        while (with_choice && take_name("if")) {
            Node test = either(), otherwise;
            if (take_name("else")) otherwise = expression();
            value = make(NodeKind::choice, "", std::move(value), std::move(test), std::move(otherwise));
        }
        return value;
    }

    Node either() {
        Node left = both();
        while (take_name("or")) left = make(NodeKind::binary, "or", std::move(left), both());
        return left;
    }

    Node both() {
        Node left = negation();
        while (take_name("and")) left = make(NodeKind::binary, "and", std::move(left), negation());
        return left;
    }

    Node negation() {
        const Deeper deeper(*this);
        if (take_name("not")) return make(NodeKind::unary, "not", negation());
        return comparison();
    }

    Node comparison() {
        Node left = sum();
        for (;;) {
            std::string sign;
            for (const char *one : {"==", "!=", "<", ">", "<=", ">="})
                if (is(Token::sign, one)) sign = one;
            if (!sign.empty()) {
                ++at_;
            } else if (is(Token::name, "in")) {
                sign = "in";
                ++at_;
            } else if (is(Token::name, "not") && is(Token::name, "in", 1)) {
                sign = "not in";
                at_ += 2;
            } else {
                return left;
            }
            left = make(NodeKind::binary, sign, std::move(left), sum());
        }
    }

    Node sum() {
        Node left = joining();
        for (;;) {
            const std::string sign = is(Token::sign, "+") ? "+" : is(Token::sign, "-") ? "-" : "";
            if (sign.empty()) return left;
            ++at_;
            left = make(NodeKind::binary, sign, std::move(left), joining());
        }
    }

    Node joining() {
        Node left = product();
        while (take_sign("~")) left = make(NodeKind::binary, "~", std::move(left), product());
        return left;
    }

    Node product() {
        Node left = signed_value();
        for (;;) {
            std::string sign;
            for (const char *one : {"*", "/", "//", "%"})
                if (is(Token::sign, one)) sign = one;
            if (is(Token::sign, "**")) reject("the operator ** is not supported");
            if (sign.empty()) return left;
            ++at_;
            left = make(NodeKind::binary, sign, std::move(left), signed_value());
        }
    }

    Node signed_value() {
        const Deeper deeper(*this);
        for (const char *sign : {"-", "+"})
            if (take_sign(sign)) return filtered(make(NodeKind::unary, sign, signed_value()));
        return filtered(postfix(primary()));
    }

    Node primary() {
        const Token token = peek();
        Node node = make(NodeKind::literal);
        if (token.kind == Token::string) {
            std::string bytes;
            while (peek().kind == Token::string) bytes += tokens_[at_++].bytes; // neighbours join
            node->value = TemplateValue::of(std::move(bytes), from_template);
            return node;
        }
        if (token.kind == Token::number) {
            ++at_;
            if (token.bytes.find('.') != std::string::npos)
                node->value = TemplateValue::of(strtod(token.bytes.c_str(), nullptr));
            else node->value = TemplateValue::of(int64_t(strtoll(token.bytes.c_str(), nullptr, 10)));
            return node;
        }
        if (token.kind == Token::name) {
            ++at_;
            const std::string &word = token.bytes;
            if (word == "true" || word == "True") node->value = TemplateValue::of(true);
            else if (word == "false" || word == "False") node->value = TemplateValue::of(false);
            else if (word == "none" || word == "None") node->value = TemplateValue::of_none();
            else {
                node->kind = NodeKind::name;
                node->text = word;
            }
            return node;
        }
        if (take_sign("(")) {
            if (take_sign(")")) {
                node->kind = NodeKind::list;
                return node;
            }
            Node inner = expression();
            if (is(Token::sign, ",")) {
                inner = make(NodeKind::list, "", std::move(inner));
                while (take_sign(","))
                    if (!is(Token::sign, ")")) inner->parts.push_back(expression());
            }
            expect_sign(")");
            return inner;
        }
        if (take_sign("[")) {
            node->kind = NodeKind::list;
            while (!take_sign("]")) {
                node->parts.push_back(expression());
                if (!is(Token::sign, "]")) expect_sign(",");
            }
            return node;
        }
        if (take_sign("{")) {
            node->kind = NodeKind::dict;
            while (!take_sign("}")) {
                node->parts.push_back(expression());
                expect_sign(":");
                node->parts.push_back(expression());
                if (!is(Token::sign, "}")) expect_sign(",");
            }
            return node;
        }
        reject("expected a value, found ", described());
    }

    void arguments(TemplateNode &node) {
        while (!take_sign(")")) {
            if (is(Token::sign, "*") || is(Token::sign, "**")) reject("arguments with * are not supported");
            std::string named;
            if (peek().kind == Token::name && is(Token::sign, "=", 1)) {
                named = name();
                ++at_;
            }
            node.names.push_back(named);
            node.parts.push_back(expression());
            if (!is(Token::sign, ")")) expect_sign(",");
        }
    }

    Node postfix(Node value) {
        for (;;) {
            if (take_sign(".")) {
                value = make(NodeKind::attribute, peek().kind == Token::number ? tokens_[at_++].bytes : name(),
                             std::move(value));
            } else if (take_sign("(")) {
                value = make(NodeKind::call, "", std::move(value));
                arguments(*value);
            } else if (take_sign("[")) {
                Node bounds[3];
                int colons = 0;
                while (!is(Token::sign, "]")) {
                    if (take_sign(":")) {
                        if (++colons > 2) reject("a slice with more than two colons");
                        continue;
                    }
                    if (bounds[colons]) reject("expected ], found ", described());
                    bounds[colons] = expression();
                }
                expect_sign("]");
                if (colons == 0 && !bounds[0]) reject("an index is missing between [ and ]");
                if (colons == 0) value = make(NodeKind::item, "", std::move(value), std::move(bounds[0]));
                else
                    value = make(NodeKind::slice, "", std::move(value), std::move(bounds[0]), std::move(bounds[1]),
                                 std::move(bounds[2]));
            } else {
                return value;
            }
        }
    }

    Node filtered(Node value) {
        for (;;) {
            if (take_sign("|")) {
                value = make(NodeKind::filter, name(), std::move(value));
                if (take_sign("(")) arguments(*value);
            } else if (take_name("is")) {
                const bool negated = take_name("not");
                value = make(NodeKind::test, name(), std::move(value));
                value->flag = negated;
                if (take_sign("(")) {
                    arguments(*value);
                } else if (peek().kind == Token::string || peek().kind == Token::number ||
                           (value->text == "equalto" && peek().kind == Token::name)) {
                    value->names.push_back("");
                    value->parts.push_back(postfix(primary()));
                }
            } else {
                return value;
            }
        }
    }

    std::vector<Token> tokens_;
    const std::string &source_;
    size_t at_ = 0;
    int depth_ = 0;
};

} // namespace

std::unique_ptr<TemplateNode> parse_template(std::string_view text, const std::string &source) {
    return Parser(lex_template(text, source), source).run();
}

} // namespace finetune
