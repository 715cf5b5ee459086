// Pair i of every head turns by positions[t] * freq_scale * freq_base^(-2i/rotary_dim) / freq_factors[i]. Angles are formed
// in double: in f32 a position of 100000 would be off by a hundredth of a turn.
#include "backends/cpu/cpu.h"

#include <cmath>

namespace qlora {
namespace cpu {

namespace {

constexpr uint64_t unit_rows = 8;

// Pieces of scratch: a frequency per pair, and per worker the cosines, sines and one head in f32.
struct Pieces {
    uint64_t frequency, worker, worker_bytes, bytes;
    Pieces(Context &context, const qlora_rope_args &args) {
        frequency = 0;
        worker = align_scratch(uint64_t(args.rotary_dim / 2) * 8);
        worker_bytes = align_scratch(uint64_t(args.rotary_dim) * 8);
        bytes = worker + worker_bytes * state_of(context).threads;
    }
};

} // namespace

uint64_t rope_scratch(Context &context, const qlora_rope_args &args) { return Pieces(context, args).bytes; }

int32_t rope(Context &context, const qlora_rope_args &args) {
    const Pieces pieces(context, args);
    const Kernels &kernels = kernels_of(context);
    const uint64_t heads = args.x.cols / args.head_dim, pairs = args.rotary_dim / 2;
    const int type = type_index(args.x.type);
    const bool adjacent = args.layout == QLORA_ROPE_ADJACENT;
    const double turn = args.flags & QLORA_FLAG_INVERSE ? -1 : 1;
    char *scratch = address<char>(args.scratch);
    double *frequency = reinterpret_cast<double *>(scratch + pieces.frequency);
    const float *factors = optional<const float>(args.freq_factors);
    const int32_t *positions = address<const int32_t>(args.positions);
    for (uint64_t i = 0; i < pairs; i++)
        frequency[i] = std::pow(double(args.freq_base), -2.0 * double(i) / args.rotary_dim) * double(args.freq_scale) / (factors ? double(factors[i]) : 1.0);
    parallel(context, divide_up(args.x.rows, unit_rows), [&](uint64_t unit, uint32_t worker) {
        float *cosine = reinterpret_cast<float *>(scratch + pieces.worker + worker * pieces.worker_bytes), *sine = cosine + pairs, *part = sine + pairs;
        for (uint64_t t = unit * unit_rows; t < least((unit + 1) * unit_rows, args.x.rows); t++) {
            for (uint64_t i = 0; i < pairs; i++) {
                const double angle = positions[t] * frequency[i];
                cosine[i] = float(std::cos(angle) * double(args.magnitude));
                sine[i] = float(std::sin(angle) * double(args.magnitude) * turn);
            }
            for (uint64_t h = 0; h < heads; h++) {
                char *x = element(args.x, t, h * args.head_dim);
                if (args.x.type == QLORA_FORMAT_F32) {
                    kernels.rotate(reinterpret_cast<float *>(x), cosine, sine, pairs, adjacent);
                    continue;
                }
                kernels.load[type](x, args.rotary_dim, part);
                kernels.rotate(part, cosine, sine, pairs, adjacent);
                kernels.store[type](part, args.rotary_dim, x);
            }
        }
    });
    return QLORA_OK;
}

} // namespace cpu
} // namespace qlora
