// Rows of the products in int8 and of calibrated quantization.
#include "tests/bench/bench.h"
#include "tests/support/comparison.h"

#include <algorithm>

namespace bench {
namespace {

std::vector<float> floats(const qlora::Buffer &buffer) { return unpack(QLORA_FORMAT_F32, buffer.read<uint8_t>()); }

// A weight quantized to nearest from device memory.
qlora::Weight nearest(const qlora::Context &context, int32_t format, uint64_t rows, uint64_t cols, const qlora::Buffer &values) {
    qlora::Weight weight(context, format, rows, cols);
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, values.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_quantize(args);
    context.synchronize();
    return weight;
}

// LLM.int8() forward (threshold 6) and SwitchBack's backward pass; the parity is that of the last token with ref.
void int8_products(Bench &bench, uint64_t rows, uint64_t cols, uint64_t tokens) {
    const std::string shape = std::to_string(rows) + "x" + std::to_string(cols), type_name = "int8/f32";
    const int32_t f32 = QLORA_FORMAT_F32;
    const qlora::Buffer values = bench.random(f32, rows * cols, 1, 0.02), x = bench.random(f32, tokens * cols, 2), dy = bench.random(f32, tokens * rows, 3);
    const qlora::Buffer y(bench.context(), tokens * rows * 4), dx(bench.context(), tokens * cols * 4);
    const qlora::Weight weight = nearest(bench.context(), QLORA_FORMAT_INT8, rows, cols, values);
    qlora::Weight same(bench.ref(), QLORA_FORMAT_INT8, rows, cols);
    for (int plane : {QLORA_PLANE_CODE, QLORA_PLANE_SCALE}) same.write_plane(plane, weight.read_plane(plane).data());
    const double operations = 2.0 * double(tokens) * double(rows) * double(cols), bytes = double(weight.size() + (tokens * (rows + cols)) * 4);
    const auto last = [&](const qlora::Buffer &buffer, uint64_t count) {
        const std::vector<float> all = floats(buffer);
        return std::vector<float>(all.end() - int64_t(count), all.end());
    };

    auto forward = qlora::make<qlora_int8_matmul_args>();
    forward.weight = weight.get();
    forward.x = qlora::tensor(f32, tokens, cols, x.span());
    forward.y = qlora::tensor(f32, tokens, rows, y.span());
    forward.threshold = 6;
    if (bench.wanted("int8_matmul", shape, type_name)) {
        const qlora::Buffer scratch = bench.scratch(QLORA_OP_INT8_MATMUL, forward);
        forward.scratch = scratch.span();
        Bench::Row row = {QLORA_OP_INT8_MATMUL, f32, "int8_matmul", shape, type_name, tokens, {}, {}, bytes, operations, 0};
        row.ours = bench.time([&](uint64_t) { bench.context().int8_matmul(forward); });
        const qlora::Buffer one(bench.ref(), last(x, cols)), wanted(bench.ref(), rows * 4);
        auto again = qlora::make<qlora_int8_matmul_args>();
        again.weight = same.get();
        again.x = qlora::tensor(f32, 1, cols, one.span());
        again.y = qlora::tensor(f32, 1, rows, wanted.span());
        again.threshold = 6;
        const qlora::Buffer scratch_ref(bench.ref(), bench.ref().operation_scratch(QLORA_OP_INT8_MATMUL, again));
        again.scratch = scratch_ref.span();
        bench.ref().int8_matmul(again);
        row.error = relative_error(last(y, rows), floats(wanted));
        bench.print(row);
    }

    auto backward = qlora::make<qlora_int8_matmul_grad_args>();
    backward.weight = weight.get();
    backward.dy = qlora::tensor(f32, tokens, rows, dy.span());
    backward.dx = qlora::tensor(f32, tokens, cols, dx.span());
    if (bench.wanted("int8_matmul_grad", shape, type_name)) {
        const qlora::Buffer scratch = bench.scratch(QLORA_OP_INT8_MATMUL_GRAD, backward);
        backward.scratch = scratch.span();
        Bench::Row row = {QLORA_OP_INT8_MATMUL_GRAD, f32, "int8_matmul_grad", shape, type_name, tokens, {}, {}, bytes, operations, 0};
        row.ours = bench.time([&](uint64_t) { bench.context().int8_matmul_grad(backward); });
        const qlora::Buffer one(bench.ref(), last(dy, rows)), wanted(bench.ref(), cols * 4);
        auto again = qlora::make<qlora_int8_matmul_grad_args>();
        again.weight = same.get();
        again.dy = qlora::tensor(f32, 1, rows, one.span());
        again.dx = qlora::tensor(f32, 1, cols, wanted.span());
        const qlora::Buffer scratch_ref(bench.ref(), bench.ref().operation_scratch(QLORA_OP_INT8_MATMUL_GRAD, again));
        again.scratch = scratch_ref.span();
        bench.ref().int8_matmul_grad(again);
        row.error = relative_error(last(dx, cols), floats(wanted));
        bench.print(row);
    }
}

// SpQR with act-order and search, without outliers, whose limit depends on all rows; ref repeats the first tile.
void bench_spqr(Bench &bench, const qlora::Buffer &hessian, uint64_t rows, uint64_t cols, const std::string &shape) {
    const int32_t f32 = QLORA_FORMAT_F32;
    if (!bench.wanted("quantize_spqr", shape, "spqr4/f32")) return;
    const qlora::Buffer values = bench.random(f32, rows * cols, 2, 0.02);
    const auto calibrate = [&](const qlora::Context &context, const qlora::Weight &weight, const qlora::Buffer &from, const qlora::Buffer &with, const qlora::Buffer *space) {
        auto args = qlora::make<qlora_quantize_spqr_args>();
        args.flags = QLORA_FLAG_ACT_ORDER | QLORA_FLAG_SEARCH;
        args.weight = weight.get();
        args.src = qlora::tensor(f32, weight.get()->rows, cols, from.span());
        args.hessian = with.span();
        args.threshold = HUGE_VALF;
        if (space == nullptr) return context.operation_scratch(QLORA_OP_QUANTIZE_SPQR, args);
        args.scratch = space->span();
        context.weight_quantize_spqr(args);
        return uint64_t(0);
    };
    const qlora::Weight weight(bench.context(), QLORA_FORMAT_SPQR4, rows, cols), few(bench.ref(), QLORA_FORMAT_SPQR4, 16, cols);
    const qlora::Buffer space(bench.context(), calibrate(bench.context(), weight, values, hessian, nullptr));
    Bench::Row row = {QLORA_OP_QUANTIZE_SPQR, f32, "quantize_spqr", shape, "spqr4/f32", 0, {}, {}, double((rows * cols + cols * cols) * 4), double(rows) * double(cols) * double(cols) + double(cols) * double(cols) * double(cols), 0};
    row.ours = bench.time([&](uint64_t) { calibrate(bench.context(), weight, values, hessian, &space); });
    const std::vector<float> first = floats(values);
    const qlora::Buffer values_ref(bench.ref(), std::vector<float>(first.begin(), first.begin() + int64_t(16 * cols))), hessian_ref(bench.ref(), floats(hessian));
    const qlora::Buffer space_ref(bench.ref(), calibrate(bench.ref(), few, values_ref, hessian_ref, nullptr));
    calibrate(bench.ref(), few, values_ref, hessian_ref, &space_ref);
    std::vector<uint8_t> found = weight.read_plane(QLORA_PLANE_CODE), wanted = few.read_plane(QLORA_PLANE_CODE);
    found.resize(wanted.size());
    row.error = double(different_elements(found, wanted, 1)) / double(wanted.size());
    bench.print(row);
}

} // namespace

void bench_int8(Bench &bench) {
    if (!bench.context().operation_supports(QLORA_OP_INT8_MATMUL, QLORA_FORMAT_INT8, QLORA_FORMAT_F32)) return;
    if (bench.quick()) return int8_products(bench, 160, 128, 33);
    for (uint64_t tokens : {1, 64, 512, 2048}) int8_products(bench, 4096, 4096, tokens);
}

// H += x^T x, and GPTQ with act-order and static groups; the parity is that of a corner of H, and of the values with ref.
void bench_calibration(Bench &bench) {
    const int32_t f32 = QLORA_FORMAT_F32;
    const uint64_t cols = bench.quick() ? 96 : 2048, rows = cols, tokens = bench.quick() ? 200 : 2048;
    const std::string shape = std::to_string(rows) + "x" + std::to_string(cols);
    if (!bench.context().operation_supports(QLORA_OP_HESSIAN, 0, f32)) return;
    const qlora::Buffer x = bench.random(f32, tokens * cols, 1), hessian(bench.context(), cols * cols * 4);
    auto gather = qlora::make<qlora_hessian_args>();
    gather.x = qlora::tensor(f32, tokens, cols, x.span());
    gather.hessian = hessian.span();
    const qlora::Buffer scratch = bench.scratch(QLORA_OP_HESSIAN, gather);
    gather.scratch = scratch.span();
    bench.context().hessian_accumulate(gather);
    if (bench.wanted("hessian", shape, "f32")) {
        Bench::Row row = {QLORA_OP_HESSIAN, f32, "hessian", shape, "f32", tokens, {}, {}, double((tokens * cols + cols * cols) * 4), 2.0 * double(tokens) * double(cols) * double(cols), 0};
        row.ours = bench.time([&](uint64_t) { bench.context().hessian_accumulate(gather); });
        const std::vector<float> input = floats(x), found = floats(hessian);
        std::vector<double> corner, expected;
        for (uint64_t i = 0; i < 8; i++)
            for (uint64_t j = 0; j < 8; j++) {
                double sum = 0;
                for (uint64_t t = 0; t < tokens; t++) sum += double(input[t * cols + i]) * input[t * cols + j];
                expected.push_back(2 * sum / double(tokens));
                corner.push_back(found[i * cols + j]);
            }
        row.error = relative_error(corner, expected);
        bench.print(row);
    }
    bench_spqr(bench, hessian, rows, cols, shape);
    if (!bench.wanted("quantize_gptq", shape, "gptq4/f32")) return;
    const qlora::Buffer values = bench.random(f32, rows * cols, 2, 0.02);
    // Rows do not touch each other: ref repeats the first four. Without space the answer is how much is needed.
    const auto calibrate = [&](const qlora::Context &context, const qlora::Weight &weight, const qlora::Buffer &from, const qlora::Buffer &with, const qlora::Buffer *space) {
        auto args = qlora::make<qlora_quantize_gptq_args>();
        args.flags = QLORA_FLAG_ACT_ORDER | QLORA_FLAG_STATIC_GROUPS;
        args.weight = weight.get();
        args.src = qlora::tensor(f32, weight.get()->rows, cols, from.span());
        args.hessian = with.span();
        if (space == nullptr) return context.operation_scratch(QLORA_OP_QUANTIZE_GPTQ, args);
        args.scratch = space->span();
        context.weight_quantize_gptq(args);
        return uint64_t(0);
    };
    const qlora::Weight weight(bench.context(), QLORA_FORMAT_GPTQ4, rows, cols), few(bench.ref(), QLORA_FORMAT_GPTQ4, 4, cols);
    const qlora::Buffer space(bench.context(), calibrate(bench.context(), weight, values, hessian, nullptr));
    Bench::Row row = {QLORA_OP_QUANTIZE_GPTQ, f32, "quantize_gptq", shape, "gptq4/f32", 0, {}, {}, double((rows * cols + cols * cols) * 4), double(rows) * double(cols) * double(cols) + double(cols) * double(cols) * double(cols), 0};
    row.ours = bench.time([&](uint64_t) { calibrate(bench.context(), weight, values, hessian, &space); });
    const std::vector<float> first = floats(values);
    const qlora::Buffer values_ref(bench.ref(), std::vector<float>(first.begin(), first.begin() + int64_t(4 * cols))), hessian_ref(bench.ref(), floats(hessian));
    const qlora::Buffer space_ref(bench.ref(), calibrate(bench.ref(), few, values_ref, hessian_ref, nullptr));
    calibrate(bench.ref(), few, values_ref, hessian_ref, &space_ref);
    std::vector<uint8_t> found = weight.read_plane(QLORA_PLANE_CODE), wanted = few.read_plane(QLORA_PLANE_CODE);
    found.resize(wanted.size());
    row.error = double(different_elements(found, wanted, 1)) / double(wanted.size());
    bench.print(row);
}

} // namespace bench
