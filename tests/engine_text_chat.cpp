// Chat templates and data of examples/finetune.
#include "engine_text_support.h"

#include "chat.h"
#include "template.h"

#include <algorithm>

using namespace finetune;

namespace {

using Ids = std::vector<int32_t>;

TemplateDict variables() {
    const auto message = [](const char *role, const char *content) {
        return TemplateValue::of(TemplateDict{{"role", TemplateValue::of(role, from_data)},
                                              {"content", TemplateValue::of(content, from_data)}});
    };
    return {
        {"messages", TemplateValue::of(TemplateList{message("user", " hi "), message("assistant", "yes")})},
        {"n", TemplateValue::of(int64_t(7))},
        {"nothing", TemplateValue::of_none()},
        {"d", TemplateValue::of(TemplateDict{{"b", TemplateValue::of(int64_t(1))}, {"a", TemplateValue::of(true)}})}};
}

std::string rendered(const std::string &text) { return Template(text, "T").render(variables()).bytes; }
std::string refused(const std::string &text) {
    return error_of([&] { rendered(text); });
}

const std::string begins = "\xe2\x9f\xa6", ends = "\xe2\x9f\xa7";

// A row's learned parts, one after the other, each in brackets.
std::string learned(const Row &row, const Tokenizer &tokenizer) {
    const std::string text = marked(row, tokenizer, 1000);
    std::string out;
    for (size_t at = text.find(begins); at != std::string::npos; at = text.find(begins, at + 1))
        out += "[" + text.substr(at + begins.size(), text.find(ends, at) - at - begins.size()) + "]";
    return out;
}

Vocabulary chat_vocabulary(const std::string &chat_template = "") {
    Vocabulary vocabulary = byte_vocabulary({}, "gpt-2");
    vocabulary.end = 256;
    vocabulary.chat_template = chat_template;
    return vocabulary;
}

const char *const small_template =
    "{% for m in messages %}{{ '#' + m['role'] + ':' }}{{ m.content | trim }}{{ '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}#assistant:{% endif %}";

} // namespace

