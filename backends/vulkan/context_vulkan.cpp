// The Vulkan backend's table.
#include "backends/backend.h"

namespace qlora {
namespace vulkan {

int32_t device_count(uint32_t *count) { *count = 0; return QLORA_OK; }
int32_t create(Context &context, const qlora_context_args &) {
    return context.fail(QLORA_ERROR_UNAVAILABLE, "qlora_context_create: vulkan: not written yet");
}
void destroy(Context &) {}
int32_t query(Context &, qlora_context_info &) { return QLORA_ERROR_UNSUPPORTED; }
int32_t synchronize(Context &) { return QLORA_ERROR_UNSUPPORTED; }
int32_t buffer_create(Context &, qlora_buffer_args &) { return QLORA_ERROR_UNSUPPORTED; }
int32_t buffer_destroy(Context &, const qlora_buffer_args &) { return QLORA_ERROR_UNSUPPORTED; }
int32_t buffer_write(Context &, const qlora_buffer_args &) { return QLORA_ERROR_UNSUPPORTED; }
int32_t buffer_read(Context &, const qlora_buffer_args &) { return QLORA_ERROR_UNSUPPORTED; }
int32_t buffer_copy(Context &, const qlora_buffer_args &) { return QLORA_ERROR_UNSUPPORTED; }
int32_t buffer_fill(Context &, const qlora_buffer_args &) { return QLORA_ERROR_UNSUPPORTED; }
bool supports(Context &, uint32_t, int32_t, int32_t) { return false; }

#define QLORA_OPERATION(ID, name, entry, args_type, ...)                                                      \
    int32_t name(Context &, const args_type &) { return QLORA_ERROR_UNSUPPORTED; }                            \
    uint64_t name##_scratch(Context &, const args_type &) { return 0; }
#include "backends/ops.def"
#undef QLORA_OPERATION

#define QLORA_VTABLE_KIND QLORA_BACKEND_VULKAN
#define QLORA_VTABLE_NAME "vulkan"
#include "backends/vtable.inc"

} // namespace vulkan
} // namespace qlora
