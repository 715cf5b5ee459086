// Quantization by a Hessian: absent here; its sums in double, in an order that all keep, are not for every device.
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {

uint64_t quantize_gptq_scratch(Context &, const qlora_quantize_gptq_args &) { return 0; }

int32_t quantize_gptq(Context &context, const qlora_quantize_gptq_args &) {
    return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_weight_quantize_gptq: vulkan has no factors of Hessians; quantize on cpu and write the planes to the device");
}

uint64_t quantize_spqr_scratch(Context &, const qlora_quantize_spqr_args &) { return 0; }

int32_t quantize_spqr(Context &context, const qlora_quantize_spqr_args &) {
    return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_weight_quantize_spqr: vulkan has no factors of Hessians; quantize on cpu and write the planes to the device");
}

} // namespace vulkan
} // namespace qlora
