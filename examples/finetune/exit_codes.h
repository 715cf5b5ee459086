// What the program answers to its caller. The one place.
#pragma once

namespace finetune {

enum : int {
    exit_success = 0,
    exit_error = 2,         // one line on standard error; nothing was written, but for what a run directory holds
    exit_failed = 3,        // training could not go on (not finite, run away); checkpoints stay
    exit_interrupted = 130, // SIGINT or SIGTERM: the step was finished and everything saved
};

} // namespace finetune
