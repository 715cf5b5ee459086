#include "report.h"

#include <cmath>
#include <cstdio>
#include <cstring>
#include <sys/ioctl.h>
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

std::string readable_time(double seconds) {
    const uint64_t whole = static_cast<uint64_t>(std::max(0.0, seconds) + 0.5);
    char text[32];
    if (whole >= 3600)
        snprintf(text, sizeof text, "%llu:%02u:%02u", static_cast<unsigned long long>(whole / 3600), unsigned(whole / 60 % 60),
                 unsigned(whole % 60));
    else snprintf(text, sizeof text, "%u:%02u", unsigned(whole / 60), unsigned(whole % 60));
    return text;
}

std::string four_digits(double value) {
    char text[64];
    snprintf(text, sizeof text, "%.4f", value);
    return text;
}

Progress::Progress(uint64_t steps, uint64_t memory_bytes, uint64_t memory_limit)
    : steps_(steps), every_(std::max<uint64_t>(1, steps / 50)), memory_(readable_bytes(memory_bytes)),
      terminal_(isatty(STDOUT_FILENO) != 0) {
    if (memory_limit > 0) memory_ += " of " + readable_bytes(memory_limit);
    begin(0);
}

void Progress::begin(uint64_t step) {
    first_ = step;
    start_ = last_ = std::chrono::steady_clock::now();
}

void Progress::say(const std::string &text) {
    printf("%s%s\n", drawn_ ? "\r\x1b[K" : "", text.c_str());
    drawn_ = false;
    fflush(stdout);
}

void Progress::show(const StepReport &report, double average) {
    const uint64_t done = report.step + 1;
    const bool last = done == steps_;
    const auto now = std::chrono::steady_clock::now();
    const bool long_ago = now - last_ > std::chrono::seconds(30);
    if (!terminal_ && !last && !long_ago && report.step % every_ != 0) return;
    last_ = now;
    const double elapsed = std::chrono::duration<double>(now - start_).count();
    const double left = elapsed / double(done - first_) * double(steps_ - done);
    char text[256];
    snprintf(text, sizeof text, "step %llu/%llu  loss %.4f  average %.4f  rate %.2e  norm %.4f  %.0f tok/s  %s  %s left",
             static_cast<unsigned long long>(done), static_cast<unsigned long long>(steps_), report.loss, average,
             report.learning_rate, std::fabs(report.gradient_norm), report.tokens_per_second, memory_.c_str(), readable_time(left).c_str());
    if (!terminal_) return say(text);
    winsize window = {};
    // A line that wraps cannot be drawn over.
    if (ioctl(STDOUT_FILENO, TIOCGWINSZ, &window) == 0 && window.ws_col > 1 && strlen(text) >= window.ws_col) text[window.ws_col - 1] = 0;
    printf("\r\x1b[K%s%s", text, last ? "\n" : "");
    drawn_ = !last;
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
