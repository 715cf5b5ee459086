// Model files with adapters merged into their weights: W + s B A, computed in f32 on a device, tensor by tensor.
#pragma once

#include "adapter_file.h"
#include "device.h"

namespace finetune {

struct MergeOptions {
    int32_t format = 0;             // of all matrices; 0: each as it is
    uint64_t shard_bytes = 5000000000; // of a safetensors file
};

struct Merged {
    uint64_t updated = 0, copied = 0, converted = 0; // tensors
    uint64_t bytes = 0;                              // of all files
};

// `adapters` are of the base's kind: GGUF for a GGUF file, PEFT for a directory. The file appears complete or not at all.
Merged merge_gguf(Device &device, const std::string &base, const AdapterFile &adapters, const MergeOptions &options,
                  const std::string &out);
// A directory of safetensors with config and tokenizer beside them; it must not be there yet.
Merged merge_directory(Device &device, const std::string &base, const AdapterFile &adapters, const MergeOptions &options,
                       const std::string &out);

// The codes of a weight in another float or ggml format, with an update or without (null).
std::vector<uint8_t> merged_codes(Device &device, const StoredWeight &weight, const LoraPair *update, int32_t format,
                                  const std::string &name);

} // namespace finetune