TEST_CASE("templates: the language") { // the expected texts are Jinja2's
    const std::pair<const char *, const char *> cases[] = {
        {"{% for m in messages %}{{ loop.index0 }}{{ m.role }}{{ ',' if not loop.last }}{% endfor %}",
         "0user,1assistant"},
        {"a\n  {% if true %}\n  b\n  {% endif %}\nc\n", "a\n  b\nc"},
        {"a  {%- if true -%}  b  {%- endif -%}  c", "abc"},
        {"a\r\n{% if true %}\r\nb{{ '\r\n' }}\rc\r\n{% endif %}\r\n", "a\nb\n\nc\n"},
        {"{# a comment #}\nx{#- y -#} z", "xz"},
        {"{% set x = 1 %}{% for i in [1, 2] %}{% set x = i %}{% endfor %}{{ x }}", "1"},
        {"{% set s = namespace(x=1) %}{% for i in [5, 6] %}{% set s.x = s.x + i %}{% endfor %}{{ s.x }}", "12"},
        {"{% set t %}<{{ n }}>{% endset %}{{ t ~ t|length }}", "<7>3"},
        {"{% for k, v in d.items() %}{{ k }}={{ v }};{% endfor %}", "b=1;a=True;"},
        {"{% for m in messages if m.role == 'user' %}{{ m.content }}{% else %}none{% endfor %}", " hi "},
        {"{% for m in [] %}{% else %}none{% endfor %}", "none"},
        {"{{ messages[0].content.strip().upper() + messages[-1]['content'] }}", "HIyes"},
        {"{{ messages[1:] | length }}{{ 'abcd'[::-1] }}{{ 'abcd'[1:3] }}{{ [1, 2, 3][-2] }}", "1dcbabc2"},
        {"{{ 7 // 2 }},{{ -7 // 2 }},{{ -7 % 3 }},{{ 7 / 2 }},{{ 2 + 3 * 4 - 1 }}", "3,-4,2,3.5,13"},
        {"{{ 'a' in 'cat' and 'b' not in ['a'] and not false }}", "True"},
        {"{{ missing is defined }}{{ missing is not none }}{{ nothing is none }}{{ n is string }}",
         "FalseTrueTrueFalse"},
        {"{{ missing | default('x') }}{{ '' | default('y', true) }}{{ (n == 7) | string }}", "xyTrue"},
        {"{{ d | tojson }} {{ [1, 'a\"\\n', none, 1.5] | tojson }}",
         "{\"b\": 1, \"a\": true} [1, \"a\\\"\\n\", null, 1.5]"},
        {"{{ {'a': [1, {}]} | tojson(indent=2) }}", "{\n  \"a\": [\n    1,\n    {}\n  ]\n}"},
        {"{{ 'a,b,c'.split(',')[-1] }}{{ ['a', 'b'] | join('-') }}{{ 'x--y'.replace('-', '+') }}", "ca-bx++y"},
        {"{{ messages | map(attribute='role') | join('/') }}{{ messages | selectattr('role', 'equalto', 'user') | list "
         "| "
         "length }}",
         "user/assistant1"},
        {"{{ 'A' if n > 7 else 'B' if n >= 7 else 'C' }}{{ n % 2 == 1 }}", "BTrue"},
        {"{{ range(3) | list | length }}{% for i in range(4, 0, -2) %}{{ i }}{% endfor %}", "342"},
        {"{% if missing %}1{% elif n is number %}2{% else %}3{% endif %}", "2"},
        {"{{ 'it''s' }}{{ \"tab\\there\" }}{{ 'caf\xc3\xa9' | length }}", "itstab\there4"},
        {"{% generation %}{{ n }}{% endgeneration %}", "7"},
        {"[{{ '\xe3\x80\x80\xc2\x85 a\xc2\xa0' | trim }}][{{ '\xe2\x80\xa8\xe2\x80\x8b\xff '.strip() }}][{{ '\xc3\xa9\xc3\xa9x'.lstrip('\xc3\xa9') }}]",
         "[a][\xe2\x80\x8b\xff][x]"},
        {"{{ ' a\xe3\x80\x80 b '.split() | join('-') }}", "a-b"},
        {"{{ 'x' in missing }}{{ 'x' not in missing }}", "FalseTrue"},
        {"{{ strftime_now('%d %b %Y, %A') }}", "26 Jul 2024, Friday"},
        {"{{ missing }}{{ nothing }}{{ 'ab' * 1 if false else '' }}", "None"},
    };
    for (const auto &[text, expected] : cases) {
        CAPTURE(text);
        CHECK(rendered(text) == expected);
    }
}

