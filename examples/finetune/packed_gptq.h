// Weights of GPTQ checkpoints in safetensors files. With K inputs, N outputs and b bits, W = X.weight is four tensors:
//   X.qweight  I32 [K b / 32][N]      X.qzeros  I32 [groups][N b / 32]
//   X.scales   F16 [groups][N]        X.g_idx   I32 [K], may be absent when groups follow one another
// The version of the zeros is in the file's metadata, in quantize_config.json beside it or in config.json's
// quantization_config ("checkpoint_format": gptq or gptq_v2; a config without is gptq), or told by the zeros themselves
// when they are all the middle code.
#pragma once

#include "packed.h"

namespace finetune {

extern const char *const gptq_mark; // ".qweight"

// `qweight` is a tensor whose name ends with gptq_mark. Sizes that contradict each other are Errors.
PackedTensor read_gptq(const SafeTensors &file, const SafeTensor &qweight);

// Whether a matrix fits into whole words.
bool fits_gptq_words(int32_t format, uint64_t rows, uint64_t cols);
std::vector<PackedPart> gptq_parts(const std::string &name, int32_t format, uint32_t block, uint64_t rows,
                                   uint64_t cols, uint32_t version);
std::vector<uint8_t> gptq_bytes(const PackedPart &part, const qlora::Weight &weight);

// Row i of the weight is then what row from[i] was; the tensors move to memory of its own.
void reorder_gptq_rows(StoredWeight &weight, const std::vector<uint64_t> &from);
// The planes of a checkpoint's tensors.
HostWeight import_gptq_planes(const StoredWeight &stored);
// The weight of a checkpoint's tensors, on any device.
qlora::Weight import_gptq(const qlora::Context &context, const StoredWeight &stored);

} // namespace finetune
