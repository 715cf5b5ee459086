// qlora-finetune train; without a command, too.
#include "commands.h"
#include "perplexity_table.h"
#include "session.h"

namespace finetune {

int command_train(int argc, char **argv) {
    Options options;
    if (!parse_options(argc, argv, &options)) return exit_success;
    if (options.perplexity_table.empty()) return run_session(options);
    print_perplexity_table(options);
    return exit_success;
}

} // namespace finetune
