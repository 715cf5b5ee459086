// What decides the results of a run, for a resume to compare: flags, and what model and data are.
#pragma once

#include "options.h"
#include "training_run.h"

namespace finetune {

// A few values of every tensor, with names, shapes and types; not all of a large file is read.
std::string fingerprint(const BaseModel &base);
// Every token, and what of it is learned.
std::string fingerprint(const Dataset &data);

// plan: as it will run, with its steps. eval may be null.
RunFlags run_flags(const Options &options, const TrainOptions &plan, const BaseModel &base, const Dataset &data,
                   const Dataset *eval);

} // namespace finetune
