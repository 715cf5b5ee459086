// A training run from its first step, or from a checkpoint, to its last: steps, validations, checkpoints, what is shown and
// logged, and the ways to end.
#pragma once

#include "evaluate.h"
#include "report.h"
#include "run_folder.h"
#include "watchdog.h"

namespace finetune {

struct RunOptions {
    std::string folder;      // none: nothing is kept but what the options of files say
    bool resume = false;     // the run that the folder holds
    uint64_t save_every = 0; // steps; 0: twenty times a run
    uint32_t keep = 3;       // checkpoints, besides the best
    uint64_t eval_every = 0; // steps between validations; 0: none
    WatchdogOptions watchdog;
};

// What decides the results of a run, by the flag that brings it: "--learning-rate": "0.003", "--data": "32 rows, ...".
using RunFlags = std::map<std::string, std::string>;

// What the newest checkpoint was made with; empty when there is none.
RunFlags first_flags(const RunFolder &folder);
// Whether the newest checkpoint was made with these. Throws an Error that names the first flag which differs, and both values.
void check_same_run(const RunFolder &folder, const RunFlags &flags);

struct TrainingTask {
    Device &device;
    Network &network;
    const Trainable &adapter;
    Trainer &trainer;
    const TrainOptions &plan;
    const std::vector<Row> &rows;
    const std::vector<Batch> &validation; // may be empty
    RunFlags flags;
    uint64_t memory_bytes, memory_limit; // taken in all, and what there is; 0: not known
};

enum class RunEnd { finished, interrupted, stopped_early };

class TrainingRun {
public:
    // folder: null for a run without. Where the folder is one to go on in, its newest whole checkpoint is loaded.
    TrainingRun(const TrainingTask &task, const RunOptions &options, RunFolder *folder);

    RunEnd run(const std::function<void(const StepReport &)> &report);

    Trainer &trainer() { return trainer_; }
    const Watchdog &watchdog() const { return watchdog_; }
    // The loss of the last validation, if it was after the last step.
    std::optional<double> last_validation() const;

private:
    void load();
    std::string notes() const;
    void log(const StepReport &result, double average);
    void save();
    std::string last_checkpoint() const; // for a message
    bool validate(); // false: early stop
    uint64_t save_every() const;

    TrainingTask task_;
    RunOptions options_;
    RunFolder *folder_;
    Trainer &trainer_;
    Watchdog watchdog_;
    Progress progress_;
    uint64_t tokens_ = 0; // of the whole run, as seconds
    double seconds_ = 0;
    std::optional<uint64_t> validated_step_;
    double validation_ = 0;
};

} // namespace finetune
