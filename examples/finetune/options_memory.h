// What the command line says about memory.
#pragma once

#include "planner.h"

namespace CLI {
class App;
}

namespace finetune {

enum class MemoryUse { training, evaluation, speech };

// Those that make sense for what a command does.
void add_memory_options(CLI::App &app, MemoryOptions &options, MemoryUse use);

} // namespace finetune
