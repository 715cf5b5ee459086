// Cases of the operations on quantized weights.
#include "tests/support/shapes.h"

namespace test {
namespace {

std::string label(int32_t format, const Arithmetic &arithmetic, const Shape &shape, uint32_t variant) {
    return format_name(format) + " " + name_of(arithmetic) + " " + name_of(shape) + " #" + std::to_string(variant);
}

// Rows longer than their contents in every third case.
uint64_t stride_of(uint64_t cols, uint32_t variant, uint32_t extra) { return variant % 3 == 2 ? cols + extra : 0; }

// Elements around the borders of blocks; a block that is a row or the tensor has none of its own.
std::vector<uint64_t> counts_of(uint64_t block) {
    if (block == 0 || block > 4096) block = 64;
    return {1, block - 1, block, block + 1, block * 13 + 5, 4992};
}

} // namespace

template <> std::vector<Case> cases<QLORA_OP_QUANTIZE>() {
    std::vector<Case> list;
    for (const qlora::FormatRow &row : qlora::format_rows)
        for (int32_t type : types) {
            std::vector<uint32_t> blocks = {row.block};
            if (row.scale == qlora::Scale::ROW) blocks = {0, row.block_max};
            if (row.block_min != row.block_max) blocks = {row.block_min, row.block_min * 2, 256, 1024, std::min(row.block_max, 4096u)};
            for (uint32_t block : blocks)
                for (uint64_t count : counts_of(block)) {
                    if (count == 0) continue;
                    // ggml divides by such a scale without asking: blocks of subnormals have no defined codes there.
                    const bool wide = qlora::whole_blocks(row);
                    const uint64_t width = row.block * 3, rows = wide ? (count + width - 1) / width : count % 3 == 0 ? 3 : 1, cols = wide ? width : count / rows;
                    list.push_back({std::string(row.name) + " " + format_name(type) + " block " + std::to_string(block) + " " + std::to_string(rows) + "x" + std::to_string(cols),
                                    row.format, type, 0, [=](Stage &stage) {
                                        qlora_quantize_args args = {};
                                        args.weight = stage.output_weight(row.format, rows, cols, block, 0, row.codec == qlora::Codec::BILEVEL ? count / 3 : 0);
                                        args.src = stage.tensor(type, rows, cols, special_values(rows * cols, block > 1 && block <= 4096 ? block : 32, type, count), count % 2 ? cols + 3 : 0);
                                        stage.run<QLORA_OP_QUANTIZE>(args);
                                    }});
                }
            // Enough blocks for two nested ones, and for two chunks of the mean.
            const uint64_t many = row.scale == qlora::Scale::NESTED ? 4096u * 32u * 2 + 32 * 5 + 1 : 256 * 40;
            list.push_back({std::string(row.name) + " " + format_name(type) + " many blocks", row.format, type, 0, [=](Stage &stage) {
                                qlora_quantize_args args = {};
                                args.weight = stage.output_weight(row.format, 1, many, row.block_min);
                                args.src = stage.tensor(type, 1, many, random_values(many, 5));
                                stage.run<QLORA_OP_QUANTIZE>(args);
                            }});
        }
    return list;
}

template <> std::vector<Case> cases<QLORA_OP_DEQUANTIZE>() {
    std::vector<Case> list;
    for (const qlora::FormatRow &row : qlora::format_rows)
        for (int32_t type : types)
            for (uint32_t block : {row.block, row.block_min, row.block_max})
                for (const Shape &any : {Shape{0, 1, 1}, Shape{0, 3, 63}, Shape{0, 1, 64}, Shape{0, 5, 65}, Shape{0, 7, 1031}, Shape{0, 48, 128}}) {
                    const Shape shape = fitting(any, row.format);
                    list.push_back({std::string(row.name) + " " + format_name(type) + " block " + std::to_string(block) + " " + name_of(shape), row.format, type, 0, [=](Stage &stage) {
                                        qlora_dequantize_args args = {};
                                        const uint64_t stride = shape.cols % 2 ? shape.cols + 5 : 0;
                                        args.weight = stage.weight(host_weight(row.format, shape.rows, shape.cols, block));
                                        args.dst = stage.output("dst", type, shape.rows, shape.cols, stride);
                                        stage.run<QLORA_OP_DEQUANTIZE>(args);
                                    }});
                }
    return list;
}

namespace {

template <uint32_t Operation> std::vector<Case> matmul_cases() {
    constexpr bool forward = Operation == QLORA_OP_MATMUL;
    std::vector<Case> list;
    for_formats_and_shapes(2, [&](int32_t format, Arithmetic arithmetic, Shape shape, uint32_t variant) {
        list.push_back({label(format, arithmetic, shape, variant), format, arithmetic.type, arithmetic.compute_type, [=](Stage &stage) {
                            qlora_matmul_args args = {};
                            const qlora::FormatRow &row = *qlora::format_row(format);
                            const uint32_t other = row.scale == qlora::Scale::ROW ? row.block_max : 128;
                            const uint32_t block = !qlora::whole_blocks(row) && row.block_max > 32 && variant % 4 == 1 ? other : 0;
                            args.weight = stage.weight(host_weight(format, shape.rows, shape.cols, block));
                            args.compute_type = arithmetic.compute_type;
                            const std::vector<float> before = variant % 2 ? random_values(shape.tokens * (forward ? shape.rows : shape.cols), 3) : std::vector<float>();
                            if (variant % 2) args.flags = QLORA_FLAG_ACCUMULATE;
                            const uint64_t x_stride = stride_of(shape.cols, variant, 3), y_stride = stride_of(shape.rows, variant, 5);
                            if (forward) {
                                args.x = stage.tensor(arithmetic.type, shape.tokens, shape.cols, random_values(shape.tokens * shape.cols, 2), x_stride);
                                args.y = stage.output("y", arithmetic.type, shape.tokens, shape.rows, y_stride, before);
                            } else {
                                args.y = stage.tensor(arithmetic.type, shape.tokens, shape.rows, random_values(shape.tokens * shape.rows, 2), y_stride);
                                args.x = stage.output("dx", arithmetic.type, shape.tokens, shape.cols, x_stride, before);
                            }
                            stage.run<Operation>(args);
                        }});
    });
    return list;
}

} // namespace

template <> std::vector<Case> cases<QLORA_OP_MATMUL>() { return matmul_cases<QLORA_OP_MATMUL>(); }
template <> std::vector<Case> cases<QLORA_OP_MATMUL_GRAD>() { return matmul_cases<QLORA_OP_MATMUL_GRAD>(); }

template <> std::vector<Case> cases<QLORA_OP_LINEAR>() {
    std::vector<Case> list;
    for_formats_and_shapes(1, [&](int32_t format, Arithmetic arithmetic, Shape shape, uint32_t variant) {
        list.push_back({label(format, arithmetic, shape, variant), format, arithmetic.type, arithmetic.compute_type, [=](Stage &stage) {
                            qlora_linear_args args = {};
                            const uint64_t rank = variant % 5 == 0 ? 1 : variant % 5 == 1 ? 16 : 5 + variant % 7;
                            const int32_t adapter_type = types[variant % 3];
                            args.weight = stage.weight(host_weight(format, shape.rows, shape.cols));
                            args.compute_type = arithmetic.compute_type;
                            args.x = stage.tensor(arithmetic.type, shape.tokens, shape.cols, random_values(shape.tokens * shape.cols, 2), stride_of(shape.cols, variant, 3));
                            if (variant % 2) args.flags = QLORA_FLAG_ACCUMULATE;
                            args.y = stage.output("y", arithmetic.type, shape.tokens, shape.rows, stride_of(shape.rows, variant, 5),
                                                  variant % 2 ? random_values(shape.tokens * shape.rows, 3) : std::vector<float>());
                            if (variant % 7 != 6) { // else the base layer alone
                                args.a = stage.tensor(adapter_type, rank, shape.cols, random_values(rank * shape.cols, 4, 0.3), stride_of(shape.cols, variant, 1));
                                args.b = stage.tensor(adapter_type, shape.rows, rank, random_values(shape.rows * rank, 5, 0.3), stride_of(rank, variant, 2));
                                args.xa = stage.output_floats("xa", shape.tokens * rank);
                                args.scale = 0.75f;
                            }
                            if (variant % 4 < 2) args.bias = stage.floats(random_values(shape.rows, 6));
                            stage.run<QLORA_OP_LINEAR>(args);
                        }});
    });
    return list;
}

template <> std::vector<Case> cases<QLORA_OP_LINEAR_GRAD>() {
    std::vector<Case> list;
    for_formats_and_shapes(1, [&](int32_t format, Arithmetic arithmetic, Shape shape, uint32_t variant) {
        list.push_back({label(format, arithmetic, shape, variant), format, arithmetic.type, arithmetic.compute_type, [=](Stage &stage) {
                            qlora_linear_grad_args args = {};
                            const uint64_t rank = variant % 5 == 0 ? 1 : variant % 5 == 1 ? 16 : 5 + variant % 7;
                            const int32_t adapter_type = types[variant / 3 % 3];
                            const bool adapter = variant % 7 != 6, accumulate = variant % 2, accumulate_gradients = variant % 4 > 1;
                            args.weight = stage.weight(host_weight(format, shape.rows, shape.cols));
                            args.compute_type = arithmetic.compute_type;
                            args.flags = (accumulate ? QLORA_FLAG_ACCUMULATE : 0) | (accumulate_gradients ? QLORA_FLAG_ACCUMULATE_GRADIENTS : 0);
                            auto gradients_before = [&](uint64_t count) { return accumulate_gradients ? random_values(count, 8) : std::vector<float>(); };
                            args.dy = stage.tensor(arithmetic.type, shape.tokens, shape.rows, random_values(shape.tokens * shape.rows, 2), stride_of(shape.rows, variant, 5));
                            if (variant % 6 != 5)
                                args.dx = stage.output("dx", arithmetic.type, shape.tokens, shape.cols, stride_of(shape.cols, variant, 3),
                                                       accumulate ? random_values(shape.tokens * shape.cols, 3) : std::vector<float>());
                            if (adapter) {
                                args.scale = 0.75f;
                                args.x = stage.tensor(arithmetic.type, shape.tokens, shape.cols, random_values(shape.tokens * shape.cols, 7), stride_of(shape.cols, variant, 3));
                                args.a = stage.tensor(adapter_type, rank, shape.cols, random_values(rank * shape.cols, 4, 0.3));
                                args.b = stage.tensor(adapter_type, shape.rows, rank, random_values(shape.rows * rank, 5, 0.3));
                                if (variant % 8 != 7) args.da = stage.output("da", QLORA_FORMAT_F32, rank, shape.cols, stride_of(shape.cols, variant, 2), gradients_before(rank * shape.cols));
                                if (variant % 8 != 3) args.db = stage.output("db", QLORA_FORMAT_F32, shape.rows, rank, 0, gradients_before(shape.rows * rank));
                                if (variant % 4 != 2) args.xa = stage.floats(random_values(shape.tokens * rank, 9));
                            }
                            if (variant % 4 < 2) args.dbias = stage.output_floats("dbias", shape.rows, gradients_before(shape.rows));
                            stage.run<QLORA_OP_LINEAR_GRAD>(args);
                        }});
    });
    // No tokens and no accumulation: the gradients are zero, not what was there before.
    list.push_back({"nf4 f32 no tokens", QLORA_FORMAT_NF4, QLORA_FORMAT_F32, 0, [](Stage &stage) {
                        qlora_linear_grad_args args = {};
                        args.weight = stage.weight(host_weight(QLORA_FORMAT_NF4, 24, 64));
                        args.dy = stage.tensor(QLORA_FORMAT_F32, 0, 24, {});
                        args.x = stage.tensor(QLORA_FORMAT_F32, 0, 64, {});
                        args.a = stage.tensor(QLORA_FORMAT_F32, 4, 64, random_values(256, 4));
                        args.b = stage.tensor(QLORA_FORMAT_F32, 24, 4, random_values(96, 5));
                        args.scale = 1;
                        args.da = stage.output("da", QLORA_FORMAT_F32, 4, 64, 0, random_values(256, 6));
                        args.db = stage.output("db", QLORA_FORMAT_F32, 24, 4, 0, random_values(96, 7));
                        args.dbias = stage.output_floats("dbias", 24, random_values(24, 8));
                        stage.run<QLORA_OP_LINEAR_GRAD>(args);
                    }});
    return list;
}

template <> std::vector<Case> cases<QLORA_OP_EMBEDDING>() {
    std::vector<Case> list;
    for (const qlora::FormatRow &row : qlora::format_rows)
        for (int32_t type : types)
            for (const Shape &any : {Shape{1, 1, 1}, Shape{19, 31, 63}, Shape{7, 100, 64}, Shape{33, 17, 161}}) {
                const Shape shape = fitting(any, row.format);
                list.push_back({std::string(row.name) + " " + format_name(type) + " " + name_of(shape), row.format, type, 0, [=](Stage &stage) {
                                    qlora_embedding_args args = {};
                                    args.weight = stage.weight(host_weight(row.format, shape.rows, shape.cols));
                                    args.ids = stage.integers(random_integers(shape.tokens, 3, 0, int32_t(shape.rows)));
                                    const bool accumulate = shape.tokens == 33; // learned positions
                                    if (accumulate) args.flags = QLORA_FLAG_ACCUMULATE;
                                    if (shape.tokens >= 19) args.scale = 11.3137f;
                                    args.y = stage.output("y", type, shape.tokens, shape.cols, shape.cols % 2 ? shape.cols + 3 : 0,
                                                          accumulate ? random_values(shape.tokens * shape.cols, 5) : std::vector<float>());
                                    stage.run<QLORA_OP_EMBEDDING>(args);
                                }});
            }
    return list;
}

} // namespace test
