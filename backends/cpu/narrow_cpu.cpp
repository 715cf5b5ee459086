// encode<F> of small floats: a scale per block, absmax / largest value or a power of two, and codes by narrow.inc. A block may
// be as long as the tensor: then the maxima of units come first, and codes in a second pass.
#include "backends/cpu/quantize_cpu.h"

#include <cstring>

namespace qlora {
namespace cpu {

namespace {

typedef uint32_t uint;
#define QLORA_FUNCTION inline
#include "backends/numeric.inc"
#include "backends/narrow.inc"
#undef QLORA_FUNCTION

constexpr float smallest_normal = 1.17549435e-38f; // a scale below it counts as zero

uint32_t bits_of(float value) { uint32_t bits; std::memcpy(&bits, &value, 4); return bits; }
float float_of(uint32_t bits) { float value; std::memcpy(&value, &bits, 4); return value; }

// Largest magnitude, as bits.
uint32_t absmax_of(const float *x, uint64_t count) {
    uint32_t most = 0;
    for (uint64_t i = 0; i < count; i++) {
        const uint32_t magnitude = bits_of(x[i]) & 0x7fffffffu;
        most = magnitude > most ? magnitude : most;
    }
    return most;
}

// Codes of a piece of a block: x * inverse / 2^power.
struct Scaling {
    float inverse;
    int power;
};

template <class F> struct Encoder {
    const qlora_quantize_args &args;
    uint8_t *code;

    // Stores the scale of a block.
    Scaling scaling(uint32_t absmax, uint64_t block) const {
        void *scales = address<void>(args.weight->planes[QLORA_PLANE_SCALE]);
        if (F::scale == Scale::E8M0) {
            const uint32_t power = qlora_e8m0_from_absmax(absmax, F::mantissa, F::bias, F::maximum, uint32_t(args.power));
            static_cast<uint8_t *>(scales)[block] = uint8_t(power);
            return {1, int(power) - 127};
        }
        float scale = float_of(absmax) / float_of(qlora_f32_from_narrow(F::maximum, F::bits, F::mantissa, F::bias, 0));
        if (scale < smallest_normal) scale = 0;
        static_cast<float *>(scales)[block] = scale;
        return {scale > 0 ? 1.0f / scale : 0.0f, 0};
    }
    uint code_of(float x, const Scaling &by, uint64_t i) const {
        const float value = F::scale == Scale::F32 ? x * by.inverse : x;
        const bool stochastic = (args.flags & QLORA_FLAG_STOCHASTIC) != 0;
        const uint noise = stochastic ? qlora_random(uint(args.seed), uint(args.seed >> 32), uint(i), uint(i >> 32)) : 0u;
        return qlora_narrow_from_f32(bits_of(value), by.power, F::bits, F::mantissa, F::bias, F::maximum, stochastic, noise);
    }
    // Elements first .. first + count of one block; of 6-bit codes first and count are multiples of four, which fill three bytes.
    void run(const float *x, uint64_t first, uint64_t count, const Scaling &by) const {
        if (F::bits == 8) {
            for (uint64_t i = 0; i < count; i++) code[first + i] = uint8_t(code_of(x[i], by, first + i));
            return;
        }
        uint8_t *three = code + first / 4 * 3;
        for (uint64_t i = 0; i < count; i += 4, three += 3) {
            uint four = 0;
            for (uint j = 0; j < 4; j++) four |= code_of(x[i + j], by, first + i + j) << (6 * j);
            for (uint j = 0; j < 3; j++) three[j] = uint8_t(four >> (8 * j));
        }
    }
};

template <class F> int32_t encode(Context &context, const qlora_quantize_args &args) {
    const qlora_weight &weight = *args.weight;
    const Encoder<F> encoder = {args, address<uint8_t>(weight.planes[QLORA_PLANE_CODE])};
    const uint64_t count = element_count(weight), block = weight.block, units = divide_up(count, unit_elements);
    const bool is_long = block > unit_elements;
    uint32_t *maxima = address<uint32_t>(args.scratch); // of units, where blocks are long
    FirstBad bad(count);
    parallel(context, units, [&](uint64_t unit, uint32_t) {
        float x[unit_elements];
        const uint64_t first = unit * unit_elements, here = least(unit_elements, count - first);
        load_elements(context, args, first, here, x);
        if (bad.found(kernels_of(context).find_not_finite(x, here), here, first)) return;
        if (is_long) {
            maxima[unit] = absmax_of(x, here);
            return;
        }
        for (uint64_t i = 0; i < here; i += block) {
            const uint64_t part = least(block, here - i);
            encoder.run(x + i, first + i, part, encoder.scaling(absmax_of(x + i, part), (first + i) / block));
        }
    });
    QLORA_TRY(bad.status(context, weight));
    if (!is_long) return QLORA_OK;
    const uint64_t units_of_block = block / unit_elements;
    for (uint64_t b = 0; b * units_of_block < units; b++) {
        const uint64_t begin = b * units_of_block, end = least(begin + units_of_block, units);
        uint32_t absmax = 0;
        for (uint64_t unit = begin; unit < end; unit++) absmax = maxima[unit] > absmax ? maxima[unit] : absmax;
        const Scaling by = encoder.scaling(absmax, b);
        parallel(context, end - begin, [&](uint64_t part, uint32_t) {
            float x[unit_elements];
            const uint64_t first = (begin + part) * unit_elements, here = least(unit_elements, count - first);
            load_elements(context, args, first, here, x);
            encoder.run(x, first, here, by);
        });
    }
    return QLORA_OK;
}

template <class F, Codec C = F::codec> struct Narrow {
    static int32_t run(Context &, const qlora_quantize_args &) { return QLORA_ERROR_FORMAT; }
};
template <class F> struct Narrow<F, Codec::NARROW> {
    static int32_t run(Context &context, const qlora_quantize_args &args) { return encode<F>(context, args); }
};

} // namespace

uint64_t narrow_scratch(const qlora_weight &weight) {
    return weight.block > unit_elements ? align_scratch(divide_up(element_count(weight), unit_elements) * 4) : 0;
}

int32_t quantize_narrow(Context &context, const qlora_quantize_args &args) {
    return with_format(args.weight->format, QLORA_ERROR_FORMAT, [&](auto row) { return Narrow<decltype(row)>::run(context, args); });
}

} // namespace cpu
} // namespace qlora
