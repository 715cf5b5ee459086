#include "options.h"

#include <map>

namespace finetune {
namespace {

const std::map<std::string, int32_t> float_types = {
    {"f32", QLORA_FORMAT_F32}, {"f16", QLORA_FORMAT_F16}, {"bf16", QLORA_FORMAT_BF16}};

} // namespace

FormatChoice Options::format() const {
    FormatChoice choice;
    if (quant.empty() || quant == "none") return choice;
    if (quant == "int8-dyn") choice.format = QLORA_FORMAT_DYN8; // its name before formats had names of their own
    else choice = named_choice(quant, "--quant");
    if (choice.block == 0) choice.block = quant_block;
    return choice;
}

Precision Options::precision() const {
    const auto product = float_types.find(compute);
    if (product == float_types.end()) fail("--compute ", shown(compute), ": expected f32, bf16 or f16");
    const auto stored = float_types.find(!activations.empty() ? activations : compute == "bf16" ? "bf16" : "f32");
    if (stored == float_types.end()) fail("--activations ", shown(activations), ": expected f32, bf16 or f16");
    return {stored->second, product->second};
}

} // namespace finetune
