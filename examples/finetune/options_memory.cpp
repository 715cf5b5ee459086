#include "options_memory.h"

#include <CLI/CLI.hpp>

namespace finetune {

namespace {

std::function<void(const std::string &)> on_off(std::optional<bool> &value, const char *option, const char *yes, const char *no) {
    return [&value, option, yes, no](const std::string &text) {
        if (text == "auto") value.reset();
        else if (text == yes || text == no) value = text == yes;
        else fail(option, " ", shown(text), ": expected auto, ", yes, " or ", no);
    };
}

void add_training_options(CLI::App &app, MemoryOptions &o) {
    app.add_option_function<std::string>("--offload", on_off(o.offload, "--offload", "on", "off"),
                                         "whether inputs of the layers wait in host memory for the backward pass: on, off or auto")
        ->default_str("auto")
        ->group("Memory");
    app.add_option_function<std::string>("--graph", on_off(o.graphs, "--graph", "on", "off"),
                                         "whether batches of shapes that come often are recorded as a CUDA graph and replayed: on, off, or "
                                         "auto: where the device can and there is room. Results are the same to the bit")
        ->default_str("auto")
        ->group("Memory");
    app.add_option_function<std::string>(
           "--optimizer-memory", [&o](const std::string &text) { o.optimizer_bytes = parse_bytes("--optimizer-memory", text); },
           "device memory for the optimizer's state; what is beyond streams from host memory. 0 is no bound; default as needed")
        ->group("Memory");
    app.add_option_function<uint32_t>("--keep-layers", [&o](uint32_t count) { o.kept_layers = count; },
                                      "layers whose activations are kept instead of computed again in the backward pass; default "
                                      "as many as there is room for")
        ->group("Memory");
    app.add_flag_callback("--no-checkpoint", [&o] { o.checkpointing = false; },
                          "keep all activations instead of computing each layer again in the backward pass: faster, much more memory")
        ->group("Memory");
}

} // namespace

void add_memory_options(CLI::App &app, MemoryOptions &o, MemoryUse use) {
    app.add_option("--memory", o.memory,
                   "device memory for the whole process, as 6G (1024^3) or 6GB (1000^3); default is what is free on a GPU, and no bound on a "
                   "CPU, where all that is taken counts but weights that are used in the mapped file. What does not fit is brought under it, "
                   "cheapest means first, and the plan says how")
        ->group("Memory");
    app.add_option("--host-memory", o.host_memory,
                   "host memory for what is not on the device; default seven eighths of what is free. Layers that stream and have no room "
                   "there are read from their file")
        ->group("Memory");
    app.add_option_function<std::string>("--embedding", on_off(o.host_embedding, "--embedding", "host", "device"),
                                         "where the rows of the embedding lie: device, host or auto")
        ->default_str("auto")
        ->group("Memory");
    app.add_option_function<std::string>("--quant-head", [&o](const std::string &text) { if (text == "auto") o.head.reset(); else o.head = text; },
                                         "what the head becomes: none, a format such as nf4, or auto: nf4 if nothing cheaper fits")
        ->default_str("auto")
        ->group("Memory");
    app.add_option_function<uint32_t>("--stream-layers", [&o](uint32_t count) { o.streamed_layers = count; },
                                      "layers whose weights stay in host memory and stream to the device; default as many as needed")
        ->group("Memory");
    app.add_option_function<uint32_t>("--file-layers", [&o](uint32_t count) { o.file_layers = count; },
                                      "of these, layers that are read from their file each time, without a copy in host memory; default as many as needed")
        ->group("Memory");
    if (use == MemoryUse::speech) {
        app.add_option_function<uint64_t>("--prompt-tokens", [&o](uint64_t tokens) { o.prompt_tokens = tokens; },
                                          "tokens of a prompt that are computed at a time; default 256, fewer if need be")
            ->group("Memory");
        return;
    }
    app.add_option_function<uint32_t>("--logits-rows", [&o](uint32_t rows) { o.chunk_rows = rows; },
                                      "tokens whose logits exist at a time; default chosen")
        ->group("Memory");
    app.add_option_function<uint64_t>("--eval-tokens", [&o](uint64_t tokens) { o.eval_tokens = tokens; },
                                      "tokens computed at a time in evaluations; default 4096, fewer if need be")
        ->group("Memory");
    if (use == MemoryUse::training) add_training_options(app, o);
}

} // namespace finetune