TEST_CASE("templates: what is outside names itself, its line and a way out") {
    CHECK(contains(refused("\n\n{% macro f(x) %}{% endmacro %}"), "T: line 3: {% macro %} is not supported; choose"));
    CHECK(contains(refused("{{ 'a' | center(3) }}"), "the filter 'center' is not supported"));
    CHECK(contains(refused("{{ 'a' | center }}"), "--chat-template"));
    CHECK(contains(refused("{{ '\xc3\xa9' | upper }}"), "beyond ASCII"));
    CHECK(contains(refused("{{ n is callable }}"), "the test 'callable' is not supported"));
    CHECK(contains(refused("{{ 'a'.format(1) }}"), "the method 'format' of a text is not supported"));
    CHECK(contains(refused("{{ open('/etc/passwd') }}"), "the function 'open' is not supported"));
    CHECK(contains(refused("{{ ''.__class__.__mro__ }}"), "undefined"));
    CHECK(contains(refused("{% include 'x' %}"), "{% include %}"));
    CHECK(contains(refused("{{ raise_exception('no\nsystem') }}"), "refuses the conversation: 'no\\x0asystem'"));
    CHECK(contains(refused("{{ missing.field }}"), "'field' of something that is undefined"));
    CHECK(contains(refused("{% if n %}"), "expected {% endif %}"));
    CHECK(contains(refused("a{% endfor %}"), "without its beginning"));
    CHECK(contains(refused("{{ n "), "without its end"));
    CHECK(contains(refused("{{ 'n }}"), "without its end"));
    CHECK(contains(refused("{{ n + 'a' }}"), "the operator + between a number and a text"));
    CHECK(contains(refused("{{ 1 // 0 }}"), "division by zero"));
    CHECK(contains(refused("{{ messages }}"), "tojson"));
    // Hostile ones end soon, with an Error.
    CHECK(refused("{% for a in range(99999) %}{% for b in range(99999) %}{% endfor %}{% endfor %}") != "");
    CHECK(
        refused("{% set s = namespace(x='abcdefgh') %}{% for a in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}") !=
        "");
    CHECK(refused("{% set s = namespace(x=[1]) %}{% for a in range(60) %}{% set s.x = s.x + s.x %}{% endfor %}") != "");
    CHECK(contains(refused("{% set s = namespace() %}{% set s.x = s %}"), "namespace inside"));
    CHECK(contains(refused("{% set s = namespace() %}{{ [s] | tojson }}"), "namespace inside"));
    std::string deep(100000, '(');
    CHECK(contains(refused("{{ " + deep), "more than"));
    CHECK(contains(refused("{{ " + deep.substr(0, 500) + "1" + std::string(500, ')') + " }}"), "deeper"));
    std::string sum = "{{ 1";
    for (int i = 0; i < 100000; ++i) sum += "+1";
    CHECK(contains(refused(sum + " }}"), "more than"));
    std::string blocks;
    for (int i = 0; i < 1000; ++i) blocks += "{% if n %}";
    CHECK(contains(refused(blocks), "deeper"));
    for (const char *text : {"",
                             "{",
                             "{{",
                             "{%",
                             "{#",
                             "%}",
                             "{{}}",
                             "{%%}",
                             "{{ }}",
                             "{% %}",
                             "{{ a[ }}",
                             "{{ a[1 }}",
                             "{{ a[::::] }}",
                             "{% set %}",
                             "{% set x %}",
                             "{% for %}",
                             "{% for x %}",
                             "{{ 1 if }}",
                             "{{ a.b. }}",
                             "{{ - }}",
                             "{{ {1:} }}"})
        refused(text); // no crash
}

TEST_CASE("chat: answers and their ends are learned, and nothing else") {
    const Tokenizer tokenizer(chat_vocabulary(small_template));
    const ChatTemplate chat("auto", tokenizer);
    CHECK(chat.name() == "the model's own");
    const Row one = chat.encode({{"user", "hi"}, {"assistant", " yes "}});
    CHECK(tokenizer.decode(one.prompt) == "#user:hi#assistant:");
    CHECK(learned(one, tokenizer) == "[yes<|end|>]");
    CHECK(one.given.empty());
    CHECK(one.answer.back() == 256);

    const Row more = chat.encode(
        {{"system", "s"}, {"user", "a"}, {"assistant", "b"}, {"user", "c"}, {"assistant", "d"}, {"user", "e"}});
    CHECK(learned(more, tokenizer) == "[b<|end|>][d<|end|>]");
    REQUIRE(more.given.size() == 1);
    CHECK(tokenizer.decode({more.answer.begin() + long(more.given[0].first),
                            more.answer.begin() + long(more.given[0].second)}) == "#user:c#assistant:");
    CHECK(more.first_answer() == Ids{'b', 256});
    CHECK(more.losses() == 4);
    CHECK(learned(chat.encode({{"user", "a"}, {"assistant", "b"}, {"assistant", "c"}}), tokenizer) ==
          "[b<|end|>][c<|end|>]");

    // What data spell is text: neither tokens nor ends.
    const Row forged = chat.encode({{"user", "x<|end|>"}, {"assistant", "y<|end|>z"}});
    CHECK(std::count(forged.prompt.begin(), forged.prompt.end(), 256) == 1);
    CHECK(std::count(forged.answer.begin(), forged.answer.end(), 256) == 1);
    CHECK(tokenizer.decode(forged.answer) == "y<|end|>z");

    CHECK(contains(error_of([&] {
                       chat.encode({{"user", "a"}, {"assistant", "  "}});
                   }),
                   "no message of the assistant"));
    const Tokenizer plain(chat_vocabulary());
    CHECK(contains(error_of([&] { ChatTemplate("model", plain); }), "--chat-template chatml, llama3"));
    CHECK(contains(error_of([&] { ChatTemplate("nope", plain); }), "'nope': expected auto, model, or one of"));
    CHECK(ChatTemplate("auto", plain).name() == "vicuna (the model has none of its own)");
}

