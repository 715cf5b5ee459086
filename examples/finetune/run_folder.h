// The folder of a run:
//   config.toml      every flag, so that --config config.toml begins the run again
//   checkpoints/     step-00000120/ {state.safetensors, adapter.gguf}, the last few and the best
//   metrics.jsonl    an object a step: step, loss, average, learning_rate, gradient_norm, tokens, seconds; and a validation: step,
//                    validation_loss
//   report.html      curves, flags and samples, for a browser without a network
//   adapter.gguf     when the run is complete, unless --out says another place
#pragma once

#include "checkpoints.h"
#include "json.h"

namespace finetune {

class RunFolder {
public:
    // A new run's folder is made, and must hold no run; one to go on in must. Only one process at a time has it.
    RunFolder(const std::string &path, bool resume);
    RunFolder(const RunFolder &) = delete;
    RunFolder &operator=(const RunFolder &) = delete;
    ~RunFolder();

    const std::string &path() const { return path_; }
    std::string file(const char *name) const { return path_ + "/" + name; }
    Checkpoints &checkpoints() { return checkpoints_; }
    const Checkpoints &checkpoints() const { return checkpoints_; }

    // Appends an object to metrics.jsonl; a kill afterwards does not lose it.
    void log(const Json &record);
    void flush_log(); // to the disk
    // Of the records those up to `step` stay; none when there is no step.
    void rewind_log(std::optional<uint64_t> step);
    std::vector<Json> records() const;

private:
    void open_log();

    std::string path_;
    int lock_ = -1, log_ = -1;
    Checkpoints checkpoints_;
};

// A whole text file, which appears complete or not at all.
void write_text(const std::string &path, const std::string &text);

} // namespace finetune
