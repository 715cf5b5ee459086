#include "options.h"

#include <map>

namespace finetune {
namespace {

const std::map<std::string, int32_t> float_types = {
    {"f32", QLORA_FORMAT_F32}, {"f16", QLORA_FORMAT_F16}, {"bf16", QLORA_FORMAT_BF16}};
const std::map<std::string, int32_t> quant_formats = {{"none", 0},
                                                      {"nf4-dq", QLORA_FORMAT_NF4_DQ},
                                                      {"nf4", QLORA_FORMAT_NF4},
                                                      {"fp4-dq", QLORA_FORMAT_FP4_DQ},
                                                      {"fp4", QLORA_FORMAT_FP4},
                                                      {"int8-dyn", QLORA_FORMAT_DYN8},
                                                      {"q8_0", QLORA_FORMAT_Q8_0},
                                                      {"q4_0", QLORA_FORMAT_Q4_0}};

} // namespace

int32_t Options::format() const {
    const auto found = quant_formats.find(quant.empty() ? "none" : quant);
    if (found == quant_formats.end())
        fail("--quant ", shown(quant), ": expected nf4-dq, nf4, fp4-dq, fp4, int8-dyn, q8_0, q4_0 or none");
    return found->second;
}

Precision Options::precision() const {
    const auto product = float_types.find(compute);
    if (product == float_types.end()) fail("--compute ", shown(compute), ": expected f32, bf16 or f16");
    const auto stored = float_types.find(!activations.empty() ? activations : compute == "bf16" ? "bf16" : "f32");
    if (stored == float_types.end()) fail("--activations ", shown(activations), ": expected f32, bf16 or f16");
    return {stored->second, product->second};
}

} // namespace finetune
