#include "signals.h"

#include "exit_codes.h"

#include <csignal>
#include <unistd.h>

namespace finetune {
namespace {

const int taken[] = {SIGINT, SIGTERM};
volatile sig_atomic_t came = 0;
struct sigaction before[2];

void on_signal(int) {
    if (came != 0) _exit(exit_interrupted);
    came = 1;
}

} // namespace

StopSignals::StopSignals() {
    came = 0;
    struct sigaction action = {};
    action.sa_handler = on_signal;
    action.sa_flags = SA_RESTART;
    for (int i = 0; i < 2; ++i) sigaction(taken[i], &action, &before[i]);
}

StopSignals::~StopSignals() {
    for (int i = 0; i < 2; ++i) sigaction(taken[i], &before[i], nullptr);
}

bool StopSignals::stop() const { return came != 0; }

} // namespace finetune
