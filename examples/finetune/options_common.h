// Options that several commands share: the base model, the device, and how it computes.
#pragma once

#include "block.h"
#include "format_choice.h"

namespace CLI {
class App;
}

namespace finetune {

struct ModelOptions {
    std::string model, quant;
    uint32_t quant_block = 0;

    FormatChoice format() const; // what linear layers become; format 0: as they are
};

struct DeviceOptions {
    std::string device = "auto", compute = "f32", activations;
    uint32_t threads = 0;

    Precision precision() const; // throws when the two types do not go together
};

struct CommonOptions : ModelOptions, DeviceOptions {};

void add_model_options(CLI::App &app, ModelOptions &options, bool required = true);
void add_device_options(CLI::App &app, DeviceOptions &options);

// An Error names the option and the bounds.
void check_range(const char *option, double value, double least, double most);

} // namespace finetune