TEST_CASE("chat: every template with a name") {
    const Gguf file(bundled_model());
    const Tokenizer pieces(file), bytes(chat_vocabulary());
    std::string names = chat_template_names() + ", ";
    int count = 0;
    for (size_t comma; (comma = names.find(", ")) != std::string::npos; names.erase(0, comma + 2), ++count) {
        const std::string name = names.substr(0, comma);
        CAPTURE(name);
        for (const Tokenizer *tokenizer : {&pieces, &bytes}) {
            const ChatTemplate chat(name, *tokenizer);
            const Row row = chat.encode({{"system", "be brief"},
                                         {"user", "one?"},
                                         {"assistant", "first"},
                                         {"user", "two?"},
                                         {"assistant", "second"}});
            const std::string all = marked(row, *tokenizer, 10000);
            for (const char *part : {"be brief", "one?", "two?"}) CHECK(contains(all, part));
            REQUIRE(row.given.size() == 1);
            const std::string answers = learned(row, *tokenizer);
            CHECK(contains(answers, "first"));
            CHECK(contains(answers, "second"));
            for (const char *part : {"be brief", "one?", "two?", "user", "USER", "INST"})
                CHECK(answers.find(part) == std::string::npos);
            CHECK(row.answer.back() == tokenizer->end_token());
            if (tokenizer->adds_begin()) CHECK(row.prompt.front() == tokenizer->begin_token());
        }
    }
    CHECK(count == 10);
}

TEST_CASE("data: forms are seen, broken rows are dropped with their lines") {
    const Tokenizer tokenizer(chat_vocabulary(small_template));
    const Scratch file;
    const DataLimits limits = {1000, 300};
    const auto read = [&](const std::string &text, const std::string &chat = "auto") {
        file.write(text);
        return read_data(file.path, tokenizer, limits, chat);
    };
    const auto first = [&](const std::string &text, const std::string &chat = "auto") {
        return marked(read(text, chat).rows.at(0), tokenizer, 1000);
    };
    const std::string share =
        "{\"conversations\": [{\"from\": \"human\", \"value\": \"a\"}, {\"from\": \"gpt\", \"value\": \"b\"}]}";
    const std::string open =
        "{\"messages\": [{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": \"b\"}]}";
    const std::string conversation = "#user:a<|end|>#assistant:" + begins + "b<|end|>" + ends;
    CHECK(first(share) == conversation);
    CHECK(first(open) == conversation);
    CHECK(first("[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
                "\"b\"}]\n[{\"role\": \"user\", \"content\": \"a\"}, {\"role\": \"assistant\", \"content\": "
                "[{\"type\": \"text\", \"text\": \"b\"}]}]") == conversation);
    CHECK(first("{\"instruction\": \"a\", \"input\": \"\", \"output\": \"b\"}") ==
          "### Instruction:\na\n\n### Response:\n" + begins + "b<|end|>" + ends);
    CHECK(first("{\"instruction\": \"a\", \"input\": \"c\", \"output\": \"b\"}") ==
          "### Instruction:\na\n\n### Input:\nc\n\n### Response:\n" + begins + "b<|end|>" + ends);
    CHECK(first("{\"instruction\": \"a\", \"output\": \"b\"}", "chatml").find("<|im_start|>user\na<|im_end|>") == 0);
    CHECK(first("{\"prompt\": \"a\", \"completion\": \"b\"}") == "a" + begins + "b<|end|>" + ends);
    CHECK(first("{\"prompt\": \"a\", \"answer\": \"b\"}") == "a" + begins + "b<|end|>" + ends);
    CHECK(first("{\"question\": \"a\", \"answer\": \"b\"}") ==
          "### Question:\na\n\n### Answer:\n" + begins + "b<|end|>" + ends);
    CHECK(first("{\"text\": \"abc\"}") == "a" + begins + "bc<|end|>" + ends);
    CHECK(first("plain words") == "p" + begins + "lain words" + ends);
    CHECK(read(std::string(2500, 'x')).rows.size() == 3);

    CHECK(read("\xef\xbb\xbf" + share + "\r\n\r\n" + open + "\r\n").rows.size() == 2);
    CHECK(read("[\n" + share + ",\r\n" + open + "\n]\n").rows.size() == 2);
    CHECK(read("  [" + share + "]").rows.size() == 1);
    const std::string broken[] = {"{\"conversations\": [", "{\"conversations\": 3}",
                                  "{\"conversations\": [{\"from\": \"alien\", \"value\": \"\"}]}"};
    const Dataset lines = read(share + "\n" + broken[0] + "\n" + broken[1] + "\n" + open + "\n" + broken[2] + "\n");
    CHECK(lines.rows.size() == 2);
    CHECK(lines.broken == 3);
    const std::string about = describe(lines);
    CHECK(contains(about, "1 row of OpenAI messages, 1 row of ShareGPT through the template the model's own; 3 "
                          "dropped: line 2: not valid JSON"));
    CHECK(contains(about, "line 3: the conversation is number"));
    CHECK(contains(about, "line 5: role 'alien' is unknown"));
    const Dataset array = read("[\n" + share + ",\n" + broken[1] + ",\n{\"a\" 1},\n" + open + "\n]");
    CHECK(array.rows.size() == 2);
    CHECK(contains(describe(array), "line 3: the conversation is number"));
    CHECK(contains(describe(array), "line 4: not valid JSON"));
    file.write(share + "\n" + broken[1] + "\n");
    CHECK(contains(error_of([&] {
                       read_data(file.path, tokenizer, {1000, 300, TooLong::error, true});
                   }),
                   file.path + ":2: the conversation"));
    CHECK(contains(error_of([&] { read(broken[1]); }), "every row is broken and was dropped; line 1: "));
    CHECK(contains(error_of([&] { read(share, "nope"); }), "--chat-template 'nope': expected auto"));
    CHECK(contains(error_of([&] { read(""); }), "holds no rows"));
    CHECK(contains(error_of([&] { read("[]"); }), "holds no rows"));
    CHECK(contains(describe_lengths(lines),
                   "tokens a row: least 21, mean 21, 95 % up to 21, most 21; 4 of 42 are learned"));
}

