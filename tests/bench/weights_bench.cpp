// Rows of the operations on quantized weights.
#include "backends/formats.h"
#include "tests/bench/bench.h"
#include "tests/support/comparison.h"

#include <algorithm>
#include <cstring>

namespace bench {
namespace {

struct Matrix {
    uint64_t rows, cols;
};

void quantize(const qlora::Context &context, const qlora::Weight &weight, const qlora::Buffer &values) {
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, weight.get()->rows, weight.get()->cols, values.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_quantize(args);
    context.synchronize();
}

void copy_planes(const qlora::Weight &from, qlora::Weight &to) {
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++)
        if (to.layout().plane_bytes[plane] != 0) to.write_plane(plane, from.read_plane(plane).data());
}

// A weight quantized from random values: on the device itself, or on the host where the device has no encoder.
qlora::Weight random_weight(const Bench &bench, int32_t format, const Matrix &shape, uint64_t seed) {
    qlora::Weight weight(bench.context(), format, shape.rows, shape.cols);
    const qlora::Buffer values = bench.random(QLORA_FORMAT_F32, shape.rows * shape.cols, seed, 0.02);
    if (bench.context().operation_supports(QLORA_OP_QUANTIZE, format, QLORA_FORMAT_F32)) {
        quantize(bench.context(), weight, values);
        return weight;
    }
    const qlora::Context host(QLORA_BACKEND_CPU);
    const qlora::Weight made(host, format, shape.rows, shape.cols);
    quantize(host, made, qlora::Buffer(host, unpack(QLORA_FORMAT_F32, values.read<uint8_t>())));
    copy_planes(made, weight);
    return weight;
}

// The same planes in other memory.
qlora::Weight copy_of(const Bench &bench, const qlora::Weight &weight) {
    qlora::Weight copy(bench.context(), weight.get()->format, weight.get()->rows, weight.get()->cols, weight.get()->block);
    copy_planes(weight, copy);
    return copy;
}

// Rows that differ from others in their decoder are measured in one activation type only, and on a device that may be software
// not at all when time is short.
bool is_alike(const qlora::FormatRow &row) { return row.codec >= qlora::Codec::BLOCK; }
bool left_out(const Bench &bench, const qlora::FormatRow &row, int32_t type) {
    if (row.codec == qlora::Codec::FLOAT) return true;
    return is_alike(row) && (type == QLORA_FORMAT_F16 || (bench.quick() && bench.on_gpu()));
}

// A weight of `count` rows on ref, whose planes are the beginning of another's.
qlora::Weight first_rows(const Bench &bench, const qlora::Weight &weight, uint64_t count) {
    qlora::Weight part(bench.ref(), weight.get()->format, count, weight.get()->cols, weight.get()->block);
    for (int plane = 0; plane < QLORA_PLANE_COUNT; plane++) {
        const uint64_t bytes = part.layout().plane_bytes[plane];
        if (bytes == 0) continue;
        std::vector<uint8_t> beginning((bytes + 3) / 4 * 4);
        auto read = qlora::make<qlora_buffer_args>();
        read.src = weight.get()->planes[plane];
        read.host = beginning.data();
        read.bytes = std::min<uint64_t>(beginning.size(), read.src.size);
        bench.context().buffer_read(read);
        part.write_plane(plane, beginning.data());
    }
    return part;
}

std::vector<float> decoded_by_ref(const Bench &bench, const qlora::Weight &weight, int32_t type) {
    const uint64_t rows = weight.get()->rows, cols = weight.get()->cols;
    const qlora::Buffer dst(bench.ref(), rows * cols * element_bytes(type));
    auto args = qlora::make<qlora_dequantize_args>();
    args.weight = weight.get();
    args.dst = qlora::tensor(type, rows, cols, dst.span());
    bench.ref().weight_dequantize(args);
    return unpack(type, dst.read<uint8_t>());
}

std::string shape_name(const Matrix &shape) { return std::to_string(shape.rows) + "x" + std::to_string(shape.cols); }

std::vector<float> values_of(const qlora::Buffer &buffer, int32_t type, uint64_t count) {
    std::vector<uint8_t> bytes(count * element_bytes(type));
    buffer.read(bytes.data(), bytes.size());
    return unpack(type, bytes);
}

float *host(const qlora::Buffer &buffer) { return reinterpret_cast<float *>(uintptr_t(buffer.span().handle + buffer.span().offset)); }

// Weights and activations of one product in rotation.
struct Products {
    std::vector<qlora::Weight> weights;
    std::vector<qlora::Buffer> inputs, outputs, plain; // plain: the decoded weight, for the peer
    std::vector<qlora_matmul_args> args;
    qlora::Buffer scratch;
};

void one_product(Bench &bench, uint32_t operation, int32_t format, int32_t type, const Matrix &shape, uint64_t tokens) {
    const bool forward = operation == QLORA_OP_MATMUL;
    const std::string workload = forward ? "matmul" : "matmul_grad", type_name = format_name(format) + "/" + format_name(type);
    if (!bench.wanted(workload, shape_name(shape), type_name)) return;
    if (!bench.context().operation_supports(operation, format, type)) return;
    const uint64_t in = tokens * (forward ? shape.cols : shape.rows), out = tokens * (forward ? shape.rows : shape.cols);
    Products products;
    products.weights.push_back(random_weight(bench, format, shape, 1));
    const uint64_t bytes = products.weights[0].size() + (in + out) * element_bytes(type);
    const size_t copies = bench.rotation(bytes);
    for (size_t i = 0; i < copies; i++) {
        if (i) products.weights.push_back(copy_of(bench, products.weights[0]));
        products.inputs.push_back(bench.random(type, in, 50 + i));
        products.outputs.push_back(bench.random(type, out, 70 + i));
    }
    for (size_t i = 0; i < copies; i++) {
        auto args = qlora::make<qlora_matmul_args>();
        args.weight = products.weights[i].get();
        args.x = qlora::tensor(type, tokens, shape.cols, (forward ? products.inputs : products.outputs)[i].span());
        args.y = qlora::tensor(type, tokens, shape.rows, (forward ? products.outputs : products.inputs)[i].span());
        if (i == 0) products.scratch = bench.scratch(operation, args);
        args.scratch = products.scratch.span();
        products.args.push_back(args);
    }
    Bench::Row row = {operation, type, workload, shape_name(shape), type_name, tokens, {}, {}, double(bytes), 2.0 * double(tokens) * double(shape.rows) * double(shape.cols), 0};
    row.ours = bench.time([&](uint64_t i) {
        const qlora_matmul_args &args = products.args[i % copies];
        forward ? bench.context().weight_matmul(args) : bench.context().weight_matmul_grad(args);
    });

    // Parity: outputs of the last token, from rows decoded by ref, in double.
    const qlora::Weight &weight = products.weights[0];
    const std::vector<float> x = values_of(products.inputs[0], type, in), y = values_of(products.outputs[0], type, out);
    std::vector<double> expected, found;
    if (forward) {
        const uint64_t sampled = std::min<uint64_t>(shape.rows, 64);
        const std::vector<float> w = decoded_by_ref(bench, first_rows(bench, weight, sampled), type);
        for (uint64_t n = 0; n < sampled; n++) {
            double sum = 0;
            for (uint64_t c = 0; c < shape.cols; c++) sum += double(x[(tokens - 1) * shape.cols + c]) * w[n * shape.cols + c];
            expected.push_back(sum);
            found.push_back(y[(tokens - 1) * shape.rows + n]);
        }
    } else {
        const std::vector<float> w = decoded_by_ref(bench, first_rows(bench, weight, shape.rows), type);
        for (uint64_t c = 0; c < std::min<uint64_t>(shape.cols, 64); c++) {
            double sum = 0;
            for (uint64_t n = 0; n < shape.rows; n++) sum += double(x[(tokens - 1) * shape.rows + n]) * w[n * shape.cols + c];
            expected.push_back(sum);
            found.push_back(y[(tokens - 1) * shape.cols + c]);
        }
    }
    row.error = relative_error(found, expected);

    // The peer multiplies by the weight decoded beforehand.
    const bool blas = !bench.on_gpu() && type == QLORA_FORMAT_F32 && openblas_here(), cublas = bench.backend() == QLORA_BACKEND_CUDA && type == QLORA_FORMAT_BF16 && cublas_here();
    if (blas || cublas) {
        const uint64_t plain_bytes = shape.rows * shape.cols * element_bytes(type);
        const size_t plain_copies = std::min(copies, bench.rotation(plain_bytes));
        for (size_t i = 0; i < plain_copies; i++) products.plain.push_back(bench.random(type, shape.rows * shape.cols, 90 + i, 0.02));
        row.peer = bench.time([&](uint64_t i) {
            const qlora::Buffer &w = products.plain[i % plain_copies], &a = products.inputs[i % copies], &c = products.outputs[i % copies];
            const uint64_t n = forward ? shape.rows : shape.cols, k = forward ? shape.cols : shape.rows;
            if (blas) openblas_sgemm(forward, tokens, n, k, host(a), host(w), host(c));
            else cublas_bf16(forward, tokens, n, k, a.span().handle, w.span().handle, c.span().handle);
            if (cublas && i % 16 == 15) cublas_synchronize();
        });
    }
    bench.print(row);
}

} // namespace

