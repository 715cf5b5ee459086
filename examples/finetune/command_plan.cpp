// qlora-finetune plan
#include "commands.h"
#include "session.h"

namespace finetune {

int command_plan(int argc, char **argv) {
    Options options;
    options.plan_only = true;
    if (!parse_options(argc, argv, &options, true)) return exit_success;
    run_plan(options);
    return exit_success;
}

} // namespace finetune
