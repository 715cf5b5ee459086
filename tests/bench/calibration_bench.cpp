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

// Normal values, and six columns of activations that pass a threshold of 6 in every row, as in models of 4096 columns.
std::vector<float> with_outlier_columns(uint64_t rows, uint64_t cols) {
    std::vector<float> values = random_values(rows * cols, 2);
    for (uint64_t i = 0; i < values.size(); i++) {
        float &value = values[i];
        if (i % cols % 683 == 5) value = value < 0 ? value - 6.5f : value + 6.5f;
        else value = std::max(-5.9f, std::min(value, 5.9f));
    }
    return values;
}

// The last `count` elements of device memory.
std::vector<float> end_of(const Bench &bench, const qlora::Buffer &buffer, int32_t type, uint64_t all, uint64_t count) {
    std::vector<uint8_t> bytes(count * element_bytes(type));
    auto read = qlora::make<qlora_buffer_args>();
    read.src = buffer.span();
    read.src.offset += (all - count) * element_bytes(type);
    read.host = bytes.data();
    read.bytes = bytes.size();
    bench.context().buffer_read(read);
    return unpack(type, bytes);
}

// LLM.int8() forward (threshold 6), SwitchBack's backward pass and the gradient of the weight; the parity is that of the last token with
// ref. The peer is cuBLAS' product of the bytes alone.
struct Int8Layer {
    Bench &bench;
    int32_t type;
    uint64_t rows, cols, tokens;
    std::string shape = std::to_string(rows) + "x" + std::to_string(cols), type_name = "int8/" + format_name(type);
    qlora::Buffer x = bench.repeated(type, with_outlier_columns(std::min<uint64_t>(tokens, 64), cols), tokens * cols), dy = bench.random(type, tokens * rows, 3);
    qlora::Buffer y = qlora::Buffer(bench.context(), tokens * rows * element_bytes(type)), dx = qlora::Buffer(bench.context(), tokens * cols * element_bytes(type));
    qlora::Weight weight = nearest(bench.context(), QLORA_FORMAT_INT8, rows, cols, bench.random(QLORA_FORMAT_F32, rows * cols, 1, 0.02));
    double operations = 2.0 * double(tokens) * double(rows) * double(cols), bytes = double(weight.size() + tokens * (rows + cols) * element_bytes(type));

    qlora::Weight on_ref() const {
        qlora::Weight same(bench.ref(), QLORA_FORMAT_INT8, rows, cols);
        for (int plane : {QLORA_PLANE_CODE, QLORA_PLANE_SCALE}) same.write_plane(plane, weight.read_plane(plane).data());
        return same;
    }
    Time peer(bool forward) const {
        if (bench.backend() != QLORA_BACKEND_CUDA || !cublas_here() || tokens % 4) return {};
        const uint64_t n = forward ? rows : cols, k = forward ? cols : rows;
        const qlora::Buffer a(bench.context(), tokens * k), sums(bench.context(), tokens * n * 4);
        return bench.time([&](uint64_t i) {
            cublas_int8(tokens, n, k, a.span().handle, weight.get()->planes[QLORA_PLANE_CODE].handle + weight.get()->planes[QLORA_PLANE_CODE].offset, sums.span().handle);
            if (i % 16 == 15) cublas_synchronize();
        });
    }

    void forward() {
        if (!bench.wanted("int8_matmul", shape, type_name)) return;
        auto args = qlora::make<qlora_int8_matmul_args>();
        args.weight = weight.get();
        args.x = qlora::tensor(type, tokens, cols, x.span());
        args.y = qlora::tensor(type, tokens, rows, y.span());
        args.threshold = 6;
        const qlora::Buffer scratch = bench.scratch(QLORA_OP_INT8_MATMUL, args);
        args.scratch = scratch.span();
        Bench::Row row = {QLORA_OP_INT8_MATMUL, type, "int8_matmul", shape, type_name, tokens, {}, {}, bytes, operations, 0};
        row.ours = bench.time([&](uint64_t) { bench.context().int8_matmul(args); });
        row.peer = peer(true);
        const qlora::Weight same = on_ref();
        const qlora::Buffer one(bench.ref(), pack(type, end_of(bench, x, type, tokens * cols, cols))), wanted(bench.ref(), rows * element_bytes(type));
        auto again = qlora::make<qlora_int8_matmul_args>();
        again.weight = same.get();
        again.x = qlora::tensor(type, 1, cols, one.span());
        again.y = qlora::tensor(type, 1, rows, wanted.span());
        again.threshold = 6;
        const qlora::Buffer scratch_ref(bench.ref(), bench.ref().operation_scratch(QLORA_OP_INT8_MATMUL, again));
        again.scratch = scratch_ref.span();
        bench.ref().int8_matmul(again);
        row.error = relative_error(end_of(bench, y, type, tokens * rows, rows), unpack(type, wanted.read<uint8_t>()));
        bench.print(row);
    }