void bench_quantize(Bench &bench) {
    const int32_t first = bench.on_gpu() ? QLORA_FORMAT_BF16 : QLORA_FORMAT_F32;
    for (int32_t type : {first, QLORA_FORMAT_F16})
        for (const qlora::FormatRow &about : qlora::format_rows) {
            const int32_t format = about.format;
            if (left_out(bench, about, type)) continue;
            if (!bench.context().operation_supports(QLORA_OP_QUANTIZE, format, type)) continue;
            // Searches take a hundred times as long as the rest.
            const uint64_t cols = 4096, rows = bench.quick() ? 16 : (bench.on_gpu() ? 65536 : 4096) / (about.codec == qlora::Codec::BLOCK ? 16 : 1);
            const Matrix shape = {rows, cols};
            const std::string type_name = format_name(format) + "/" + format_name(type);
            if (!bench.wanted("quantize", shape_name(shape), type_name)) continue;
            const qlora::Weight weight(bench.context(), format, rows, cols);
            const qlora::Buffer src = bench.random(type, rows * cols, 1, 0.02);
            auto args = qlora::make<qlora_quantize_args>();
            args.weight = weight.get();
            args.src = qlora::tensor(type, rows, cols, src.span());
            const qlora::Buffer scratch = bench.scratch(QLORA_OP_QUANTIZE, args);
            args.scratch = scratch.span();
            Bench::Row row = {QLORA_OP_QUANTIZE, type, "quantize", shape_name(shape), type_name, 0, {}, {}, double(rows * cols * element_bytes(type) + weight.size()), 0, 0};
            row.ours = bench.time([&](uint64_t) { bench.context().weight_quantize(args); });
            // Parity: the share of codes of the first rows that ref gives otherwise.
            const uint64_t sampled = std::min<uint64_t>(rows, 16);
            const qlora::Weight expected(bench.ref(), format, sampled, cols);
            const qlora::Buffer values(bench.ref(), pack(type, values_of(src, type, sampled * cols)));
            auto again = qlora::make<qlora_quantize_args>();
            again.weight = expected.get();
            again.src = qlora::tensor(type, sampled, cols, values.span());
            bench.ref().weight_quantize(again);
            const std::vector<uint8_t> wanted = expected.read_plane(QLORA_PLANE_CODE);
            std::vector<uint8_t> found = weight.read_plane(QLORA_PLANE_CODE);
            found.resize(wanted.size());
            row.error = double(different_elements(found, wanted, 1)) / double(wanted.size());
            bench.print(row);
        }
}

