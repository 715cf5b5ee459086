#include "signals.h"

#include "exit_codes.h"

#include <csignal>
#include <unistd.h>

namespace finetune {
namespace {

const int taken[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
const int count = sizeof taken / sizeof taken[0];
volatile sig_atomic_t came = 0;
struct sigaction before[count];

void on_signal(int signal) {
    // Every line to a pipe that nobody reads brings a signal; the checkpoint is on its way.
    if (came != 0 && signal != SIGPIPE) _exit(exit_interrupted);
    if (came == 0) came = signal;
}

} // namespace

StopSignals::StopSignals() {
    came = 0;
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    for (int i = 0; i < count; ++i) {
        sigaction(taken[i], &action, &before[i]);
        // nohup, and what starts services
        const bool may_be_deaf = taken[i] == SIGHUP || taken[i] == SIGPIPE;
        if (may_be_deaf && before[i].sa_handler == SIG_IGN) sigaction(taken[i], &before[i], nullptr);
    }
}

StopSignals::~StopSignals() {
    for (int i = 0; i < count; ++i) sigaction(taken[i], &before[i], nullptr);
    if (came == SIGPIPE) std::signal(SIGPIPE, SIG_IGN); // what is said at the end goes nowhere
}

bool StopSignals::stop() const { return came != 0; }

} // namespace finetune
