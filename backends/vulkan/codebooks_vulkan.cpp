// The frozen tables in device memory, one after another as codebooks.glsl finds them.
#include "backends/vulkan/device_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

struct Tables {
    uint32_t nf4[16], fp4[16], dyn8[256], udyn8[256];
};
constexpr Tables tables = {
    {
#include "backends/codebooks/nf4.inc"
    },
    {
#include "backends/codebooks/fp4.inc"
    },
    {
#include "backends/codebooks/dyn8.inc"
    },
    {
#include "backends/codebooks/udyn8.inc"
    },
};

} // namespace

int32_t create_tables(Context &context) {
    State &state = state_of(context);
    QLORA_TRY(allocate_buffer(context, align_scratch(sizeof tables), false, &state.tables));
    return enqueue_update(context, 0, qlora_span{handle_of(state.tables.buffer), 0, sizeof tables}, &tables, sizeof tables);
}

} // namespace vulkan
} // namespace qlora