void bench_dequantize(Bench &bench) {
    const Matrix shape = {bench.quick() ? 16u : bench.on_gpu() ? 32768u : 4096u, 4096};
    const int32_t first = bench.on_gpu() ? QLORA_FORMAT_BF16 : QLORA_FORMAT_F32;
    for (int32_t type : {first, QLORA_FORMAT_F16})
        for (const qlora::FormatRow &about : qlora::format_rows) {
            const int32_t format = about.format;
            if (left_out(bench, about, type)) continue;
            if (!bench.context().operation_supports(QLORA_OP_DEQUANTIZE, format, type)) continue;
            const std::string type_name = format_name(format) + "/" + format_name(type);
            if (!bench.wanted("dequantize", shape_name(shape), type_name)) continue;
            const qlora::Weight weight = random_weight(bench, format, shape, 1);
            const uint64_t count = shape.rows * shape.cols, bytes = count * element_bytes(type);
            const size_t copies = bench.rotation(bytes + weight.size());
            std::vector<qlora::Buffer> dst;
            for (size_t i = 0; i < copies; i++) dst.push_back(bench.random(type, count, i));
            auto args = qlora::make<qlora_dequantize_args>();
            args.weight = weight.get();
            args.dst = qlora::tensor(type, shape.rows, shape.cols, dst[0].span());
            const qlora::Buffer scratch = bench.scratch(QLORA_OP_DEQUANTIZE, args);
            args.scratch = scratch.span();
            Bench::Row row = {QLORA_OP_DEQUANTIZE, type, "dequantize", shape_name(shape), type_name, 0, {}, {}, double(bytes + weight.size()), 0, 0};
            row.ours = bench.time([&](uint64_t i) {
                args.dst.data = dst[i % copies].span();
                bench.context().weight_dequantize(args);
            });
            const uint64_t sampled = std::min<uint64_t>(shape.rows, 16);
            row.error = relative_error(values_of(dst[0], type, sampled * shape.cols), decoded_by_ref(bench, first_rows(bench, weight, sampled), type));
            if (!bench.on_gpu()) // memcpy that moves as many bytes: half of them read, half written
                row.peer = bench.time([&](uint64_t i) { std::memcpy(host(dst[i % copies]), reinterpret_cast<const char *>(host(dst[(i + 1) % copies])), size_t(row.bytes / 2)); });
            bench.print(row);
        }
}

