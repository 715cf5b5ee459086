#include "run_flags.h"

#include "file.h"

namespace finetune {
namespace {

// FNV-1a, 64 bits.
class Fingerprint {
public:
    void add(const void *data, size_t size) {
        for (size_t i = 0; i < size; ++i) sum_ = (sum_ ^ static_cast<const uint8_t *>(data)[i]) * 0x100000001b3u;
    }
    void add(uint64_t value) { add(&value, sizeof value); }
    void add(const std::string &text) {
        add(text.size());
        add(text.data(), text.size());
    }
    void add(const std::vector<int32_t> &ids) {
        add(ids.size());
        add(ids.data(), ids.size() * sizeof(int32_t));
    }
    std::string text() const {
        char text[17];
        snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(sum_));
        return text;
    }

private:
    uint64_t sum_ = 0xcbf29ce484222325u;
};

// Sixteen places of a tensor. Every format takes a bit a value at least.
void add_samples(Fingerprint &sum, const BaseTensor &tensor) {
    const uint8_t *data = tensor.weight.planes[QLORA_PLANE_CODE];
    if (data == nullptr) data = tensor.weight.gptq.qweight;
    const uint64_t places = 16, size = 16, bytes = tensor.elements / 8;
    if (data == nullptr || bytes < size) return;
    for (uint64_t i = 0; i < places; ++i) sum.add(data + (bytes - size) / (places - 1) * i, size);
}

// A number of float by the fewest digits that are no other one.
template <class Value> std::string text_of(const Value &value) {
    if constexpr (std::is_same_v<Value, float>)
        for (int digits = 6; digits < 9; ++digits) {
            std::ostringstream text;
            text.precision(digits);
            text << value;
            if (strtof(text.str().c_str(), nullptr) == value) return text.str();
        }
    std::ostringstream text;
    text.precision(9);
    text << value;
    return text.str();
}

std::string fingerprint_of_file(const std::string &path) {
    const MappedFile file(path);
    Fingerprint sum;
    sum.add(file.data(), file.size());
    return text_of(file.size()) + " bytes, " + sum.text();
}

} // namespace

std::string fingerprint(const BaseModel &base) {
    Fingerprint sum;
    uint64_t elements = 0;
    for (const BaseTensor &tensor : base.tensors()) {
        sum.add(tensor.name);
        sum.add(tensor.type);
        for (uint64_t size : tensor.shape) sum.add(size);
        elements += tensor.elements;
        add_samples(sum, tensor);
    }
    return text_of(base.tensors().size()) + " tensors of " + text_of(elements) + " values, " + sum.text();
}

std::string fingerprint(const Dataset &data) {
    Fingerprint sum;
    const auto add = [&](const Row &row) {
        sum.add(row.prompt);
        sum.add(row.answer);
        for (const auto &[first, end] : row.given) {
            sum.add(first);
            sum.add(end);
        }
    };
    for (const Row &row : data.rows) {
        add(row);
        sum.add(row.packed.size());
        for (const Row &other : row.packed) add(other);
    }
    return text_of(data.rows.size()) + " rows of " + text_of(data.tokens) + " tokens, " + sum.text();
}

RunFlags run_flags(const Options &options, const TrainOptions &plan, const BaseModel &base, const Dataset &data,
                   const Dataset *eval) {
    const char *const schedules[] = {"constant", "linear", "cosine"};
    RunFlags flags = {{"--model", fingerprint(base)},
                      {"--data", fingerprint(data)},
                      {"--quant", options.quant.empty() ? "of itself" : options.quant},
                      {"--calibrate", options.calibrate.empty() ? "nothing" : text_of(options.calibrate_tokens) + " tokens of " + fingerprint_of_file(options.calibrate)},
                      {"--quant-block", text_of(options.quant_block)},
                      {"--compute", options.compute},
                      {"--activations", options.activations.empty() ? "of itself" : options.activations},
                      {"--rank", text_of(options.rank)},
                      {"--alpha", text_of(options.alpha)},
                      {"--rslora", options.rslora ? "true" : "false"},
                      {"--targets", options.targets},
                      {"--lora-dropout", text_of(plan.dropout)},
                      {"--lora-plus", text_of(plan.optimizer.b_rate)},
                      {"--optimizer", plan.optimizer.name},
                      {"--learning-rate", text_of(plan.learning_rate)},
                      {"--schedule", schedules[int32_t(plan.schedule)]},
                      {"--warmup", text_of(plan.warmup)},
                      {"--batch", text_of(plan.batch)},
                      {"--accumulate", text_of(plan.accumulate)},
                      {"--clip", text_of(plan.clip)},
                      {"--weight-decay", text_of(plan.weight_decay)},
                      {"--order", plan.shuffle ? "shuffled" : "file"},
                      {"--seed", text_of(plan.seed)}};
    // With a constant rate a run may become longer.
    if (plan.schedule != Schedule::constant) flags["--steps"] = text_of(plan.steps);
    if (options.run.eval_every > 0) {
        flags["--eval-every"] = text_of(options.run.eval_every);
        flags["--early-stop"] = text_of(options.run.watchdog.early_stop);
        if (eval != nullptr) flags["--eval-data"] = fingerprint(*eval);
    }
    return flags;
}

} // namespace finetune
