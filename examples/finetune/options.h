// The command line of qlora-finetune train.
#pragma once

#include "data.h"
#include "options_common.h"
#include "planner.h"
#include "training_run.h"

#include <string>

namespace finetune {

struct Options : CommonOptions {
    std::string data, eval_data, train_ids, eval_ids, perplexity_ids, adapter_init, out, metrics,
        perplexity_table, calibrate, save_state;
    uint64_t calibrate_tokens = 65536;
    uint32_t rank = 8;
    float alpha = 16;
    bool alpha_given = false;
    bool rslora = false;
    std::string targets = "all";
    double epochs = 1;
    bool steps_given = false;
    uint64_t sequence = 0; // 0: the model's context length
    TooLong too_long = TooLong::error;
    std::string chat_template = "auto";
    bool strict = false;
    bool plan_only = false; // nothing is trained
    double eval_fraction = 0; // of the training rows, held out
    uint64_t pack = 0;        // tokens of a packed sequence; 0: rows as they are
    MemoryOptions memory;
    uint64_t eval_rows = 0; // 0: all
    uint32_t exact_match = 0, samples = 0;
    uint32_t window = 512;
    uint64_t perplexity_tokens = 0; // 0: all
    TrainOptions train;
    RunOptions run;
    std::string config, config_text; // a file to read; and all options as one

    // Whether a format is to be calibrated.
    bool calibrates(const FormatChoice &choice) const {
        return !calibrate.empty() && is_calibrated(choice.format) && !choice.nearest;
    }
};

// False when the program should end well at once (--help). Throws Error for what makes no sense. planning: the command
// is plan, which needs neither rows nor a place for an adapter.
bool parse_options(int argc, char **argv, Options *options, bool planning = false);

} // namespace finetune
