// y = x rstd weight row by row; dx row by row, dweight by strips of columns.
#include "backends/cpu/cpu.h"

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t unit_elements = 1 << 14; // per task, in whole rows
constexpr uint64_t strip = 128, run = 64;   // of dweight: columns per task, rows summed in f32 before they join the total

// weight[1][cols] as f32
const float *load_weight(Context &context, const qlora_tensor &weight, void *scratch) {
    if (weight.type == QLORA_FORMAT_F32) return address<const float>(weight.data);
    kernels_of(context).load[type_index(weight.type)](address<const void>(weight.data), weight.cols, static_cast<float *>(scratch));
    return static_cast<const float *>(scratch);
}
uint64_t weight_bytes(const qlora_tensor &weight) { return weight.type == QLORA_FORMAT_F32 ? 0 : align_scratch(weight.cols * 4); }

} // namespace

uint64_t rms_norm_scratch(Context &, const qlora_rms_norm_args &args) { return weight_bytes(args.weight); }
uint64_t rms_norm_grad_scratch(Context &, const qlora_rms_norm_grad_args &args) { return weight_bytes(args.weight); }

int32_t rms_norm(Context &context, const qlora_rms_norm_args &args) {
    const float *weight = load_weight(context, args.weight, address<void>(args.scratch));
    float *rstd = optional<float>(args.rstd);
    const auto kernel = kernels_of(context).rms_norm[type_index(args.x.type)];
    const uint64_t rows = args.x.rows, cols = args.x.cols, unit_rows = most(1, unit_elements / cols);
    parallel(context, divide_up(rows, unit_rows), [&](uint64_t unit, uint32_t) {
        for (uint64_t r = unit * unit_rows; r < least((unit + 1) * unit_rows, rows); r++) {
            const float scale = kernel(element(args.x, r, 0), weight, element(args.y, r, 0), cols, args.epsilon);
            if (rstd) rstd[r] = scale;
        }
    });
    return QLORA_OK;
}

int32_t rms_norm_grad(Context &context, const qlora_rms_norm_grad_args &args) {
    const float *weight = load_weight(context, args.weight, address<void>(args.scratch)), *rstd = address<const float>(args.rstd);
    const Kernels &kernels = kernels_of(context);
    const int type = type_index(args.x.type);
    const uint64_t rows = args.x.rows, cols = args.x.cols, unit_rows = most(1, unit_elements / cols);
    // dweight first, since dx may be dy.
    if (float *dweight = optional<float>(args.dweight))
        parallel(context, divide_up(cols, strip), [&](uint64_t unit, uint32_t) {
            const uint64_t c = unit * strip, count = least(strip, cols - c);
            double sum[strip];
            for (uint64_t i = 0; i < count; i++) sum[i] = args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS ? double(dweight[c + i]) : 0;
            for (uint64_t begin = 0; begin < rows; begin += run) {
                float part[strip] = {};
                for (uint64_t r = begin; r < least(begin + run, rows); r++)
                    kernels.rms_norm_dweight[type](element(args.x, r, c), element(args.dy, r, c), rstd[r], count, part);
                for (uint64_t i = 0; i < count; i++) sum[i] += double(part[i]);
            }
            for (uint64_t i = 0; i < count; i++) dweight[c + i] = float(sum[i]);
        });
    parallel(context, divide_up(rows, unit_rows), [&](uint64_t unit, uint32_t) {
        for (uint64_t r = unit * unit_rows; r < least((unit + 1) * unit_rows, rows); r++)
            kernels.rms_norm_grad[type](element(args.x, r, 0), weight, element(args.dy, r, 0), element(args.dx, r, 0), cols, rstd[r], args.flags & QLORA_FLAG_ACCUMULATE);
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