void bench_matmul(Bench &bench) {
    std::vector<Matrix> shapes = {{4096, 4096}};
    std::vector<uint64_t> tokens = {1, 8, 64, 256, 512};
    if (bench.on_gpu()) {
        shapes = {{4096, 4096}, {11008, 4096}, {14336, 4096}};
        tokens = {1, 8, 64, 512, 2048, 8192};
    }
    if (bench.quick()) shapes = {{160, 256}}, tokens = {3, 33};
    const int32_t type = bench.on_gpu() ? QLORA_FORMAT_BF16 : QLORA_FORMAT_F32;
    for (uint32_t operation : {QLORA_OP_MATMUL, QLORA_OP_MATMUL_GRAD})
        for (const Matrix &shape : shapes)
            for (int32_t format : {QLORA_FORMAT_NF4_DQ, QLORA_FORMAT_Q4_0, QLORA_FORMAT_Q8_0, type, QLORA_FORMAT_Q4_K, QLORA_FORMAT_Q6_K, QLORA_FORMAT_MXFP4,
                                   QLORA_FORMAT_FP8_E4M3, QLORA_FORMAT_GPTQ4, QLORA_FORMAT_INT8})
                for (uint64_t m : tokens)
                    if (format == type || !left_out(bench, *qlora::format_row(format), type)) one_product(bench, operation, format, type, shape, m);
}

