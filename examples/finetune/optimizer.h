// The optimizer of a run: which one, where its state lies, and the state as a file, so that a run goes on later as if it
// had never stopped.
#pragma once

#include "safetensors.h"
#include "trainable.h"

#include <map>
#include <string>
#include <vector>

namespace finetune {

struct OptimizerChoice {
    int32_t algorithm = QLORA_OPTIMIZER_ADAMW;
    bool small = false; // 8-bit state
    std::string name = "adamw";
    float b_rate = 0; // LoRA+ (2402.12354): learns B so many times as fast as A; 0 = 1
};

// "adamw", "lion8bit", ...; throws for others.
OptimizerChoice optimizer_by_name(const std::string &name);
std::string optimizer_names(); // for messages

class Optimizer {
public:
    // State beyond `budget` bytes of device memory streams through a window from host memory; 0 is no bound.
    Optimizer(Device &device, const Trainable &adapter, const OptimizerChoice &choice, uint64_t budget);

    // The parameters of the adapter with their state.
    const std::vector<qlora_parameter> &parameters() const { return parameters_; }
    // Sets what the choice and the place of state decide.
    void fill(qlora_optimizer_args &args) const;

    const std::string &name() const { return choice_.name; }
    uint64_t device_bytes() const { return pager_.resident_bytes + pager_.window_bytes; }
    uint64_t host_bytes() const { return pager_.arena_bytes; }

    // Values and state after `step` steps, byte for byte, with a checksum. Texts in `extra` go into the metadata.
    void save(const std::string &path, uint64_t step, const std::map<std::string, std::string> &extra = {}) const;
    // Brings all back; returns the step. Throws when the file is of another optimizer or adapter, or damaged, and then changed
    // nothing. Of `extra` it finds what a file has, which may be older than a key.
    uint64_t load(const std::string &path, std::map<std::string, std::string> *extra = nullptr);
    // State from an optimizer of bitsandbytes, saved as safetensors: tensors "<parameter>.state1", ".absmax1", ".qmap1" and so
    // on, where <parameter> is PEFT's name, or "state.<i>" or "<i>" with i counting layer, linear, half. Values stay. Returns
    // the step that the file says, or 0.
    uint64_t import_bitsandbytes(const std::string &path);
    // The 256 values of 8-bit codes; empty when the state is F32.
    const std::vector<float> &table(bool is_unsigned) const { return is_unsigned ? unsigned_table_ : signed_table_; }

private:
    std::string name_of(size_t i, const char *adapter = "") const;
    std::vector<uint8_t> read(const qlora_span &span) const;
    std::vector<float> decode(const SafeTensors &file, const std::string &prefix, int state, size_t i) const;
    void store(size_t i, int state, const std::vector<float> &values);

    Device &device_;
    const Trainable &adapter_;
    OptimizerChoice choice_;
    std::vector<qlora_parameter> parameters_;
    qlora_pager pager_;
    Memory resident_, window_, arena_;
    std::vector<float> signed_table_, unsigned_table_; // values of 8-bit codes
};

} // namespace finetune
