// encode<F> of GPTQ formats: each row and group rounded to nearest on its own. Tasks are rows in eights, which share no byte of
// a stream whatever the bits of a code.
#include "backends/cpu/quantize_cpu.h"

namespace qlora {
namespace cpu {

void encode_affine_row(const AffinePlanes &planes, uint64_t r, const float *w, bool symmetric, bool search) {
    const qlora_weight &weight = planes.weight;
    for (uint64_t begin = 0; begin < weight.cols; begin += weight.block) {
        const uint64_t end = least(begin + weight.block, weight.cols);
        const search::AffineGrid grid = search::affine_fit(w + begin, end - begin, planes.bits, symmetric, search);
        planes.put_grid(r, begin / weight.block, grid);
        for (uint64_t c = begin; c < end; c++) planes.put_code(r, c, search::affine_code(w[c], grid, planes.bits));
    }
}

void straight_index(const qlora_weight &weight) {
    for (uint64_t c = 0; (weight.flags & QLORA_WEIGHT_INDEXED) && c < weight.cols; c++)
        address<int32_t>(weight.planes[QLORA_PLANE_INDEX])[c] = int32_t(c / weight.block);
}

uint64_t affine_scratch(Context &context, const qlora_weight &weight) { return state_of(context).threads * align_scratch(weight.cols * 4); }

int32_t quantize_affine(Context &context, const qlora_quantize_args &args) {
    const qlora_weight &weight = *args.weight;
    const Kernels &kernels = kernels_of(context);
    const AffinePlanes planes(weight);
    const bool symmetric = args.flags & QLORA_FLAG_SYMMETRIC, search = args.flags & QLORA_FLAG_SEARCH;
    planes.begin();
    FirstBad bad(element_count(weight));
    parallel(context, divide_up(weight.rows, stream_rows), [&](uint64_t unit, uint32_t worker) {
        float *w = reinterpret_cast<float *>(address<char>(args.scratch) + worker * align_scratch(weight.cols * 4));
        for (uint64_t r = unit * stream_rows; r < least((unit + 1) * stream_rows, weight.rows); r++) {
            kernels.load[type_index(args.src.type)](element(args.src, r, 0), weight.cols, w);
            if (bad.found(kernels.find_not_finite(w, weight.cols), weight.cols, r * weight.cols)) return;
            encode_affine_row(planes, r, w, symmetric, search);
        }
    });
    straight_index(weight);
    return bad.status(context, weight);
}

} // namespace cpu
} // namespace qlora
