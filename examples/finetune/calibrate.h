// Calibrated quantization of a llama model's linear layers (GPTQ, 2210.17323, and SpQR, 2306.03078): block by block, and
// within a block in the order of computation, so that each weight is fitted to the inputs that the already quantized
// ones before it give.
#pragma once

#include "batch.h"
#include "model.h"
#include "trainable.h"

#include <functional>

namespace finetune {

struct CalibrationPlan {
    int32_t format = QLORA_FORMAT_GPTQ4; // one of the GPTQ or SpQR formats
    uint32_t block = 0;                  // columns that share a scale; 0 = the format's default
    uint32_t flags = QLORA_FLAG_ACT_ORDER | QLORA_FLAG_STATIC_GROUPS;
    float damping = 0;   // of the Hessian's mean diagonal; 0 = 0.01
    float threshold = 0; // SpQR: of an outlier; 0 = 0.2
};

// What became of one weight. Losses are squared errors of its outputs, summed, per token.
struct CalibrationReport {
    std::string name;
    qlora_gptq_outcome outcome; // method, damping; its loss is `loss`
    double loss, nearest_loss;  // calibrated; and what rounding to nearest would have cost
    uint64_t weights, outliers; // SpQR: how many weights became outliers
};

// Token windows for calibration from `source`: ids FILE.safetensors:NAME or FILE.json:KEY, JSON lines as for training,
// or any other file as plain text, of which the first 4 MiB count. At most `tokens` tokens, in windows of `window`
// spread evenly; one shorter window when there is no more. tokenizer may be null for ids.
std::vector<Batch> read_calibration(const std::string &source, const Tokenizer *tokenizer, uint64_t vocabulary,
                                    uint64_t tokens, uint32_t window);

// The same for a run's --calibrate and --calibrate-tokens; windows of 512, or the model's context if that is shorter.
std::vector<Batch> calibration_windows(const std::string &source, uint64_t tokens, const BaseModel &base);

// Quantized linear weights by name, computed on `device`, which is cpu or ref. `report` may be empty.
HostWeights calibrate(Device &device, const BaseModel &base, const std::vector<Batch> &windows, const CalibrationPlan &plan,
                      const std::function<void(const CalibrationReport &)> &report);

// One line of a report, without its end: name, loss, nearest loss, method.
std::string calibration_line(const CalibrationReport &report);

// The device that calibrates for `device`: itself when it can, else a new one on the CPU.
class CalibrationDevice {
public:
    CalibrationDevice(Device &device, uint32_t threads);
    Device &operator*() { return own_ ? *own_ : device_; }

private:
    Device &device_;
    std::unique_ptr<Device> own_;
};

} // namespace finetune
