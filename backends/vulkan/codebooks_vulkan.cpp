// The frozen tables and the values of small floats in device memory, one after another as codebooks.glsl finds them.
#include "backends/vulkan/weight_vulkan.h"

namespace qlora {
namespace vulkan {
namespace {

#define QLORA_FUNCTION inline
typedef uint32_t uint;
#include "backends/narrow.inc"
#undef QLORA_FUNCTION

struct Tables {
    uint32_t nf4[16], fp4[16], dyn8[256], udyn8[256], e4m3[256], e5m2[256], e2m3[64], e3m2[64];
};
static_assert(offsetof(Tables, e2m3) == 1056 * 4 && offsetof(Tables, e3m2) == 1120 * 4, "codebooks.glsl knows the places");

constexpr Tables codebooks = {
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
    {}, {}, {}, {},
};

template <class F> void fill_narrow(uint32_t *table) {
    for (uint32_t code = 0; code < 1u << F::bits; code++) table[code] = narrow_bits<F>(code);
}

} // namespace

uint32_t narrow_value(uint32_t code, uint32_t bits, uint32_t mantissa, uint32_t bias) { return qlora_f32_from_narrow(code, bits, mantissa, bias, 0); }

int32_t create_tables(Context &context) {
    State &state = state_of(context);
    Tables tables = codebooks;
    fill_narrow<Format<QLORA_FORMAT_FP8_E4M3>>(tables.e4m3);
    fill_narrow<Format<QLORA_FORMAT_FP8_E5M2>>(tables.e5m2);
    fill_narrow<Format<QLORA_FORMAT_MXFP6_E2M3>>(tables.e2m3);
    fill_narrow<Format<QLORA_FORMAT_MXFP6_E3M2>>(tables.e3m2);
    QLORA_TRY(allocate_buffer(context, align_scratch(sizeof tables), false, &state.tables));
    return enqueue_update(context, 0, qlora_span{handle_of(state.tables.buffer), 0, sizeof tables}, &tables, sizeof tables);
}

} // namespace vulkan
} // namespace qlora
