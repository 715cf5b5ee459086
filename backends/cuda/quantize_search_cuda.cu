// Every interleaved block but the K types (quantize_search.cuh).
#include "backends/cuda/quantize_search.cuh"

namespace qlora {
namespace cuda {

#define QLORA_SEARCH_ROW(NAME) template int32_t quantize_search<Format<QLORA_FORMAT_##NAME>>(Context &, cudaStream_t, const qlora_quantize_args &, const View &);
QLORA_SEARCH_ROW(Q4_0)
QLORA_SEARCH_ROW(Q4_1)
QLORA_SEARCH_ROW(Q5_0)
QLORA_SEARCH_ROW(Q5_1)
QLORA_SEARCH_ROW(MXFP4)
QLORA_SEARCH_ROW(NVFP4)
QLORA_SEARCH_ROW(IQ4_NL)
QLORA_SEARCH_ROW(IQ4_XS)
#undef QLORA_SEARCH_ROW

} // namespace cuda
} // namespace qlora
