#include "report.h"

#include <cstdio>
#include <unistd.h>

namespace finetune {
namespace {

std::string scaled(double value, double base, const char *const *units, int count, const char *form) {
    int unit = 0;
    while (value >= base && unit + 1 < count) {
        value /= base;
        ++unit;
    }
    char text[64];
    snprintf(text, sizeof(text), unit == 0 ? "%.0f%s" : form, value, units[unit]);
    return text;
}

} // namespace

std::string readable_bytes(uint64_t bytes) {
    const char *const units[] = {" bytes", " KiB", " MiB", " GiB", " TiB"};
    return scaled(double(bytes), 1024, units, 5, "%.1f%s");
}

std::string readable_count(uint64_t count) {
    const char *const units[] = {"", " thousand", " million", " billion"};
    return scaled(double(count), 1000, units, 4, "%.1f%s");
}

Progress::Progress(uint64_t steps)
    : steps_(steps), every_(std::max<uint64_t>(1, steps / 50)), terminal_(isatty(STDOUT_FILENO) != 0) {}

void Progress::show(const StepReport &report) {
    const bool last = report.step + 1 == steps_;
    if (!terminal_ && !last && report.step % every_ != 0) return;
    printf("%sstep %llu/%llu  loss %.4f  learning rate %.2e  gradient norm %.4f  %.0f tok/s%s",
           terminal_ ? "\r\x1b[K" : "", static_cast<unsigned long long>(report.step + 1),
           static_cast<unsigned long long>(steps_), report.loss, report.learning_rate, report.gradient_norm,
           report.tokens_per_second, terminal_ && !last ? "" : "\n");
    fflush(stdout);
}

std::string one_line(const std::string &text) {
    std::string out;
    for (char c : text) {
        if (c == '\n') out += "\\n";
        else if (static_cast<unsigned char>(c) >= 0x20) out += c;
    }
    return out;
}

void Metrics::save(const std::string &path) const {
    Json all = Json::object();
    all["device"] = device;
    all["quant"] = quant;
    if (eval_before) all["eval_before"] = *eval_before;
    if (eval_after) all["eval_after"] = *eval_after;
    if (perplexity) all["perplexity"] = *perplexity;
    if (match_before) all["exact_match_before"] = *match_before;
    if (match_after) all["exact_match_after"] = *match_after;
    all["train_seconds"] = train_seconds;
    all["train"] = Json::array();
    for (const StepReport &step : train) all["train"].push_back({step.loss, step.gradient_norm});
    all["grad_norms_step0"] = Json::object();
    for (size_t i = 0; i < norms_step0.size(); ++i) all["grad_norms_step0"][norm_names[i]] = norms_step0[i];
    const std::string text = all.dump(1) + "\n";
    NewFile file(path);
    file.write(text.data(), text.size());
    file.commit();
}

} // namespace finetune
