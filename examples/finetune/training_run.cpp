#include "training_run.h"

#include "html_report.h"
#include "signals.h"

#include <chrono>
#include <cstdio>

namespace finetune {
namespace {

const char *const state_name = "state.safetensors", *const adapter_name = "adapter.gguf";

// The notes of a checkpoint, without its tensors.
Json read_notes(const std::string &path) {
    const SafeTensors file(path);
    const std::string *text = file.metadata("notes");
    if (text == nullptr || text->empty()) file.reject("holds no notes of a run");
    return parse_json(*text, path, 8);
}

RunFlags flags_of(const Json &notes) {
    RunFlags flags;
    const auto found = notes.find("flags");
    if (found == notes.end() || !found->is_object()) return flags;
    for (const auto &[flag, value] : found->items())
        if (value.is_string()) flags[flag] = value.get<std::string>();
    return flags;
}

} // namespace

RunFlags first_flags(const RunFolder &folder) {
    std::vector<uint64_t> steps = folder.checkpoints().steps();
    RunFlags began;
    for (; began.empty() && !steps.empty(); steps.pop_back()) {
        try {
            began = flags_of(read_notes(folder.checkpoints().path(steps.back()) + "/" + state_name));
        } catch (const Error &) {
            // Damaged; TrainingRun says so.
        }
    }
    return began;
}

void check_same_run(const RunFolder &folder, const RunFlags &now) {
    const RunFlags began = first_flags(folder);
    if (began.empty()) return;
    const auto refuse = [&](const std::string &flag, const std::string &before, const std::string &value) {
        fail(folder.path(), ": this run began with ", flag, " ", before, ", not with ", value,
             "; resume it as it began, or begin another with --run-dir");
    };
    for (const auto &[flag, value] : now) {
        const auto before = began.find(flag);
        if (before == began.end()) refuse(flag, "of another meaning", value);
        if (before->second != value) refuse(flag, before->second, value);
    }
    for (const auto &[flag, value] : began)
        if (now.count(flag) == 0) refuse(flag, value, "none");
}

TrainingRun::TrainingRun(const TrainingTask &task, const RunOptions &options, RunFolder *folder)
    : task_(task), options_(options), folder_(folder), trainer_(task.trainer),
      watchdog_(options.watchdog), progress_(task.plan.steps, task.memory_bytes, task.memory_limit) {
    if (folder_ != nullptr && options_.resume) load();
    progress_.begin(trainer_.state().step);
}

void TrainingRun::load() {
    Checkpoints &checkpoints = folder_->checkpoints();
    std::vector<uint64_t> steps = checkpoints.steps();
    if (steps.empty()) {
        printf("no checkpoint in %s yet: the run begins at its first step\n", folder_->path().c_str());
        return folder_->rewind_log({});
    }
    std::string problem;
    std::vector<uint64_t> damaged;
    for (; !steps.empty(); steps.pop_back()) {
        const std::string place = checkpoints.path(steps.back()), path = place + "/" + state_name;
        try {
            const Json notes = parse_json(trainer_.load_state(path), path, 8);
            watchdog_.load(notes.value("watchdog", Json::object()));
            tokens_ = notes.value("tokens", uint64_t(0));
            seconds_ = notes.value("seconds", 0.0);
            const std::string device = notes.value("device", "");
            if (device != task_.device.name())
                printf("note: this run was on %s and goes on on %s: last bits of its results may differ\n", device.c_str(),
                       task_.device.name().c_str());
            for (const uint64_t step : damaged) checkpoints.set_aside(step);
            printf("resumed from %s\n", place.c_str());
            return folder_->rewind_log(trainer_.state().step);
        } catch (const Error &error) { problem = error.what(); } catch (const Json::exception &) {
            problem = path + ": its notes are of another version of this program";
        }
        printf("cannot resume from %s: %s\n", place.c_str(), problem.c_str());
        damaged.push_back(steps.back());
    }
    fail("none of the checkpoints can be read: ", problem, "; begin again with --config ", folder_->path(), "/config.toml --run-dir and another folder");
}

std::string TrainingRun::notes() const {
    Json notes = {{"flags", task_.flags},
                  {"device", task_.device.name()},
                  {"watchdog", watchdog_.save()},
                  {"tokens", tokens_},
                  {"seconds", seconds_}};
    return notes.dump(-1, ' ', false, Json::error_handler_t::replace);
}

void TrainingRun::save() {
    if (folder_ == nullptr) return;
    folder_->flush_log();
    Checkpoints &checkpoints = folder_->checkpoints();
    checkpoints.write(trainer_.state().step, [&](const std::string &place) {
        trainer_.save_state(place + "/" + state_name, notes());
        write_adapter_gguf(place + "/" + adapter_name, task_.adapter.download(task_.device), task_.adapter.shape());
    });
    std::optional<uint64_t> best;
    if (watchdog_.best_validation()) best = watchdog_.best_step();
    checkpoints.prune(options_.keep, best);
}

void TrainingRun::log(const StepReport &result, double average) {
    if (folder_ == nullptr) return;
    Json record = {{"step", trainer_.state().step},
                   {"loss", result.loss},
                   {"average", average},
                   {"learning_rate", result.learning_rate},
                   {"gradient_norm", result.gradient_norm},
                   {"tokens", tokens_},
                   {"seconds", seconds_}};
    if (result.skipped) record["skipped"] = true;
    if (task_.plan.scale_loss) record["loss_scale"] = result.loss_scale;
    folder_->log(record);
}

std::string TrainingRun::last_checkpoint() const {
    if (folder_ == nullptr) return "";
    const std::vector<uint64_t> steps = folder_->checkpoints().steps();
    return steps.empty() ? "" : "; the last checkpoint is " + folder_->checkpoints().path(steps.back());
}

uint64_t TrainingRun::save_every() const {
    return options_.save_every > 0 ? options_.save_every : std::max<uint64_t>(1, task_.plan.steps / 20);
}

std::optional<double> TrainingRun::last_validation() const {
    if (!validated_step_ || *validated_step_ != trainer_.state().step) return {};
    return validation_;
}

bool TrainingRun::validate() {
    const uint64_t step = trainer_.state().step;
    validation_ = mean_loss(task_.network, task_.validation);
    validated_step_ = step;
    const Watchdog::Verdict verdict = watchdog_.validated(step, validation_);
    if (folder_ != nullptr) {
        folder_->log({{"step", step}, {"validation_loss", validation_}});
        write_report(*folder_);
    }
    std::string remark;
    if (verdict == Watchdog::Verdict::best) remark = ", the best so far";
    else remark = ", best " + four_digits(*watchdog_.best_validation()) + " at step " + std::to_string(watchdog_.best_step());
    if (verdict == Watchdog::Verdict::overfit)
        remark += "; it has been rising: the adapter begins to know its rows by heart. Fewer --steps, --lora-dropout or --weight-decay may help";
    if (verdict == Watchdog::Verdict::stop) remark += "; no better for long enough: early stop";
    progress_.say("validation at step " + std::to_string(step) + "  loss " + four_digits(validation_) + remark);
    return verdict != Watchdog::Verdict::stop;
}

RunEnd TrainingRun::run(const std::function<void(const StepReport &)> &report) {
    const StopSignals signals;
    const TrainOptions &plan = task_.plan;
    RowOrder order(task_.rows.size(), plan.shuffle, plan.seed);
    while (trainer_.state().step < plan.steps) {
        const auto start = std::chrono::steady_clock::now();
        const StepReport result = trainer_.advance(task_.rows, order);
        const uint64_t done = trainer_.state().step;
        tokens_ += result.tokens;
        seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        const std::optional<std::string> problem = watchdog_.observe(result);
        const double average = watchdog_.average().value_or(result.loss);
        log(result, average);
        if (result.skipped)
            progress_.say("step " + std::to_string(done) + " skipped: not finite" +
                          (plan.scale_loss ? ", loss scale now " + std::to_string(uint64_t(trainer_.state().scale.value)) : ""));
        progress_.show(result, average);
        if (problem) throw TrainingFailed(*problem + last_checkpoint());
        report(result);

        const bool last = done == plan.steps;
        bool goes_on = true, best = false;
        if (options_.eval_every > 0 && !task_.validation.empty() && (last || done % options_.eval_every == 0)) {
            goes_on = validate();
            best = watchdog_.best_step() == done;
        }
        const bool stop = signals.stop();
        if (last || stop || !goes_on || best || done % save_every() == 0) save();
        if (last) break;
        if (stop) return RunEnd::interrupted;
        if (!goes_on) return RunEnd::stopped_early;
    }
    return RunEnd::finished;
}

} // namespace finetune
