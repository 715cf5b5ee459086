// The K types (quantize_search.cuh).
#include "backends/cuda/quantize_search.cuh"

namespace qlora {
namespace cuda {

#define QLORA_SEARCH_ROW(NAME) template int32_t quantize_search<Format<QLORA_FORMAT_##NAME>>(Context &, cudaStream_t, const qlora_quantize_args &, const View &);
QLORA_SEARCH_ROW(Q2_K)
QLORA_SEARCH_ROW(Q3_K)
QLORA_SEARCH_ROW(Q4_K)
QLORA_SEARCH_ROW(Q5_K)
QLORA_SEARCH_ROW(Q6_K)
#undef QLORA_SEARCH_ROW

} // namespace cuda
} // namespace qlora
