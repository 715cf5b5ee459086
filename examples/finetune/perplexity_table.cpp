#include "perplexity_table.h"

#include "calibrate.h"
#include "evaluate.h"
#include "format_choice.h"
#include "report.h"

#include <chrono>
#include <cmath>
#include <cstdio>

namespace finetune {
namespace {

std::vector<FormatChoice> chosen_formats(const Options &options, const BaseModel &base) {
    std::vector<FormatChoice> choices;
    const std::string &names = options.perplexity_table;
    if (names == "all") {
        const bool wide = base.tensor(gguf_weight_name(0, linear_output)).weight.format == QLORA_FORMAT_F32;
        for (int32_t format : all_formats()) {
            // f32 holds nothing that a base of 16 bits has not; unsigned codes hold no weights.
            if (format == QLORA_FORMAT_UDYN8 || (format == QLORA_FORMAT_F32 && !wide)) continue;
            if (is_calibrated(format)) choices.push_back({format, 0, true, false, false});
            if (!is_calibrated(format) || !options.calibrate.empty()) choices.push_back({format, 0, false, false, false});
            if (format == QLORA_FORMAT_INT8) choices.push_back({format, 0, false, true, false});
            if (format == QLORA_FORMAT_NVFP4) choices.push_back({format, 0, false, false, true});
        }
        return choices;
    }
    for (size_t start = 0; start <= names.size();) {
        const size_t end = std::min(names.find(',', start), names.size());
        choices.push_back(named_choice(names.substr(start, end - start), "--perplexity-table"));
        start = end + 1;
    }
    return choices;
}

// What a table row's linear layers become, calibrated now when they are to be.
class Quantizer {
public:
    Quantizer(const Options &options, const BaseModel &base, Device &device)
        : options_(options), base_(base), calibrating_(device, options.threads) {
        if (!options.calibrate.empty())
            windows_ = calibration_windows(options.calibrate, options.calibrate_tokens, base);
    }

    // Valid until the next call.
    ModelChoice model(const FormatChoice &choice) {
        const uint32_t block = choice.block != 0 ? choice.block : options_.quant_block;
        ModelChoice model;
        if (options_.calibrates(choice)) {
            ready_ = calibrate(*calibrating_, base_, windows_, {choice.format, block}, nullptr);
            model.ready = &ready_;
            return model;
        }
        model.format = choice.format;
        model.block = block;
        model.scaled = choice.scaled;
        return model;
    }
    uint64_t tokens() const {
        uint64_t tokens = 0;
        for (const Batch &window : windows_) tokens += window.tokens();
        return tokens;
    }

private:
    const Options &options_;
    const BaseModel &base_;
    CalibrationDevice calibrating_;
    std::vector<Batch> windows_;
    HostWeights ready_;
};

} // namespace

void print_perplexity_table(const Options &options) {
    const BaseModel base(options.model);
    const ModelShape &shape = base.shape();
    const std::vector<FormatChoice> choices = chosen_formats(options, base);
    std::vector<int32_t> ids = read_token_sequence(options.perplexity_ids, shape.vocabulary);
    if (options.perplexity_tokens > 0 && options.perplexity_tokens < ids.size()) ids.resize(options.perplexity_tokens);
    if (options.window > shape.context)
        fail("--window ", options.window, ": more than the model's context length ", shape.context);
    if (ids.size() < options.window) fail(options.perplexity_ids, ": shorter than one window of ", options.window, " tokens");

    Device device(options.device, options.threads);
    const Budget budget = find_budget(device, options.memory);
    Task task;
    task.training = false;
    task.precision = options.precision();
    task.adapter_shape = shape.adapter_shape(1);
    const Adapter none = initial_adapter(task.adapter_shape, 1, 0); // its B is zero
    task.initial = &none;
    task.evaluation_bounds = [&](uint64_t tokens) { return bounds_of(pack_windows(ids, options.window, tokens)); };
    printf("%s on %s, products in %s, windows of %u over %s tokens; linear layers only\n", options.model.c_str(),
           device.name().c_str(), options.compute.c_str(), options.window, readable_count(ids.size()).c_str());
    Quantizer quantizer(options, base, device);
    if (!options.calibrate.empty())
        printf("gptq and spqr formats without -rtn calibrated with %llu tokens of %s\n",
               static_cast<unsigned long long>(quantizer.tokens()), options.calibrate.c_str());
    printf("%-12s %12s %12s %11s %9s %8s\n", "format", "bits/weight", "bytes", "perplexity", "to first", "seconds");
    double first = 0;
    for (const FormatChoice &choice : choices) {
        const std::string name = choice.name();
        fflush(stdout);
        const auto start = std::chrono::steady_clock::now();
        try {
            device.release(); // of the row before; calibration takes memory of its own
            task.model = quantizer.model(choice);
            task.integers = choice.integers;
            const MemoryPlan plan = make_plan(device, base, task, options.memory, budget);
            const auto machine = carry_out(device, base, task, options.memory, plan);
            const Model &model = machine->model;
            const double perplexity = std::exp(mean_loss(*machine->network, pack_windows(ids, options.window, plan.choice.eval_tokens)));
            if (first == 0) first = perplexity;
            const std::string mixture = model.linear_format();
            printf("%-12s %12.4f %12llu %11.4f %+8.2f%% %8.1f%s\n", name.c_str(), model.linear_bits(),
                   static_cast<unsigned long long>(model.linear_bytes()), perplexity, 100 * (perplexity / first - 1),
                   std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(),
                   mixture == format_name(choice.format) || choice.integers ? "" : ("  " + mixture).c_str());
        } catch (const Error &error) { printf("%-12s %s\n", name.c_str(), error.what()); }
    }
}

} // namespace finetune
