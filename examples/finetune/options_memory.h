// What the command line says about memory.
#pragma once

#include "planner.h"

namespace CLI {
class App;
}

namespace finetune {

void add_memory_options(CLI::App &app, MemoryOptions &options);

} // namespace finetune
