// qlora-finetune inspect
#include "commands.h"
#include "inspect.h"
#include "report.h"

#include <cstdio>

namespace finetune {
namespace {

const char *const about = "Says what a file or directory is: a model, an adapter, a state; its shape, types, tokenizer and keys.\n";

const char *const examples = "  qlora-finetune inspect base.gguf\n"
                             "  qlora-finetune inspect --keys adapter.gguf\n"
                             "  qlora-finetune inspect --json hugging-face-directory\n";

// Of a value as it may appear in one line: without its control bytes, not too long.
std::string line_of(const Json &value) {
    if (value.is_string()) {
        const std::string quoted = shown(value.get<std::string>());
        return quoted.substr(1, quoted.size() - 2);
    }
    return value.dump();
}

void print_field(const char *name, const std::string &text) { printf("  %-14s%s\n", name, text.c_str()); }

std::string count_of(const Json &value) { return readable_count(value.get<uint64_t>()); }

void print(const Json &about, bool keys) {
    printf("%s\n", about["path"].get<std::string>().c_str());
    print_field("kind", about["kind"].get<std::string>() + ", " + about["format"].get<std::string>() + ", " +
                            readable_bytes(about["bytes"].get<uint64_t>()));
    if (about.contains("name")) print_field("name", line_of(about["name"]));
    if (about.contains("layers"))
        print_field("architecture", line_of(about["architecture"]) + ": " + about["layers"].dump() + " layers of " + about["embedding"].dump() + ", " +
                                        about["heads"].dump() + " heads of " + about["head_dim"].dump() + " (" + about["kv_heads"].dump() +
                                        " for keys and values), feed-forward " + about["feed_forward"].dump() + ", vocabulary " +
                                        about["vocabulary"].dump() + ", context " + about["context"].dump());
    else if (about.contains("architecture")) print_field("architecture", line_of(about["architecture"]));
    char number[64];
    snprintf(number, sizeof(number), "%.3f bits each", about["bits_per_weight"].get<double>());
    print_field("parameters", count_of(about["parameters"]) + " in " + about["tensors"].dump() + " tensors, " + number);
    for (const Json &type : about["types"]) {
        snprintf(number, sizeof(number), "%.3f bits", type["bits_per_weight"].get<double>());
        printf("    %-10s %5llu tensors  %s values, %s, %s\n", type["type"].get<std::string>().c_str(),
               static_cast<unsigned long long>(type["tensors"].get<uint64_t>()), count_of(type["values"]).c_str(),
               readable_bytes(type["bytes"].get<uint64_t>()).c_str(), number);
    }
    if (about.contains("adapter")) {
        const Json &adapter = about["adapter"];
        std::string ranks, modules;
        for (const Json &rank : adapter["ranks"]) ranks += (ranks.empty() ? "" : ", ") + rank["rank"].dump() + " x " + rank["layers"].dump();
        for (const auto &[module, layers] : adapter["modules"].items()) modules += (modules.empty() ? "" : ", ") + module + " x " + layers.dump();
        print_field("ranks", ranks);
        print_field("scale", adapter.contains("scale") ? adapter["scale"].dump() : "not said: there is no adapter_config.json");
        print_field("modules", modules);
    }
    if (about.contains("state"))
        for (const auto &[key, value] : about["state"].items()) print_field(key.c_str(), line_of(value));
    if (about.contains("tokenizer")) {
        const Json &tokenizer = about["tokenizer"];
        if (tokenizer.contains("problem")) print_field("tokenizer", tokenizer["problem"].get<std::string>());
        else {
            std::string text = tokenizer["kind"].get<std::string>() + ", " + tokenizer["tokens"].dump() + " tokens";
            if (tokenizer.contains("pre_tokenizer")) text += ", words of " + line_of(tokenizer["pre_tokenizer"]);
            for (const char *which : {"begin", "end", "turn_end"})
                if (tokenizer[which].is_object()) text += std::string(", ") + which + " " + line_of(tokenizer[which]["piece"]);
            print_field("tokenizer", text);
        }
        print_field("chat template", about.contains("chat_template") ? line_of(about["chat_template"]) : "none");
    }
    if (about.contains("base")) print_field("as a base", about["base"].get<std::string>());
    if (!about.contains("keys")) return;
    if (!keys) return print_field("keys", std::to_string(about["keys"].size()) + "; --keys lists them");
    for (const Json &key : about["keys"]) printf("    %s = %s\n", line_of(key["key"]).c_str(), line_of(key["value"]).c_str());
}

} // namespace

int command_inspect(int argc, char **argv) {
    std::string path;
    bool json = false, keys = false;
    CommandApp app("inspect", about, examples);
    app.add_option("path", path, "a GGUF or safetensors file, or a directory of Hugging Face or PEFT")->required();
    app.add_flag("--json", json, "as JSON");
    app.add_flag("--keys", keys, "all keys with their values");
    if (!app.read(argc, argv)) return exit_success;
    const Json about_file = inspect(path);
    if (json) printf("%s\n", about_file.dump(2, ' ', false, Json::error_handler_t::replace).c_str());
    else print(about_file, keys);
    return exit_success;
}

} // namespace finetune