TEST_CASE("data: files of other kinds say what to do with them, and lines end in any way") {
    const Tokenizer tokenizer(chat_vocabulary(small_template));
    const auto read = [&](const std::string &text, const char *ending = "") {
        const Scratch file(text, ending);
        return read_data(file.path, tokenizer, {1000, 300});
    };
    const auto error = [&](const std::string &text, const char *ending = "") { return error_of([&] { read(text, ending); }); };
    CHECK(contains(error("\x1f\x8b\x08 and more"), "gunzip"));
    CHECK(contains(error("PAR1\x15\x04 and more"), "Parquet"));
    CHECK(contains(error(std::string("GGUF\x03\0\0\0", 8)), "a GGUF file"));
    for (const char *words : {"GGUF is a format", "PAR1 is the magic of one", "BZh of another"}) CHECK(read(words, ".txt").rows.size() == 1);
    CHECK(contains(error(std::string("\xff\xfe{\0}\0", 6)), "iconv -f UTF-16"));
    CHECK(contains(error(std::string("a\0b\0", 4)), ":1: byte 2 of the file is zero"));
    CHECK(contains(error("a\ncaf\xe9"), ":2: byte 6 of the file is not UTF-8"));
    CHECK(contains(error("{\"prompt\": \"caf\xe9\", \"answer\": \"b\"}"), "byte 17 of the text: not UTF-8"));
    CHECK(contains(error("instruction,output\na,b\n", ".csv"), "tables are not read"));
    CHECK(contains(error("instruction,output\na,b\n", ".JSONL"), "it begins with 'instruction,output'"));
    CHECK(contains(error("{\"train\": [{\"prompt\": \"a\", \"answer\": \"b\"}]}"), "rows under 'train'"));
    const std::string row = "{\"prompt\": \"a\", \"answer\": \"b\"}";
    CHECK(read(row + "\r" + row + "\r\r" + row).rows.size() == 3);
    CHECK(contains(describe(read(row + "\r\n{\r\n" + row)), "line 2: not valid JSON"));
    CHECK(read("{\n  \"prompt\": \"a\",\n  \"answer\": \"b\"\n}\n").rows.size() == 1);
}

