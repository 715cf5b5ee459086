// SIGINT and SIGTERM while training, a terminal that closes (SIGHUP) and a pipe that nobody reads (SIGPIPE): the first asks for the
// end after this step, the second ends the program at once. Whoever started the program to ignore one of the latter two is obeyed.
#pragma once

namespace finetune {

class StopSignals {
public:
    StopSignals(); // takes the signals over until it is gone
    StopSignals(const StopSignals &) = delete;
    StopSignals &operator=(const StopSignals &) = delete;
    ~StopSignals();

    bool stop() const; // whether one came
};

} // namespace finetune
