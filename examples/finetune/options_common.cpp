#include "options_common.h"

#include <CLI/CLI.hpp>

namespace finetune {

void add_model_options(CLI::App &app, ModelOptions &o, bool required) {
    app.add_option("--model", o.model, "base model: a GGUF file, or a Hugging Face directory")
        ->required(required)
        ->group("Files");
    app.add_option("--quant", o.quant,
                   "what an F32, F16 or BF16 base's linear layers become: none, or " + format_names() +
                       ", llm-int8 (int8 with products in integers, outliers apart) or nvfp4-scaled (a scale per "
                       "tensor); when training, default nf4-dq. NAME:N for N values that share a scale. A quantized "
                       "base is used as it is")
        ->group("Computation");
    app.add_option("--quant-block", o.quant_block, "values that share a scale; 0 is the format's default")
        ->capture_default_str()
        ->group("Computation");
}

void add_device_options(CLI::App &app, DeviceOptions &o) {
    app.add_option("--device", o.device,
                   "auto, cpu, cuda[:N], vulkan[:N], or ref (slow, exact); auto takes a GPU if one works")
        ->capture_default_str()
        ->group("Computation");
    app.add_option("--threads", o.threads, "threads of the cpu device; 0 is one per core")
        ->capture_default_str()
        ->group("Computation");
    app.add_option("--compute", o.compute,
                   "precision of matrix products: f32, bf16 or f16; sums and adapters are f32 always")
        ->capture_default_str()
        ->group("Computation");
    app.add_option("--activations", o.activations,
                   "type of activations in memory: f32, bf16 or f16; default bf16 with --compute bf16, else f32")
        ->group("Computation");
}

void check_range(const char *option, double value, double least, double most) {
    if (value >= least && value <= most) return;
    std::ostringstream message;
    message.precision(12); // no 1e+06 for a million
    message << option << " " << value << ": expected " << least << " to " << most;
    fail(message.str());
}

} // namespace finetune
