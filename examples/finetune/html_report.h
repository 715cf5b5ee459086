// The report of a run as one page for a browser: curves, flags, samples. It needs no network and no script.
#pragma once

#include "run_folder.h"

namespace finetune {

struct Sample {
    std::string prompt, expected, before, after;
};

// report.html of the folder, from its metrics.jsonl and config.toml.
void write_report(const RunFolder &folder, const std::vector<Sample> &samples = {});

} // namespace finetune
