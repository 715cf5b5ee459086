// Absent so far: supports() says so, and the front door refuses before these are asked.
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {

uint64_t int8_matmul_scratch(Context &, const qlora_int8_matmul_args &) { return 0; }
int32_t int8_matmul(Context &, const qlora_int8_matmul_args &) { return QLORA_ERROR_UNSUPPORTED; }
uint64_t int8_matmul_grad_scratch(Context &, const qlora_int8_matmul_grad_args &) { return 0; }
int32_t int8_matmul_grad(Context &, const qlora_int8_matmul_grad_args &) { return QLORA_ERROR_UNSUPPORTED; }
uint64_t weight_gradient_scratch(Context &, const qlora_weight_gradient_args &) { return 0; }
int32_t weight_gradient(Context &, const qlora_weight_gradient_args &) { return QLORA_ERROR_UNSUPPORTED; }

} // namespace vulkan
} // namespace qlora