namespace {

void linear_layer(Bench &bench, const Matrix &shape, uint64_t tokens, std::initializer_list<uint64_t> ranks) {
    const int32_t type = bench.on_gpu() ? QLORA_FORMAT_BF16 : QLORA_FORMAT_F32;
    const std::string type_name = "nf4-dq/" + format_name(type);
    const auto name_of = [](uint64_t rank) { return "linear" + std::string(rank ? " r=" + std::to_string(rank) : " base"); };
    const auto wanted = [&](uint64_t rank) { return bench.wanted(name_of(rank), shape_name(shape), type_name); };
    Time base[2] = {};
    for (uint64_t rank : ranks) { // 0: the base layer, the peer of the others, measured for their sake as well
        const std::string name = name_of(rank);
        if (!wanted(rank) && (rank || !(wanted(16) || wanted(64)))) continue;
        const qlora::Weight weight = random_weight(bench, QLORA_FORMAT_NF4_DQ, shape, 1);
        const qlora::Buffer x = bench.random(type, tokens * shape.cols, 2), dy = bench.random(type, tokens * shape.rows, 3);
        const qlora::Buffer y(bench.context(), tokens * shape.rows * element_bytes(type)), dx(bench.context(), tokens * shape.cols * element_bytes(type));
        const qlora::Buffer a = bench.random(QLORA_FORMAT_F32, (rank + 1) * shape.cols, 4, 0.02), b = bench.random(QLORA_FORMAT_F32, shape.rows * (rank + 1), 5, 0.02);
        const qlora::Buffer da(bench.context(), (rank + 1) * shape.cols * 4), db(bench.context(), shape.rows * (rank + 1) * 4), xa(bench.context(), tokens * (rank + 1) * 4);
        auto forward = qlora::make<qlora_linear_args>();
        forward.weight = weight.get();
        forward.x = qlora::tensor(type, tokens, shape.cols, x.span());
        forward.y = qlora::tensor(type, tokens, shape.rows, y.span());
        auto backward = qlora::make<qlora_linear_grad_args>();
        backward.weight = weight.get();
        backward.x = forward.x;
        backward.dy = qlora::tensor(type, tokens, shape.rows, dy.span());
        backward.dx = qlora::tensor(type, tokens, shape.cols, dx.span());
        if (rank) {
            forward.a = backward.a = qlora::tensor(QLORA_FORMAT_F32, rank, shape.cols, a.span());
            forward.b = backward.b = qlora::tensor(QLORA_FORMAT_F32, shape.rows, rank, b.span());
            backward.da = qlora::tensor(QLORA_FORMAT_F32, rank, shape.cols, da.span());
            backward.db = qlora::tensor(QLORA_FORMAT_F32, shape.rows, rank, db.span());
            forward.xa = backward.xa = xa.span();
            forward.scale = backward.scale = 2;
        }
        const qlora::Buffer forward_scratch = bench.scratch(QLORA_OP_LINEAR, forward), backward_scratch = bench.scratch(QLORA_OP_LINEAR_GRAD, backward);
        forward.scratch = forward_scratch.span();
        backward.scratch = backward_scratch.span();

        // Parity in double, of the last token and from the weight as ref decodes it: y, dx, and the first rows of db.
        bench.context().linear_forward(forward);
        bench.context().linear_grad(backward);
        const std::vector<float> w = decoded_by_ref(bench, first_rows(bench, weight, shape.rows), type), as = values_of(a, QLORA_FORMAT_F32, rank * shape.cols), bs = values_of(b, QLORA_FORMAT_F32, shape.rows * rank);
        const std::vector<float> xs = values_of(x, type, tokens * shape.cols), ys = values_of(y, type, tokens * shape.rows), dys = values_of(dy, type, tokens * shape.rows),
                                 dxs = values_of(dx, type, tokens * shape.cols), xas = values_of(xa, QLORA_FORMAT_F32, tokens * rank), dbs = values_of(db, QLORA_FORMAT_F32, shape.rows * rank);
        auto adapted = [&](uint64_t n, uint64_t c) {
            double value = w[n * shape.cols + c];
            for (uint64_t r = 0; r < rank; r++) value += 2.0 * bs[n * rank + r] * as[r * shape.cols + c];
            return value;
        };
        std::vector<double> y_expected, y_found, dx_expected, dx_found, db_expected, db_found;
        const uint64_t last = tokens - 1, sampled = std::min<uint64_t>({shape.rows, shape.cols, 32});
        for (uint64_t s = 0; s < sampled; s++) {
            double y_sum = 0, dx_sum = 0;
            for (uint64_t c = 0; c < shape.cols; c++) y_sum += xs[last * shape.cols + c] * adapted(s, c);
            for (uint64_t n = 0; n < shape.rows; n++) dx_sum += dys[last * shape.rows + n] * adapted(n, s);
            y_expected.push_back(y_sum);
            y_found.push_back(ys[last * shape.rows + s]);
            dx_expected.push_back(dx_sum);
            dx_found.push_back(dxs[last * shape.cols + s]);
            for (uint64_t r = 0; r < rank; r++) {
                double sum = 0;
                for (uint64_t t = 0; t < tokens; t++) sum += 2.0 * dys[t * shape.rows + s] * xas[t * rank + r];
                db_expected.push_back(sum);
                db_found.push_back(dbs[s * rank + r]);
            }
        }
        const double work = 2.0 * double(tokens) * double(shape.rows) * double(shape.cols), low = 2.0 * double(tokens) * double(rank) * double(shape.rows + shape.cols);
        const double bytes = double(weight.size()) + double(tokens * (shape.rows + shape.cols) * element_bytes(type));
        Bench::Row row = {QLORA_OP_LINEAR, type, name + " forward", shape_name(shape), type_name, tokens, {}, {}, bytes, work + low, relative_error(y_found, y_expected)};
        row.ours = bench.time([&](uint64_t) { bench.context().linear_forward(forward); });
        row.peer = base[0];
        if (rank == 0) base[0] = row.ours;
        if (wanted(rank)) bench.print(row);
        row.operation = QLORA_OP_LINEAR_GRAD;
        row.workload = name + " backward";
        row.error = std::max(relative_error(dx_found, dx_expected), relative_error(db_found, db_expected));
        row.flops = work + 2 * low;
        row.ours = bench.time([&](uint64_t) { bench.context().linear_grad(backward); });
        row.peer = rank ? base[1] : Time{};
        if (rank == 0) base[1] = row.ours;
        if (wanted(rank)) bench.print(row);
    }
}

} // namespace

void bench_linear(Bench &bench) {
    if (bench.quick()) return linear_layer(bench, {96, 128}, 7, {0, 16, 64});
    linear_layer(bench, {4096, 4096}, bench.on_gpu() ? 2048 : 256, {0, 16, 64});
    if (!bench.on_gpu()) return;
    for (const Matrix &shape : {Matrix{4096, 4096}, Matrix{11008, 4096}, Matrix{4096, 11008}}) linear_layer(bench, shape, 512, {0, 16}); // of a 7B model's short step
}

} // namespace bench
