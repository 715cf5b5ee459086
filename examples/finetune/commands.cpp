#include "commands.h"

#include "config_file.h"
#include "error.h"
#include "qlora.h"

#include <algorithm>
#include <cstdio>
#include <iostream>

namespace finetune {
namespace {

const Command commands[] = {
    {"train", "fine-tune a model with LoRA and write an adapter", command_train},
    {"plan", "what training would take, and what fits, without training", command_plan},
    {"eval", "perplexity of a text, answer loss and exact matches of data, for a base and adapters", command_eval},
    {"generate", "continue a prompt", command_generate},
    {"chat", "talk with a model and its adapters", command_chat},
    {"merge", "write a model file with adapters merged into its weights", command_merge},
    {"convert", "adapters between GGUF and PEFT's directories", command_convert},
    {"combine", "several adapters into one", command_combine},
    {"inspect", "what a file or directory holds", command_inspect},
    {"doctor", "devices, what they can do, how fast they copy, and whether they compute right", command_doctor},
};

void print_overview() {
    printf("Fine-tunes language models with LoRA on quantized weights, on the CPU or a GPU, and uses what came out.\n\n"
           "Usage: qlora-finetune [COMMAND] OPTIONS; without a command it is train\n\n"
           "Commands:\n");
    for (const Command &command : commands) printf("  %-10s%s\n", command.name, command.about);
    printf("\nFirst steps:\n"
           "  qlora-finetune doctor\n"
           "  qlora-finetune inspect base.gguf\n"
           "  qlora-finetune train --model base.gguf --data rows.jsonl --eval-fraction 0.1 --out adapter.gguf\n"
           "  qlora-finetune chat --model base.gguf --adapter adapter.gguf\n\n"
           "The options of a command: qlora-finetune COMMAND --help\n");
}

// Letters to insert, remove or replace.
size_t distance(const std::string &a, const std::string &b) {
    std::vector<size_t> row(b.size() + 1);
    for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= a.size(); ++i) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= b.size(); ++j) {
            const size_t above = row[j];
            row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
            diagonal = above;
        }
    }
    return row[b.size()];
}

} // namespace

std::string nearest_name(const std::string &text, const std::vector<std::string> &names) {
    std::string best;
    size_t least = std::max<size_t>(2, text.size() / 3) + 1;
    for (const std::string &name : names) {
        const size_t away = distance(text, name);
        if (away < least) {
            least = away;
            best = name;
        }
    }
    return best;
}

int run_command(int argc, char **argv) {
    const std::string first = argc < 2 ? "" : argv[1];
    if (argc < 2 || first == "--help" || first == "-h" || (first == "help" && argc == 2)) {
        print_overview();
        return argc < 2 ? exit_error : exit_success;
    }
    if (first == "help") { // of a command
        char help[] = "--help", *arguments[] = {argv[0], argv[2], help, nullptr};
        return run_command(3, arguments);
    }
    const std::string name = argv[1];
    if (name == "--version") {
        printf("qlora-finetune %d.%d.%d\n", QLORA_VERSION_MAJOR, QLORA_VERSION_MINOR, QLORA_VERSION_PATCH);
        return exit_success;
    }
    if (name[0] == '-') return command_train(argc, argv);
    std::vector<std::string> names;
    for (const Command &command : commands) {
        if (name == command.name) return command.run(argc - 1, argv + 1);
        names.push_back(command.name);
    }
    const std::string nearest = nearest_name(name, names);
    fail("there is no command ", shown(name), nearest.empty() ? "" : "; did you mean " + nearest + "?",
         nearest.empty() ? "; see qlora-finetune --help" : "");
}

CommandApp::CommandApp(const std::string &name, const std::string &about, const std::string &examples)
    : CLI::App(about, "qlora-finetune " + name) {
    option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
    if (!examples.empty()) footer("\nExamples:\n" + examples);
}

bool CommandApp::read(int argc, char **argv) {
    try {
        std::vector<std::string> arguments(argv + 1, argv + argc);
        expand_config(*this, arguments);
        std::reverse(arguments.begin(), arguments.end()); // as CLI11 takes them
        parse(arguments);
        // CLI11 takes -1 for the largest number of 64 bits.
        for (const CLI::Option *option : get_options())
            for (const std::string &result : option->results())
                if (option->get_type_name() == "UINT" && result[0] == '-') throw CLI::ConversionError(option->get_name(), std::vector<std::string>{result});
        return true;
    } catch (const CLI::CallForHelp &) {
        std::cout << help();
        return false;
    } catch (const CLI::ParseError &error) {
        std::vector<std::string> names;
        for (const CLI::Option *option : get_options())
            if (!option->get_lnames().empty()) names.push_back("--" + option->get_lnames()[0]);
        for (int i = 1; i < argc; ++i) {
            const std::string flag = std::string(argv[i]).substr(0, std::string(argv[i]).find('='));
            if (flag.rfind("--", 0) != 0 || get_option_no_throw(flag) != nullptr) continue;
            const std::string nearest = nearest_name(flag, names);
            fail("there is no option ", shown(flag), nearest.empty() ? "" : "; did you mean " + nearest + "?", "; see ",
                 get_name(), " --help");
        }
        std::string message = error.what();
        for (const CLI::Option *option : get_options()) {
            const std::string wrong = "Could not convert: " + option->get_name() + " = ";
            if (message.rfind(wrong, 0) != 0) continue;
            const std::string type = option->get_type_name();
            fail(option->get_name(), " ", shown(message.substr(wrong.size())), ": expected ",
                 type == "UINT" ? "a whole number, 0 or more" : type == "INT" ? "a whole number" : "a number", "; see ", get_name(), " --help");
        }
        for (char &c : message)
            if (c == '\n' || c == '\r') c = ' ';
        const std::string name = get_name();
        fail(message, "; see ", name.empty() ? "" : name + " ", "--help");
    }
}

} // namespace finetune
