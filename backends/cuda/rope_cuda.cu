// Pair i of every head turns by positions[t] * freq_scale * freq_base^(-2i/rotary_dim) / freq_factors[i]. Angles are
// formed and reduced in double: at position 10^5 an f32 angle would be wrong by a hundredth of a radian.
#include "backends/cuda/device.cuh"

#include <cmath>

namespace qlora {
namespace cuda {

struct Frequencies {
    double of_pair[128];
};
constexpr int most_pairs = 128; // of one launch

// One block per token: a thread takes a pair and goes over the heads.
static __global__ void rope_kernel(View x, const int32_t *positions, const float *factors, const __grid_constant__ Frequencies frequencies, int head_dim, int pairs,
                                   int first_pair, int count, bool adjacent, float magnitude, float direction) {
    const int64_t t = blockIdx.x;
    const int heads = int(x.cols / head_dim), place = threadIdx.x % count, lanes = blockDim.x / count, pair = first_pair + place;
    double angle = positions[t] * frequencies.of_pair[place];
    if (factors) angle /= factors[pair];
    constexpr double turn = 6.283185307179586477;
    angle -= turn * rint(angle / turn);
    float sine, cosine;
    sincosf(float(angle), &sine, &cosine);
    sine *= magnitude * direction;
    cosine *= magnitude;
    for (int h = threadIdx.x / count; h < heads; h += lanes) {
        const int64_t first = t * x.stride + int64_t(h) * head_dim + (adjacent ? 2 * pair : pair), second = adjacent ? first + 1 : first + pairs;
        const float x0 = load1(x.data, x.type, first), x1 = load1(x.data, x.type, second);
        store1(x.data, x.type, first, x0 * cosine - x1 * sine);
        store1(x.data, x.type, second, x0 * sine + x1 * cosine);
    }
}

uint64_t rope_scratch(Context &, const qlora_rope_args &) { return 0; }

int32_t rope(Context &context, const qlora_rope_args &args) {
    DeviceScope scope(context);
    const int pairs = int(args.rotary_dim / 2);
    for (int first = 0; first < pairs; first += most_pairs) {
        Frequencies frequencies = {};
        const int count = pairs - first < most_pairs ? pairs - first : most_pairs;
        for (int i = 0; i < count; i++) frequencies.of_pair[i] = std::pow(double(args.freq_base), -2.0 * (first + i) / args.rotary_dim) * args.freq_scale;
        const Grid grid = {dim3(unsigned(args.x.rows)), unsigned(256 / count * count)}; // whole groups of pairs
        QLORA_TRY(launch(context, stream_of(context, args), grid, rope_kernel, view_of(args.x), address<const int32_t>(args.positions),
                         args.freq_factors.handle ? address<const float>(args.freq_factors) : nullptr, frequencies, int(args.head_dim), pairs, first, count,
                         args.layout == QLORA_ROPE_ADJACENT, args.magnitude, args.flags & QLORA_FLAG_INVERSE ? -1.0f : 1.0f));
    }
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
