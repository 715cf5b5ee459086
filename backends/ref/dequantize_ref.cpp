// dst = W, one rounding per element.
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

uint64_t dequantize_scratch(Context &, const qlora_dequantize_args &) { return 0; }

int32_t dequantize(Context &, const qlora_dequantize_args &args) {
    const Decode decode = decoder(args.weight->format);
    for (uint64_t r = 0; r < args.weight->rows; r++)
        for (uint64_t c = 0; c < args.weight->cols; c++) set(args.dst, r, c, decode(*args.weight, r * args.weight->cols + c));
    return QLORA_OK;
}

} // namespace ref
} // namespace qlora
