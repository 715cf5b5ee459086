// Files of other programs, as tensors in host memory, to planes and back: bytes move, no arithmetic, but that SpQR's outliers give
// up what their codes hold. Args arrive adopted and checked.
#pragma once
#include "backends/backend.h"

namespace qlora {
namespace interchange {

int32_t import_gptq(Context &context, qlora_gptq_tensors &tensors);
int32_t export_gptq(Context &context, qlora_gptq_tensors &tensors);
int32_t import_spqr(Context &context, qlora_spqr_tensors &tensors);

} // namespace interchange
} // namespace qlora
