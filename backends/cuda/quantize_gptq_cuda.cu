// Calibration runs on the host: supports() says so, and the front door refuses before these are asked.
#include "backends/cuda/cuda.cuh"

namespace qlora {
namespace cuda {

uint64_t quantize_gptq_scratch(Context &, const qlora_quantize_gptq_args &) { return 0; }
int32_t quantize_gptq(Context &, const qlora_quantize_gptq_args &) { return QLORA_ERROR_UNSUPPORTED; }

uint64_t quantize_spqr_scratch(Context &, const qlora_quantize_spqr_args &) { return 0; }
int32_t quantize_spqr(Context &, const qlora_quantize_spqr_args &) { return QLORA_ERROR_UNSUPPORTED; }

} // namespace cuda
} // namespace qlora