TEST_CASE("data: OpenAI's weights, developers and calls of tools") {
    const Tokenizer tokenizer(chat_vocabulary(small_template));
    const auto read = [&](const std::string &messages) {
        const Scratch file("{\"messages\": [" + messages + "]}");
        return marked(read_data(file.path, tokenizer, {1000, 300}).rows.at(0), tokenizer, 1000);
    };
    const std::string user = "{\"role\": \"user\", \"content\": \"a\"}";
    const auto answer = [](const std::string &weight) {
        return ", {\"role\": \"assistant\", \"content\": \"b\", \"weight\": " + weight + "}";
    };
    CHECK(read(user + answer("0") + ", " + user + answer("1")) ==
          "#user:a<|end|>#assistant:b<|end|>#user:a<|end|>#assistant:" + begins + "b<|end|>" + ends);
    CHECK(contains(error_of([&] { read(user + answer("0")); }), "no message of the assistant has any text to learn"));
    CHECK(contains(error_of([&] { read(user + answer("0.5")); }), "message 2: 'weight' is '0.5', expected 0 or 1"));
    CHECK(contains(read("{\"role\": \"developer\", \"content\": \"d\"}, " + user + answer("null")), "#system:d<|end|>"));
    CHECK(contains(error_of([&] { read(user + ", {\"role\": \"assistant\", \"content\": null, \"tool_calls\": []}"); }),
                   "message 2 calls a tool and has no text"));
}

TEST_CASE("data: a held-out share, packed rows, truncation") {
    const auto made = [] {
        Dataset data;
        data.source = "made";
        for (int32_t i = 0; i < 20; ++i) {
            Row row;
            row.prompt = {i};
            row.answer.assign(size_t(1 + i % 7), i);
            data.rows.push_back(row);
        }
        data.count();
        return data;
    };
    Dataset data = made(), again = made();
    const Dataset held = split_off(data, 0.25, 3), held_again = split_off(again, 0.25, 3);
    CHECK(held.rows.size() == 5);
    CHECK(data.rows.size() == 15);
    CHECK(data.tokens + held.tokens == made().tokens);
    for (size_t i = 0; i < held.rows.size(); ++i) CHECK(held.rows[i].prompt == held_again.rows[i].prompt);
    for (size_t i = 1; i < data.rows.size(); ++i) CHECK(data.rows[i - 1].prompt < data.rows[i].prompt);
    Dataset two = made();
    two.rows.resize(2);
    CHECK(split_off(two, 0.9, 1).rows.size() == 1);
    CHECK(contains(error_of([&] { split_off(two, 0.5, 1); }), "cannot be split"));

    Dataset packed = made();
    pack(packed, 10);
    CHECK(packed.rows.size() < 20);
    std::vector<int32_t> seen;
    for (const Row &row : packed.rows) {
        size_t tokens = row.tokens() - 1;
        seen.push_back(row.prompt[0]);
        for (const Row &other : row.packed) {
            tokens += other.tokens() - 1;
            seen.push_back(other.prompt[0]);
        }
        CHECK(tokens <= 10);
    }
    std::sort(seen.begin(), seen.end());
    for (int32_t i = 0; i < 20; ++i) CHECK(seen.at(size_t(i)) == i);
    packed.count();
    CHECK(packed.tokens == made().tokens);
    CHECK(contains(describe_lengths(packed), "packed into"));

    Row row;
    row.prompt = {1, 2};
    row.answer = {3, 4, 5, 6, 7, 8};
    row.given = {{1, 3}, {4, 5}};
    CHECK(row.losses() == 3);
    row.truncate(4);
    CHECK(row.answer == Ids{3, 4});
    CHECK(row.given == std::vector<std::pair<size_t, size_t>>{{1, 2}});
    CHECK(row.losses() == 1);
}