    void backward() {
        if (!bench.wanted("int8_matmul_grad", shape, type_name)) return;
        auto args = qlora::make<qlora_int8_matmul_grad_args>();
        args.weight = weight.get();
        args.dy = qlora::tensor(type, tokens, rows, dy.span());
        args.dx = qlora::tensor(type, tokens, cols, dx.span());
        const qlora::Buffer scratch = bench.scratch(QLORA_OP_INT8_MATMUL_GRAD, args);
        args.scratch = scratch.span();
        Bench::Row row = {QLORA_OP_INT8_MATMUL_GRAD, type, "int8_matmul_grad", shape, type_name, tokens, {}, {}, bytes, operations, 0};
        row.ours = bench.time([&](uint64_t) { bench.context().int8_matmul_grad(args); });
        row.peer = peer(false);
        const qlora::Weight same = on_ref();
        const qlora::Buffer one(bench.ref(), pack(type, end_of(bench, dy, type, tokens * rows, rows))), wanted(bench.ref(), cols * element_bytes(type));
        auto again = qlora::make<qlora_int8_matmul_grad_args>();
        again.weight = same.get();
        again.dy = qlora::tensor(type, 1, rows, one.span());
        again.dx = qlora::tensor(type, 1, cols, wanted.span());
        const qlora::Buffer scratch_ref(bench.ref(), bench.ref().operation_scratch(QLORA_OP_INT8_MATMUL_GRAD, again));
        again.scratch = scratch_ref.span();
        bench.ref().int8_matmul_grad(again);
        row.error = relative_error(end_of(bench, dx, type, tokens * cols, cols), unpack(type, wanted.read<uint8_t>()));
        bench.print(row);
    }

    // A corner of dw in double.
    void weight_gradient() {
        if (!bench.wanted("weight_gradient", shape, format_name(type))) return;
        const qlora::Buffer dw(bench.context(), rows * cols * element_bytes(type));
        auto args = qlora::make<qlora_weight_gradient_args>();
        args.x = qlora::tensor(type, tokens, cols, x.span());
        args.dy = qlora::tensor(type, tokens, rows, dy.span());
        args.dw = qlora::tensor(type, rows, cols, dw.span());
        const qlora::Buffer scratch = bench.scratch(QLORA_OP_WEIGHT_GRADIENT, args);
        args.scratch = scratch.span();
        const double moved = double((tokens * (rows + cols) + rows * cols) * element_bytes(type));
        Bench::Row row = {QLORA_OP_WEIGHT_GRADIENT, type, "weight_gradient", shape, format_name(type), tokens, {}, {}, moved, operations, 0};
        row.ours = bench.time([&](uint64_t) { bench.context().weight_gradient(args); });
        const std::vector<float> xs = end_of(bench, x, type, tokens * cols, tokens * cols), dys = end_of(bench, dy, type, tokens * rows, tokens * rows),
                                 last = end_of(bench, dw, type, rows * cols, std::min<uint64_t>(cols, 64));
        std::vector<double> expected;
        for (uint64_t c = cols - last.size(); c < cols; c++) {
            double sum = 0;
            for (uint64_t t = 0; t < tokens; t++) sum += double(dys[t * rows + rows - 1]) * xs[t * cols + c];
            expected.push_back(sum);
        }
        row.error = relative_error(std::vector<double>(last.begin(), last.end()), expected);
        bench.print(row);
    }
};

// SpQR with act-order and search, without outliers, whose limit depends on all rows; ref repeats the first tile.
void bench_spqr(Bench &bench, const qlora::Buffer &hessian, uint64_t rows, uint64_t cols, const std::string &shape) {
    const int32_t f32 = QLORA_FORMAT_F32;
    if (!bench.wanted("quantize_spqr", shape, "spqr4/f32") || !bench.context().operation_supports(QLORA_OP_QUANTIZE_SPQR, QLORA_FORMAT_SPQR4, f32)) return;
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
    const int32_t type = bench.on_gpu() ? QLORA_FORMAT_BF16 : QLORA_FORMAT_F32;
    if (!bench.context().operation_supports(QLORA_OP_INT8_MATMUL, QLORA_FORMAT_INT8, type)) return;
    std::vector<std::pair<uint64_t, uint64_t>> shapes = {{4096, 4096}};
    std::vector<uint64_t> tokens = {1, 64, 512, 2048};
    if (bench.on_gpu()) {
        shapes.push_back({11008, 4096});
        tokens.push_back(8192);
    }
    if (bench.quick()) shapes = {{160, 128}}, tokens = {33};
    for (const auto &[rows, cols] : shapes) {
        const std::string shape = std::to_string(rows) + "x" + std::to_string(cols);
        for (uint64_t m : tokens) {
            if (!bench.wanted("int8_matmul", shape, "int8/" + format_name(type)) && !bench.wanted("int8_matmul_grad", shape, "int8/" + format_name(type)) &&
                !bench.wanted("weight_gradient", shape, format_name(type)))
                continue;
            Int8Layer layer = {bench, type, rows, cols, m};
            layer.forward();
            layer.backward();
            if (m >= 512 || bench.quick()) layer.weight_gradient();
        }
    }
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
    if (!bench.wanted("quantize_gptq", shape, "gptq4/f32") || !bench.context().operation_supports(QLORA_OP_QUANTIZE_GPTQ, QLORA_FORMAT_GPTQ4, f32)) return;
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
