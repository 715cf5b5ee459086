#include "config_file.h"

#include "commands.h"
#include "error.h"
#include "file.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cctype>
#include <filesystem>

namespace finetune {
namespace {

// Options that say which run, not what it does.
const char *const places[] = {"config", "resume", "run-dir", "help"};
const char *const paths[] = {"model", "data", "eval-data", "train-ids", "eval-ids", "perplexity-ids", "adapter-init",
                             "out", "metrics", "calibrate", "save-state", "import-state"};

template <size_t count> bool is_one_of(const std::string &name, const char *const (&names)[count]) {
    return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

std::string name_of(const CLI::Option &option) { return option.get_lnames().empty() ? "" : option.get_lnames()[0]; }

bool is_flag(const CLI::Option &option) { return option.get_items_expected_max() == 0; }

bool is_bare(char c) { return isalnum(static_cast<unsigned char>(c)) || c == '-' || c == '_'; }

// A line of the file.
class Line {
public:
    Line(std::string_view text, const std::string &path, int number) : text_(text), path_(path), number_(number) {}

    void skip_spaces() {
        while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\t')) ++at_;
    }
    bool at_end() { // or at a comment
        skip_spaces();
        return at_ == text_.size() || text_[at_] == '#';
    }
    template <class... Parts> [[noreturn]] void reject(const Parts &...parts) const { fail(path_, ":", number_, ": ", parts...); }

    std::string name() {
        if (text_[at_] == '[') reject("a table; options have no tables here, write them as name = value");
        if (text_[at_] == '"' || text_[at_] == '\'') return string();
        std::string name;
        while (at_ < text_.size() && is_bare(text_[at_])) name += text_[at_++];
        if (name.empty()) reject("expected the name of an option, as in learning-rate = 1e-3");
        return name;
    }
    void equals(const std::string &name) {
        skip_spaces();
        if (at_ == text_.size() || text_[at_] != '=') reject("expected = after ", shown(name));
        ++at_;
        skip_spaces();
    }
    ConfigEntry value(const std::string &name) {
        if (at_end()) reject("no value after ", name, " =");
        if (text_[at_] == '"' || text_[at_] == '\'') return {name, string(), number_, true};
        std::string value;
        while (at_ < text_.size() && (is_bare(text_[at_]) || text_[at_] == '.' || text_[at_] == '+')) value += text_[at_++];
        if (value != "true" && value != "false") {
            value.erase(std::remove(value.begin(), value.end(), '_'), value.end());
            char *end = nullptr;
            strtod(value.c_str(), &end);
            if (value.empty() || !isdigit(static_cast<unsigned char>(value.back())) || *end != 0)
                reject("the value of ", name, " is none: texts are in quotes, as in ", name, " = \"...\"; the others are a number, "
                       "true and false");
        }
        return {name, value, number_, false};
    }

private:
    std::string string() {
        const char quote = text_[at_++];
        std::string out;
        for (; at_ < text_.size(); ++at_) {
            char c = text_[at_];
            if (c == quote) {
                ++at_;
                return out;
            }
            if (c == '\\' && quote == '"') {
                if (++at_ == text_.size()) break;
                const size_t known = std::string_view("\"\\nt").find(text_[at_]);
                if (known == std::string_view::npos)
                    reject("the escape \\", text_[at_], " is none; write texts with backslashes in single quotes");
                c = "\"\\\n\t"[known];
            }
            out += c;
        }
        reject("a text without its closing ", quote);
    }

    std::string_view text_;
    const std::string &path_;
    int number_;
    size_t at_ = 0;
};

// What follows the last `flag` among the arguments; "" when it is not there.
std::string argument_of(const std::vector<std::string> &arguments, const std::string &flag) {
    std::string value;
    for (size_t i = 0; i < arguments.size(); ++i) {
        if (arguments[i] == flag && i + 1 < arguments.size()) value = arguments[i + 1];
        if (arguments[i].rfind(flag + "=", 0) == 0) value = arguments[i].substr(flag.size() + 1);
    }
    return value;
}

std::string in_quotes(const std::string &text) {
    std::string out = "\"";
    for (char c : text) {
        if (c == '"' || c == '\\') out += '\\';
        if (c == '\n') out += "\\n";
        else out += c;
    }
    return out + "\"";
}

std::string config_line(const CLI::Option &option, const std::string &name) {
    const bool given = option.count() > 0;
    if (is_flag(option)) return name + " = " + (given && option.results().back() != "false" ? "true" : "false") + "\n";
    std::string value = given ? option.results().back() : option.get_default_str();
    if (value.empty()) return "# " + name + " =\n";
    if (is_one_of(name, paths)) value = std::filesystem::absolute(value).lexically_normal().string();
    char *end = nullptr;
    strtod(value.c_str(), &end);
    const bool is_number = option.get_type_name() != "TEXT" && *end == 0 && std::isdigit(static_cast<unsigned char>(value.back())) != 0 &&
                           value.find_first_of("xX") == std::string::npos;
    return name + " = " + (is_number ? value : in_quotes(value)) + "\n";
}

} // namespace

std::vector<ConfigEntry> parse_config(const std::string &text, const std::string &path) {
    std::vector<ConfigEntry> entries;
    int number = 0;
    for (size_t begin = 0; begin < text.size();) {
        size_t end = std::min(text.find('\n', begin), text.size());
        std::string_view part(&text[begin], end - begin);
        if (!part.empty() && part.back() == '\r') part.remove_suffix(1);
        begin = end + 1;
        Line line(part, path, ++number);
        if (line.at_end()) continue;
        const std::string name = line.name();
        line.equals(name);
        entries.push_back(line.value(name));
        if (!line.at_end()) line.reject("something follows the value of ", name, "; one option a line");
        for (size_t i = 0; i + 1 < entries.size(); ++i)
            if (entries[i].name == name) line.reject(name, " is in line ", entries[i].line, " already");
    }
    return entries;
}

void expand_config(const CLI::App &app, std::vector<std::string> &arguments) {
    std::string path = argument_of(arguments, "--config");
    const std::string resumed = argument_of(arguments, "--resume");
    if (app.get_option_no_throw("--config") == nullptr) return;
    if (!resumed.empty() && !exists(resumed)) fail("--resume ", resumed, ": there is no such folder or file");
    if (is_directory(resumed)) {
        if (!path.empty()) fail("--config and --resume ", resumed, ": give one of them; the folder has its own config.toml");
        path = resumed + "/config.toml";
        if (!exists(path)) fail(resumed, ": holds no config.toml; --resume takes the folder of --run-dir, or a file of --save-state");
    }
    if (path.empty()) return;
    const MappedFile file(path);
    std::vector<std::string> from_file;
    for (const ConfigEntry &entry : parse_config(std::string(file.text()), path)) {
        const CLI::Option *option = app.get_option_no_throw("--" + entry.name);
        if (option == nullptr || is_one_of(entry.name, places)) {
            std::vector<std::string> names;
            for (const CLI::Option *known : app.get_options())
                if (!is_one_of(name_of(*known), places)) names.push_back(name_of(*known));
            const std::string nearest = nearest_name(entry.name, names);
            fail(path, ":", entry.line, ": there is no option ", shown(entry.name),
                 option != nullptr ? " in a file; it belongs to the command line" : nearest.empty() ? "" : "; did you mean " + nearest + "?");
        }
        if (is_flag(*option) && entry.value != "true" && entry.value != "false")
            fail(path, ":", entry.line, ": ", entry.name, " is true or false, not ", shown(entry.value));
        from_file.push_back("--" + entry.name + "=" + entry.value);
    }
    arguments.insert(arguments.begin(), from_file.begin(), from_file.end());
}

std::string config_text(const CLI::App &app) {
    std::string text = "# Options of a run; --config with this file begins it again.\n";
    std::vector<std::string> groups;
    for (const CLI::Option *option : app.get_options())
        if (std::find(groups.begin(), groups.end(), option->get_group()) == groups.end()) groups.push_back(option->get_group());
    for (const std::string &group : groups) {
        std::string lines;
        for (const CLI::Option *option : app.get_options()) {
            const std::string name = name_of(*option);
            if (option->get_group() == group && !name.empty() && !is_one_of(name, places)) lines += config_line(*option, name);
        }
        if (!lines.empty()) text += "\n# " + group + "\n" + lines;
    }
    return text;
}

} // namespace finetune
