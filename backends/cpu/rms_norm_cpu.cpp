// y = (x - mean) rstd weight + bias row by row; dx row by row, dweight by strips of columns.
#include "backends/cpu/cpu.h"

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t unit_elements = 1 << 14; // per task, in whole rows
constexpr uint64_t strip = 128, run = 64;   // of dweight: columns per task, rows summed in f32 before they join the total

// A tensor [1][cols] as f32; null for an absent one.
const float *load_gain(Context &context, const qlora_tensor &gain, void *scratch) {
    if (gain.type == 0) return nullptr;
    if (gain.type == QLORA_FORMAT_F32) return address<const float>(gain.data);
    kernels_of(context).load[type_index(gain.type)](address<const void>(gain.data), gain.cols, static_cast<float *>(scratch));
    return static_cast<const float *>(scratch);
}
uint64_t gain_bytes(const qlora_tensor &gain) { return gain.type == 0 || gain.type == QLORA_FORMAT_F32 ? 0 : align_scratch(gain.cols * 4); }

template <class Args> bool centered(const Args &args) { return (args.flags & QLORA_FLAG_CENTERED) != 0; }
template <class Args> bool accumulates(const Args &args) { return (args.flags & QLORA_FLAG_ACCUMULATE) != 0; }

// Means of rows are stored where the strips of dweight need them.
bool stores_means(const qlora_rms_norm_grad_args &args) { return centered(args) && args.dweight.handle; }

// Calls task(r) for every row of x.
template <class Task> void each_row(Context &context, const qlora_tensor &x, const Task &task) {
    const uint64_t unit_rows = most(1, unit_elements / x.cols);
    parallel(context, divide_up(x.rows, unit_rows), [&](uint64_t unit, uint32_t) {
        for (uint64_t r = unit * unit_rows; r < least((unit + 1) * unit_rows, x.rows); r++) task(r);
    });
}

} // namespace

uint64_t rms_norm_scratch(Context &, const qlora_rms_norm_args &args) { return gain_bytes(args.weight) + gain_bytes(args.bias); }
uint64_t rms_norm_grad_scratch(Context &, const qlora_rms_norm_grad_args &args) {
    return gain_bytes(args.weight) + (stores_means(args) ? align_scratch(args.x.rows * 4) : 0);
}

int32_t rms_norm(Context &context, const qlora_rms_norm_args &args) {
    char *scratch = address<char>(args.scratch);
    const float *weight = load_gain(context, args.weight, scratch), *bias = load_gain(context, args.bias, scratch + gain_bytes(args.weight));
    float *rstd = optional<float>(args.rstd);
    const auto kernel = kernels_of(context).norm[type_index(args.x.type)];
    each_row(context, args.x, [&](uint64_t r) {
        const float scale = kernel({element(args.x, r, 0), weight, bias, args.x.cols, centered(args), accumulates(args)}, element(args.y, r, 0), args.epsilon);
        if (rstd) rstd[r] = scale;
    });
    return QLORA_OK;
}

int32_t rms_norm_grad(Context &context, const qlora_rms_norm_grad_args &args) {
    char *scratch = address<char>(args.scratch);
    const float *weight = load_gain(context, args.weight, scratch), *rstd = address<const float>(args.rstd);
    float *means = stores_means(args) ? reinterpret_cast<float *>(scratch + gain_bytes(args.weight)) : nullptr;
    const Kernels &kernels = kernels_of(context);
    const int type = type_index(args.x.type);
    const uint64_t rows = args.x.rows, cols = args.x.cols;
    const bool accumulate_gradients = (args.flags & QLORA_FLAG_ACCUMULATE_GRADIENTS) != 0;
    if (means) each_row(context, args.x, [&](uint64_t r) { means[r] = kernels.row_mean[type](element(args.x, r, 0), cols); });
    // dweight and dbias first, since dx may be dy.
    if (float *dweight = optional<float>(args.dweight))
        parallel(context, divide_up(cols, strip), [&](uint64_t unit, uint32_t) {
            const uint64_t c = unit * strip, count = least(strip, cols - c);
            double sum[strip];
            for (uint64_t i = 0; i < count; i++) sum[i] = accumulate_gradients ? double(dweight[c + i]) : 0;
            for (uint64_t begin = 0; begin < rows; begin += run) {
                float part[strip] = {};
                for (uint64_t r = begin; r < least(begin + run, rows); r++)
                    kernels.norm_dweight[type](element(args.x, r, c), element(args.dy, r, c), means ? means[r] : 0, rstd[r], count, part);
                for (uint64_t i = 0; i < count; i++) sum[i] += double(part[i]);
            }
            for (uint64_t i = 0; i < count; i++) dweight[c + i] = float(sum[i]);
        });
    if (float *dbias = optional<float>(args.dbias)) sum_columns(context, args.dy, accumulate_gradients, dbias);
    each_row(context, args.x, [&](uint64_t r) {
        kernels.norm_grad[type]({element(args.x, r, 0), weight, nullptr, cols, centered(args), accumulates(args)}, element(args.dy, r, 0), element(args.dx, r, 0), rstd[r]);
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
