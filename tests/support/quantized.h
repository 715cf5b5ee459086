// Quantize and dequantize in one line each.
#pragma once
#include "cpp/qlora.hpp"
#include "tests/support/numbers.h"

#include <cmath>

namespace test {

struct QuantizeOptions {
    uint32_t block = 0, flags = 0;
    uint64_t seed = 0;
    int32_t power = 0;
    std::vector<float> importance = {};
    float tensor_scale = 0;
};

inline qlora::Weight quantize_with(const qlora::Context &context, int32_t format, uint64_t rows, uint64_t cols, const std::vector<float> &values,
                                   const QuantizeOptions &options = {}) {
    qlora::Weight weight(context, format, rows, cols, options.block);
    weight.set_tensor_scale(options.tensor_scale);
    const qlora::Buffer src(context, values);
    qlora::Buffer importance;
    auto args = qlora::make<qlora_quantize_args>();
    args.flags = options.flags;
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, src.span());
    args.seed = options.seed;
    args.power = options.power;
    if (!options.importance.empty()) {
        importance = qlora::Buffer(context, options.importance);
        args.importance = importance.span();
    }
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_quantize(args);
    context.synchronize();
    return weight;
}

inline std::vector<float> values_of(const qlora::Context &context, const qlora::Weight &weight) {
    const uint64_t rows = weight.get()->rows, cols = weight.get()->cols;
    const qlora::Buffer dst(context, rows * cols * 4);
    auto args = qlora::make<qlora_dequantize_args>();
    args.weight = weight.get();
    args.dst = qlora::tensor(QLORA_FORMAT_F32, rows, cols, dst.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_DEQUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_dequantize(args);
    return unpack(QLORA_FORMAT_F32, dst.read<uint8_t>());
}

// The values of stored blocks.
inline std::vector<float> values_of_bytes(const qlora::Context &context, int32_t format, uint64_t rows, uint64_t cols, const std::vector<uint8_t> &bytes) {
    qlora::Weight weight(context, format, rows, cols);
    weight.write_plane(QLORA_PLANE_CODE, bytes.data());
    return values_of(context, weight);
}

// Elements whose bits differ, two NaNs counting as equal.
inline uint64_t different_values(const std::vector<float> &a, const std::vector<float> &b) {
    uint64_t different = a.size() != b.size();
    for (size_t i = 0; i < a.size() && i < b.size(); i++) different += bits_of(a[i]) != bits_of(b[i]) && !(a[i] != a[i] && b[i] != b[i]);
    return different;
}

inline double signal_to_noise(const std::vector<float> &values, const std::vector<float> &stored) {
    double signal = 0, noise = 0;
    for (size_t i = 0; i < values.size(); i++) {
        signal += double(values[i]) * values[i];
        noise += (double(values[i]) - stored[i]) * (double(values[i]) - stored[i]);
    }
    return 10 * std::log10(signal / noise);
}

} // namespace test
