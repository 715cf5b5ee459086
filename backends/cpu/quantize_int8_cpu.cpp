// encode<F> of signed bytes: the largest magnitude of each row, or of all of them, then codes in a second pass.
#include "backends/cpu/quantize_cpu.h"

#include <cmath>

namespace qlora {
namespace cpu {

uint64_t int8_scratch(const qlora_weight &weight) { return one_scale(weight) ? align_scratch(weight.rows * 4) : 0; }

int32_t quantize_int8(Context &context, const qlora_quantize_args &args) {
    const qlora_weight &weight = *args.weight;
    const Kernels &kernels = kernels_of(context);
    int8_t *code = address<int8_t>(weight.planes[QLORA_PLANE_CODE]);
    float *scales = address<float>(weight.planes[QLORA_PLANE_SCALE]);
    float *maxima = one_scale(weight) ? address<float>(args.scratch) : scales; // of rows
    FirstBad bad(element_count(weight));
    // f(piece of row r, its first element, its length) in order
    auto pieces = [&](uint64_t r, auto &&f) {
        float x[unit_elements];
        for (uint64_t c = 0; c < weight.cols; c += unit_elements) {
            const uint64_t here = least(unit_elements, weight.cols - c);
            kernels.load[type_index(args.src.type)](element(args.src, r, c), here, x);
            f(x, r * weight.cols + c, here);
        }
    };
    parallel(context, weight.rows, [&](uint64_t r, uint32_t) {
        float absmax = 0;
        pieces(r, [&](const float *x, uint64_t first, uint64_t count) {
            bad.found(kernels.find_not_finite(x, count), count, first);
            absmax = std::fmax(absmax, kernels.absmax_below(x, count, INFINITY));
        });
        maxima[r] = int8_absmax(absmax);
    });
    QLORA_TRY(bad.status(context, weight));
    if (one_scale(weight)) {
        scales[0] = 0;
        for (uint64_t r = 0; r < weight.rows; r++) scales[0] = std::fmax(scales[0], maxima[r]);
    }
    parallel(context, weight.rows, [&](uint64_t r, uint32_t) {
        const float inverse = int8_inverse(scales[row_scale(weight, r)]);
        pieces(r, [&](const float *x, uint64_t first, uint64_t count) { kernels.encode_int8(x, inverse, count, code + first); });
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
