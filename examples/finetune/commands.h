// The subcommands of qlora-finetune: one file each, command_NAME.cpp, and a table of them. Each takes the arguments from
// its own name on, returns the exit code, and throws Error for what makes no sense or goes wrong.
#pragma once

#include "exit_codes.h"

#include <CLI/CLI.hpp>

namespace finetune {

struct Command {
    const char *name, *about;
    int (*run)(int argc, char **argv);
};

int command_train(int argc, char **argv);
int command_eval(int argc, char **argv);
int command_generate(int argc, char **argv);
int command_chat(int argc, char **argv);
int command_merge(int argc, char **argv);
int command_convert(int argc, char **argv);
int command_combine(int argc, char **argv);
int command_inspect(int argc, char **argv);
int command_plan(int argc, char **argv);
int command_doctor(int argc, char **argv);

// Runs the command that the first argument names; arguments that begin with a flag belong to train.
int run_command(int argc, char **argv);

// An application whose options take their last value, so that scripts set and users override.
class CommandApp : public CLI::App {
public:
    CommandApp(const std::string &name, const std::string &about, const std::string &examples);
    // False when the program should end well at once, after --help. What does not parse is an Error.
    bool read(int argc, char **argv);
    bool given(const char *option) { return count(option) > 0; }
};

// The name that differs from `text` by the fewest letters, at most a third of them or two; "" when there is none.
std::string nearest_name(const std::string &text, const std::vector<std::string> &names);

} // namespace finetune
