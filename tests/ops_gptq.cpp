// Cases of calibrated quantization.
#include "tests/support/calibrated.h"
#include "tests/support/shapes.h"

#include <stdexcept>

namespace test {

template <> std::vector<Case> cases<QLORA_OP_HESSIAN>() {
    struct Batch {
        uint64_t tokens, cols, count, batch;
    };
    std::vector<Case> list;
    uint32_t variant = 0;
    for (int32_t type : types)
        for (const Batch &one : {Batch{1, 1, 0, 0}, Batch{7, 65, 0, 0}, Batch{0, 31, 3, 2}, Batch{0, 9, 0, 0}, Batch{33, 127, 5, 1}, Batch{130, 64, 0, 4}, Batch{517, 130, 1000, 0}, Batch{1030, 257, 0, 0}})
            for (uint32_t flags : {0u, QLORA_FLAG_WIDE}) {
                variant++;
                list.push_back({format_name(type) + " " + std::to_string(one.tokens) + "x" + std::to_string(one.cols) + " after " + std::to_string(one.count) + " flags " + std::to_string(flags), 0, type, 0,
                                [=](Stage &stage) {
                                    qlora_hessian_args args = {};
                                    args.flags = flags;
                                    args.count = one.count;
                                    args.batch = one.batch;
                                    args.x = stage.tensor(type, one.tokens, one.cols, random_values(one.tokens * one.cols, 2), variant % 3 == 2 ? one.cols + 3 : 0);
                                    const std::vector<double> before = hessian_of(random_values(64 * one.cols, 3), 64, one.cols);
                                    if (!flags) {
                                        std::vector<float> narrow(before.begin(), before.end());
                                        args.hessian = stage.output_floats("hessian", one.cols * one.cols, one.count ? narrow : std::vector<float>());
                                        stage.run<QLORA_OP_HESSIAN>(args);
                                        return;
                                    }
                                    const qlora::Buffer wide(stage.context(), before);
                                    args.hessian = wide.span();
                                    if (stage.run<QLORA_OP_HESSIAN>(args) != QLORA_OK) return;
                                    const std::vector<double> after = wide.read<double>();
                                    stage.output_floats("hessian", after.size(), std::vector<float>(after.begin(), after.end()));
                                }});
            }
    return list;
}

template <> std::vector<Case> cases<QLORA_OP_QUANTIZE_GPTQ>() {
    struct Layer {
        uint64_t rows, cols;
        uint32_t block, flags;
    };
    constexpr uint32_t act = QLORA_FLAG_ACT_ORDER, fixed = QLORA_FLAG_STATIC_GROUPS, lagging = QLORA_FLAG_LAGGING, symmetric = QLORA_FLAG_SYMMETRIC;
    std::vector<Case> list;
    uint32_t variant = 0;
    for (const qlora::FormatRow &row : qlora::format_rows) {
        if (row.codec != qlora::Codec::AFFINE) continue;
        for (int32_t type : types)
            for (const Layer &one : {Layer{1, 1, 1, 0}, Layer{3, 31, 7, act}, Layer{17, 65, 16, act | fixed}, Layer{9, 200, 0, lagging}, Layer{33, 127, 1000, symmetric | act}, Layer{12, 257, 64, fixed | QLORA_FLAG_SEARCH},
                                     Layer{65, 300, 48, act | lagging | symmetric}, Layer{40, 384, 128, act}}) {
                variant++;
                list.push_back({std::string(row.name) + " " + format_name(type) + " " + std::to_string(one.rows) + "x" + std::to_string(one.cols) + " block " + std::to_string(one.block) + " flags " +
                                    std::to_string(one.flags),
                                row.format, type, 0, [=](Stage &stage) {
                                    qlora_quantize_gptq_args args = {};
                                    const bool scattered = (one.flags & act) && !(one.flags & fixed);
                                    args.flags = one.flags | (variant % 2 ? QLORA_FLAG_WIDE : 0);
                                    args.weight = stage.output_weight(row.format, one.rows, one.cols, one.block, scattered ? QLORA_WEIGHT_INDEXED : 0);
                                    args.src = stage.tensor(type, one.rows, one.cols, random_values(one.rows * one.cols, variant, 0.1), variant % 3 == 2 ? one.cols + 3 : 0);
                                    const std::vector<double> h = hessian_of(related_inputs(2 * one.cols, one.cols, 4, 0.7f), 2 * one.cols, one.cols);
                                    const qlora::Buffer wide(stage.context(), h), outcome(stage.context(), sizeof(qlora_gptq_outcome));
                                    args.hessian = variant % 2 ? wide.span() : stage.floats(std::vector<float>(h.begin(), h.end()));
                                    args.outcome = outcome.span();
                                    if (stage.run<QLORA_OP_QUANTIZE_GPTQ>(args) != QLORA_OK) return;
                                    qlora_gptq_outcome found;
                                    outcome.read(&found, sizeof found);
                                    stage.output_floats("loss", 1, {float(found.loss)});
                                    if (found.method != QLORA_GPTQ_DONE) throw std::runtime_error("no factor at the first attempt");
                                }});
            }
    }
    return list;
}

} // namespace test
