// One run of the program from its options to its files.
#pragma once

#include "options.h"

namespace finetune {

// Returns exit_success or exit_interrupted. Checks every input before it takes device memory, and writes files only after everything succeeded.
int run_session(const Options &options);
// Prints what run_session would need, for the given rows, or else for --batch rows of --sequence tokens.
void run_plan(const Options &options);

} // namespace finetune
