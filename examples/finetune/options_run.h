// The options of train that say how a run is kept, watched and resumed.
#pragma once

namespace CLI {
class App;
}

namespace finetune {

struct Options;

void add_adapter_options(CLI::App &app, Options &options);
void add_run_options(CLI::App &app, Options &options);
// What follows from them, and whether they make sense.
void check_run_options(Options &options);

} // namespace finetune
