// Operations that are not written yet.
#include "backends/cuda/cuda.cuh"
namespace qlora {
namespace cuda {
#define QLORA_OPERATION(ID, name, entry, args_type, ...)                                                      \
    int32_t name(Context &context, const args_type &) { return context.fail(QLORA_ERROR_UNSUPPORTED, #entry ": not written yet for cuda"); } \
    uint64_t name##_scratch(Context &, const args_type &) { return 0; }
#include "backends/ops.def"
#undef QLORA_OPERATION
} // namespace cuda
} // namespace qlora
