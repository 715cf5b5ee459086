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

// One block per token. Threads take groups of pairs, eight elements of each half of a head or of both in turn, whose loads are on
// the way while the sines are found.
template <bool ADJACENT>
static __global__ void rope_kernel(View x, const int32_t *positions, const float *factors, const __grid_constant__ Frequencies frequencies, int head_dim, int pairs, int first_pair,
                                   int count, bool vector, float magnitude, float direction) {
    constexpr int width = ADJACENT ? 4 : 8; // pairs of a group
    __shared__ float2 turns[most_pairs];
    wait_for_previous();
    const int64_t t = blockIdx.x;
    const int groups = (count + width - 1) / width, items = int(x.cols / head_dim) * groups;
    float low[8], high[8];
    int64_t place = 0;
    int left = 0; // elements of a half that there are
    const auto load = [&](int item) {
        const int pair = item % groups * width;
        place = t * x.stride + int64_t(item / groups) * head_dim + (ADJACENT ? 2 : 1) * (first_pair + pair);
        left = (count - pair) * (ADJACENT ? 2 : 1);
        load8(x.data, x.type, place, left, vector, low);
        if (!ADJACENT) load8(x.data, x.type, place + pairs, left, vector, high);
    };
    int item = threadIdx.x;
    if (item < items) load(item);
    if (int(threadIdx.x) < count) {
        double angle = positions[t] * frequencies.of_pair[threadIdx.x];
        if (factors) angle /= factors[first_pair + threadIdx.x];
        const double whole = angle * 0.15915494309189533577; // turns
        float sine, cosine;
        sincospif(float(2 * (whole - rint(whole))), &sine, &cosine);
        turns[threadIdx.x] = make_float2(sine * (magnitude * direction), cosine * magnitude);
    }
    __syncthreads();
    while (item < items) {
        const int pair = item % groups * width;
#pragma unroll
        for (int i = 0; i < width; i++) {
            const float2 by = turns[min(pair + i, count - 1)];
            float &first = ADJACENT ? low[2 * i % 8] : low[i], &second = ADJACENT ? low[(2 * i + 1) % 8] : high[i];
            const float x0 = first, x1 = second;
            first = x0 * by.y - x1 * by.x;
            second = x0 * by.x + x1 * by.y;
        }
        store8(x.data, x.type, place, left, vector, low);
        if (!ADJACENT) store8(x.data, x.type, place + pairs, left, vector, high);
        item += int(blockDim.x);
        if (item < items) load(item);
    }
}

uint64_t rope_scratch(Context &, const qlora_rope_args &) { return 0; }

int32_t rope(Context &context, const qlora_rope_args &args) {
    DeviceScope scope(context);
    const int pairs = int(args.rotary_dim / 2);
    const bool adjacent = args.layout == QLORA_ROPE_ADJACENT;
    const View x = view_of(args.x);
    const bool vector = x.vector && args.head_dim % 8 == 0 && (adjacent || pairs % 8 == 0);
    for (int first = 0; first < pairs; first += most_pairs) {
        Frequencies frequencies = {};
        const int count = pairs - first < most_pairs ? pairs - first : most_pairs;
        for (int i = 0; i < count; i++) frequencies.of_pair[i] = std::pow(double(args.freq_base), -2.0 * (first + i) / args.rotary_dim) * args.freq_scale;
        const uint64_t items = args.x.cols / args.head_dim * ceil_divide(uint64_t(count), adjacent ? 4 : 8), threads = items < 256 ? items : 256;
        const Grid grid = {dim3(unsigned(args.x.rows)), unsigned(threads < uint64_t(count) ? uint64_t(count) : threads)};
        QLORA_TRY(launch_early(context, stream_of(context, args), grid, adjacent ? rope_kernel<true> : rope_kernel<false>, x, address<const int32_t>(args.positions),
                               args.freq_factors.handle ? address<const float>(args.freq_factors) : nullptr, frequencies, int(args.head_dim), pairs, first, count, vector, args.magnitude,
                               args.flags & QLORA_FLAG_INVERSE ? -1.0f : 1.0f));
    }
    return QLORA_OK;
}

} // namespace cuda
} // namespace qlora
