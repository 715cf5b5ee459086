// Weights of the SpQR formats in safetensors files, in the library's own planes. W with n rows, m columns and g groups is
//   W               U8   codes               W.scale, W.zero   U8   codes of 3 bits
//   W.grid          F16  [ceil(n / 16)][g][4]
//   W.outlier_offset U32 [n + 1]   W.outlier_column U32   W.outlier F16     where there are outliers
//   W.quant_state.qlora__<name>   JSON: quant_type, blocksize, nested_blocksize (16), outliers, dtype, shape
#pragma once

#include "packed.h"

namespace finetune {

const uint32_t spqr_rows = 16; // that share a grid, in files

// The parts of W, whose format, block, rows, cols and outliers are known. Planes that contradict them, or hold outliers
// out of order or numbers that are not finite, are Errors that begin with `who`.
void read_spqr(const SafeTensors &file, const std::string &name, const std::string &who, PackedTensor *packed);

std::vector<PackedPart> spqr_parts(const std::string &name, int32_t format, uint32_t block, uint64_t rows,
                                   uint64_t cols, uint64_t outliers);
// The JSON, filled up with spaces; dtype as PyTorch names it.
std::vector<uint8_t> spqr_state(const qlora::Weight &weight, const char *dtype, uint64_t bytes);

} // namespace finetune
