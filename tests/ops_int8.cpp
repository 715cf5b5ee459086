// Cases of the products in int8 and of the gradient of a trained weight.
#include "tests/support/shapes.h"

namespace test {
namespace {

// Normal values with a few columns that stand out by a factor.
std::vector<float> with_outliers(uint64_t rows, uint64_t cols, uint64_t seed, float factor) {
    std::vector<float> values = random_values(rows * cols, seed);
    for (uint64_t i = 0; i < values.size(); i++)
        if (i % cols % 41 == 7) values[i] *= factor;
    return values;
}

uint32_t block_of(uint32_t variant) { return variant % 3 == 1 ? 1u << 30 : 0; }
uint64_t stride_of(uint64_t cols, uint32_t variant, uint32_t extra) { return variant % 4 == 2 ? cols + extra : 0; }

// Large enough, and of sizes round enough, for a product to be another library's where there is one.
constexpr Shape large = {260, 288, 272};

// f(type, shape, variant) over types and shapes.
template <class Function> void for_types_and_shapes(Function &&f) {
    uint32_t variant = 0;
    for (int32_t type : types) {
        for (int round = 0; round < 2; round++)
            for (const Shape &shape : shapes) f(type, shape, variant++);
        f(type, large, variant++);
    }
}

std::string label(int32_t type, const Shape &shape, uint32_t variant) { return format_name(type) + " " + name_of(shape) + " #" + std::to_string(variant); }

} // namespace

template <> std::vector<Case> cases<QLORA_OP_INT8_MATMUL>() {
    std::vector<Case> list;
    for_types_and_shapes([&](int32_t type, Shape shape, uint32_t variant) {
        list.push_back({label(type, shape, variant), QLORA_FORMAT_INT8, type, 0, [=](Stage &stage) {
                            qlora_int8_matmul_args args = {};
                            const uint64_t count = shape.tokens * shape.rows;
                            args.weight = stage.weight(host_weight(QLORA_FORMAT_INT8, shape.rows, shape.cols, block_of(variant)));
                            args.x = stage.tensor(type, shape.tokens, shape.cols, with_outliers(shape.tokens, shape.cols, 2, variant % 5 < 3 ? 20.0f : 1.0f), stride_of(shape.cols, variant, 3));
                            args.threshold = variant % 5 == 0 ? 6.0f : variant % 5 == 1 ? 2.5f : variant % 5 == 3 ? 0.001f : 0; // a few, many, none, all
                            if (variant % 2) args.flags = QLORA_FLAG_ACCUMULATE;
                            args.y = stage.output("y", type, shape.tokens, shape.rows, stride_of(shape.rows, variant, 5), variant % 2 ? random_values(count, 3) : std::vector<float>());
                            if (variant % 4 < 2) args.bias = stage.floats(random_values(shape.rows, 6));
                            stage.run<QLORA_OP_INT8_MATMUL>(args);
                        }});
    });
    // No columns: the bias alone.
    list.push_back({"f32 no columns", QLORA_FORMAT_INT8, QLORA_FORMAT_F32, 0, [](Stage &stage) {
                        qlora_int8_matmul_args args = {};
                        args.weight = stage.output_weight(QLORA_FORMAT_INT8, 5, 0, 0);
                        args.x = stage.tensor(QLORA_FORMAT_F32, 3, 0, {});
                        args.y = stage.output("y", QLORA_FORMAT_F32, 3, 5);
                        args.bias = stage.floats(random_values(5, 6));
                        stage.run<QLORA_OP_INT8_MATMUL>(args);
                    }});
    return list;
}

template <> std::vector<Case> cases<QLORA_OP_INT8_MATMUL_GRAD>() {
    std::vector<Case> list;
    for_types_and_shapes([&](int32_t type, Shape shape, uint32_t variant) {
        list.push_back({label(type, shape, variant), QLORA_FORMAT_INT8, type, 0, [=](Stage &stage) {
                            qlora_int8_matmul_grad_args args = {};
                            args.weight = stage.weight(host_weight(QLORA_FORMAT_INT8, shape.rows, shape.cols, block_of(variant)));
                            args.dy = stage.tensor(type, shape.tokens, shape.rows, random_values(shape.tokens * shape.rows, 2), stride_of(shape.rows, variant, 5));
                            if (variant % 2) args.flags = QLORA_FLAG_ACCUMULATE;
                            args.dx = stage.output("dx", type, shape.tokens, shape.cols, stride_of(shape.cols, variant, 3),
                                                   variant % 2 ? random_values(shape.tokens * shape.cols, 3) : std::vector<float>());
                            stage.run<QLORA_OP_INT8_MATMUL_GRAD>(args);
                        }});
    });
    return list;
}

template <> std::vector<Case> cases<QLORA_OP_WEIGHT_GRADIENT>() {
    std::vector<Case> list;
    uint32_t variant = 0;
    std::vector<Shape> all(std::begin(shapes), std::end(shapes));
    all.push_back(large);
    for (const Arithmetic &arithmetic : arithmetics)
        for (const Shape &shape : all) {
            variant++;
            // dw in a type of its own; what it rounds away counts for the tolerance as a compute type would.
            const int32_t type = variant % 3 == 0 ? QLORA_FORMAT_BF16 : variant % 3 == 1 ? QLORA_FORMAT_F32 : arithmetic.type;
            const int32_t judged = type == QLORA_FORMAT_F32 || arithmetic.compute_type == QLORA_FORMAT_BF16 ? arithmetic.compute_type : type;
            list.push_back({format_name(type) + " from " + name_of(arithmetic) + " " + name_of(shape) + " #" + std::to_string(variant), 0, arithmetic.type, judged, [=](Stage &stage) {
                                qlora_weight_gradient_args args = {};
                                const bool accumulate = variant % 4 > 1;
                                args.compute_type = arithmetic.compute_type;
                                args.flags = accumulate ? QLORA_FLAG_ACCUMULATE_GRADIENTS : 0;
                                auto before = [&](uint64_t count) { return accumulate ? random_values(count, 8) : std::vector<float>(); };
                                args.dy = stage.tensor(arithmetic.type, shape.tokens, shape.rows, random_values(shape.tokens * shape.rows, 2), stride_of(shape.rows, variant, 5));
                                if (variant % 5 < 2) args.saved = stage.weight(host_weight(QLORA_FORMAT_INT8, shape.tokens, shape.cols, block_of(variant)));
                                else args.x = stage.tensor(arithmetic.type, shape.tokens, shape.cols, random_values(shape.tokens * shape.cols, 7), stride_of(shape.cols, variant, 3));
                                args.dw = stage.output("dw", type, shape.rows, shape.cols, stride_of(shape.cols, variant, 1), before(shape.rows * shape.cols));
                                if (variant % 4 != 1) args.dbias = stage.output_floats("dbias", shape.rows, before(shape.rows));
                                stage.run<QLORA_OP_WEIGHT_GRADIENT>(args);
                            }});
        }
    // No tokens and no accumulation: the gradients are zero, not what was there before.
    list.push_back({"f32 no tokens", 0, QLORA_FORMAT_F32, 0, [](Stage &stage) {
                        qlora_weight_gradient_args args = {};
                        args.dy = stage.tensor(QLORA_FORMAT_F32, 0, 24, {});
                        args.x = stage.tensor(QLORA_FORMAT_F32, 0, 65, {});
                        args.dw = stage.output("dw", QLORA_FORMAT_F32, 24, 65, 0, random_values(24 * 65, 6));
                        args.dbias = stage.output_floats("dbias", 24, random_values(24, 8));
                        stage.run<QLORA_OP_WEIGHT_GRADIENT>(args);
                    }});
    return list;
}

} // namespace test
