// Quantized weights in safetensors files. Those of bitsandbytes' formats are laid out as bitsandbytes serializes them:
//   W                                    u8 codes [(n + 1) / 2][1]
//   W.absmax                             f32 per block, or u8 codes when double-quantized
//   W.quant_map                          f32[16]
//   W.nested_absmax, W.nested_quant_map  when double-quantized
//   W.quant_state.bitsandbytes__nf4      (or __fp4) JSON in UTF-8: quant_type, blocksize, dtype, shape, nested_*
// Those of the SpQR formats are laid out as packed_spqr.h says.
// Its 8-bit weights, X.weight in I8 with X.SCB, are read. Those of the GPTQ formats are laid out as in GPTQ checkpoints (packed_gptq.h). It has no layout for the other
// formats; they are written alike, with W.quant_state.qlora__<name> and with W.absmax (f32) or W.scale (u8 powers of
// two) where the format has scales.
#pragma once

#include "stored_weight.h"

namespace finetune {

// One tensor of the model, which may be several of the file.
struct PackedTensor {
    std::string name;
    std::vector<uint64_t> shape;           // of the values
    StoredWeight weight;                   // format 0: integers, and vectors or values of other types
    std::vector<const SafeTensor *> parts; // the first holds values or codes
};

// All tensors of a file, in order of name. Parts that are missing, left over, of another size or in contradiction to
// their state are Errors. Tables that differ from the library's are honoured: such a weight is decoded by its own.
std::vector<PackedTensor> read_packed(const SafeTensors &file);

struct PackedPart {
    enum Content { plane, table, nested_table, state, gptq, tensor_scale };
    Content content;
    int plane_index;
    std::string name, dtype;
    std::vector<uint64_t> shape;
    uint64_t bytes;
    uint32_t version = 0; // of a GPTQ checkpoint
};

// The tensors that a weight becomes; their sizes do not depend on values. dtype as in StoredWeight.
std::vector<PackedPart> packed_parts(const std::string &name, int32_t format, uint32_t block, uint64_t rows,
                                     uint64_t cols, uint32_t gptq_version = 1, uint64_t outliers = 0);
std::vector<uint8_t> packed_bytes(const PackedPart &part, const qlora::Weight &weight, int32_t dtype);

} // namespace finetune
