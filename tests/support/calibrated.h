// Problems for quantize_gptq, and the call in one line.
#pragma once
#include "tests/support/inputs.h"
#include "tests/support/quantized.h"

namespace test {

// H = 2 / samples * x^T x in double.
inline std::vector<double> hessian_of(const std::vector<float> &x, uint64_t samples, uint64_t cols) {
    std::vector<double> h(cols * cols, 0.0);
    for (uint64_t t = 0; t < samples; t++)
        for (uint64_t i = 0; i < cols; i++) {
            const double value = x[t * cols + i] * (2.0 / double(samples));
            for (uint64_t j = 0; j < cols; j++) h[i * cols + j] += value * x[t * cols + j];
        }
    return h;
}

// Inputs whose columns are related: each sample walks, and some columns are loud. spread 0: independent.
inline std::vector<float> related_inputs(uint64_t samples, uint64_t cols, uint64_t seed, float spread) {
    std::vector<float> x = random_values(samples * cols, seed);
    for (uint64_t t = 0; t < samples; t++)
        for (uint64_t c = 0; c < cols; c++) {
            if (c) x[t * cols + c] += spread * x[t * cols + c - 1];
            if (c % 29 == 7) x[t * cols + c] *= 1 + 4 * spread;
        }
    return x;
}

struct CalibrateOptions {
    int32_t format = QLORA_FORMAT_GPTQ4;
    uint32_t block = 0, flags = 0, lag = 0, weight_flags = 0;
    float damping = 0;
};

struct Calibrated {
    qlora_gptq_outcome outcome;
    std::vector<float> values;
    std::vector<uint8_t> planes[QLORA_PLANE_COUNT];
    bool same_planes(const Calibrated &other) const {
        for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++)
            if (planes[plane] != other.planes[plane]) return false;
        return true;
    }
};

inline Calibrated read_back(const qlora::Context &context, const qlora::Weight &weight) {
    Calibrated result = {{}, values_of(context, weight), {}};
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) result.planes[plane] = weight.read_plane(plane);
    return result;
}

// Act-order without static groups gets its index plane by itself.
inline Calibrated calibrate(const qlora::Context &context, uint64_t rows, uint64_t cols, const std::vector<float> &w, const std::vector<double> &h, const CalibrateOptions &options = {}) {
    const bool scattered = (options.flags & QLORA_FLAG_ACT_ORDER) && !(options.flags & QLORA_FLAG_STATIC_GROUPS);
    const qlora::Weight weight(context, options.format, rows, cols, options.block, options.weight_flags | (scattered ? QLORA_WEIGHT_INDEXED : 0));
    const qlora::Buffer src(context, w), hessian(context, h), outcome(context, sizeof(qlora_gptq_outcome));
    auto args = qlora::make<qlora_quantize_gptq_args>();
    args.flags = options.flags | QLORA_FLAG_WIDE;
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, src.span());
    args.hessian = hessian.span();
    args.outcome = outcome.span();
    args.damping = options.damping;
    args.lag = options.lag;
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE_GPTQ, args));
    args.scratch = scratch.span();
    context.weight_quantize_gptq(args);
    Calibrated result = read_back(context, weight);
    outcome.read(&result.outcome, sizeof result.outcome);
    return result;
}

// What qlora_weight_quantize gives for the same weight.
inline Calibrated nearest(const qlora::Context &context, uint64_t rows, uint64_t cols, const std::vector<float> &w, const CalibrateOptions &options = {}) {
    QuantizeOptions plain;
    plain.block = options.block;
    plain.flags = options.flags & (QLORA_FLAG_SYMMETRIC | QLORA_FLAG_SEARCH);
    return read_back(context, quantize_with(context, options.format, rows, cols, w, plain));
}

// Sum over rows of (w - q) H (w - q)^T, with extra added to the diagonal.
inline double output_error(uint64_t rows, uint64_t cols, const std::vector<float> &w, const std::vector<float> &q, const std::vector<double> &h, double extra = 0) {
    double sum = 0;
    std::vector<double> difference(cols);
    for (uint64_t r = 0; r < rows; r++) {
        for (uint64_t c = 0; c < cols; c++) difference[c] = double(w[r * cols + c]) - double(q[r * cols + c]);
        for (uint64_t i = 0; i < cols; i++) {
            double dot = extra * difference[i];
            for (uint64_t j = 0; j < cols; j++) dot += h[i * cols + j] * difference[j];
            sum += dot * difference[i];
        }
    }
    return sum;
}
inline double mean_diagonal(const std::vector<double> &h, uint64_t cols) {
    double sum = 0;
    for (uint64_t i = 0; i < cols; i++) sum += h[i * cols + i];
    return sum / double(cols);
}

} // namespace test
