#include "options_common.h"

#include <map>

namespace finetune {
namespace {

const std::map<std::string, int32_t> float_types = {
    {"f32", QLORA_FORMAT_F32}, {"f16", QLORA_FORMAT_F16}, {"bf16", QLORA_FORMAT_BF16}};

} // namespace

FormatChoice ModelOptions::format() const {
    FormatChoice choice;
    if (quant.empty() || quant == "none") return choice;
    if (quant == "int8-dyn") choice.format = QLORA_FORMAT_DYN8; // its name before formats had names of their own
    else choice = named_choice(quant, "--quant");
    if (choice.block == 0) choice.block = quant_block;
    return choice;
}

Precision DeviceOptions::precision() const {
    const auto product = float_types.find(compute);
    if (product == float_types.end()) fail("--compute ", shown(compute), ": expected f32, bf16 or f16");
    const auto stored = float_types.find(!activations.empty() ? activations : compute == "bf16" ? "bf16" : "f32");
    if (stored == float_types.end()) fail("--activations ", shown(activations), ": expected f32, bf16 or f16");
    const Precision precision = {stored->second, product->second};
    if (precision.activations != QLORA_FORMAT_F32 && precision.compute != precision.activations &&
        precision.compute != QLORA_FORMAT_F32)
        fail("--activations ", activations, " does not go with --compute ", compute, "; use f32 or the compute type");
    return precision;
}

} // namespace finetune
