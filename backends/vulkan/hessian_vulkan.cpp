// hessian += x^T x: absent here, as is the quantization that needs it.
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {

uint64_t hessian_scratch(Context &, const qlora_hessian_args &) { return 0; }

int32_t hessian(Context &context, const qlora_hessian_args &) {
    return context.fail(QLORA_ERROR_UNSUPPORTED, "qlora_hessian_accumulate: vulkan does not collect Hessians; quantize on cpu and write the planes to the device");
}

} // namespace vulkan
} // namespace qlora
