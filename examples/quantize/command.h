// The command line of qlora-quantize.
#pragma once

#include "error.h"

#include <cstdio>
#include <string>
#include <vector>

namespace quantize {

using namespace finetune;

struct Rule {
    std::string pattern; // with * and ?
    int32_t format;      // 0: as it is
};

struct Command {
    std::string model, out, keys, importance, calibrate, device = "cpu";
    int32_t format = 0; // of linear weights; 0: as they are
    std::vector<Rule> rules;
    uint32_t block = 0, threads = 0;
    bool plan = false, stochastic = false, tensor_scale = false;
    uint64_t seed = 0, calibrate_tokens = 65536;
    uint32_t gptq_version = 0; // of the checkpoint to write; 0: that of the source, else 1
    int32_t power = 0;         // QLORA_POWER_*
};

// False when the program should end well at once (--help). Throws Error for what makes no sense.
bool parse_command(int argc, const char *const *argv, FILE *out, Command *command);

} // namespace quantize
