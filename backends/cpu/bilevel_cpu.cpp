// encode<F> of SpQR formats: each row and group rounded to nearest on its own, but for the grids that the rows of a tile share.
#include "backends/cpu/quantize_cpu.h"

namespace qlora {
namespace cpu {

namespace {

uint64_t worker_bytes(const qlora_weight &weight) {
    return align_scratch(weight.cols * 4) + align_scratch(rows_of_tile(weight) * (sizeof(search::BilevelRange) + sizeof(search::BilevelGrid)));
}

} // namespace

uint64_t rows_of_task(const qlora_weight &weight) {
    uint64_t rows = weight.nested_block;
    while (rows % stream_rows && rows < weight.rows) rows *= 2;
    return rows;
}

uint64_t bilevel_scratch(Context &context, const qlora_weight &weight) { return state_of(context).threads * worker_bytes(weight); }

int32_t quantize_bilevel(Context &context, const qlora_quantize_args &args) {
    const qlora_weight &weight = *args.weight;
    const auto load = kernels_of(context).load[type_index(args.src.type)];
    const search::BilevelPlanes planes(weight);
    const uint64_t task_rows = rows_of_task(weight), tile = rows_of_tile(weight);
    planes.begin();
    FirstBad bad(element_count(weight));
    parallel(context, divide_up(weight.rows, task_rows), [&](uint64_t unit, uint32_t worker) {
        char *own = address<char>(args.scratch) + worker * worker_bytes(weight);
        float *w = reinterpret_cast<float *>(own);
        search::BilevelRange *ranges = reinterpret_cast<search::BilevelRange *>(own + align_scratch(weight.cols * 4));
        search::BilevelGrid *grids = reinterpret_cast<search::BilevelGrid *>(ranges + tile);
        for (uint64_t first = unit * task_rows; first < least((unit + 1) * task_rows, weight.rows); first += tile)
            search::round_tile(planes, first, least(tile, weight.rows - first), ranges, grids, [&](uint64_t r, uint64_t c, uint64_t count) {
                load(element(args.src, r, c), count, w);
                bad.found(kernels_of(context).find_not_finite(w, count), count, r * weight.cols + c);
                return w;
            });
    });
    return bad.status(context, weight);
}

} // namespace cpu
} // namespace qlora
