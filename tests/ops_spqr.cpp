// Cases of quantize_spqr.
#include "tests/support/calibrated.h"
#include "tests/support/shapes.h"

#include <stdexcept>

namespace test {

template <> std::vector<Case> cases<QLORA_OP_QUANTIZE_SPQR>() {
    struct Layer {
        uint64_t rows, cols;
        uint32_t block, nested_block, flags;
    };
    constexpr uint32_t act = QLORA_FLAG_ACT_ORDER, search = QLORA_FLAG_SEARCH, simplified = QLORA_FLAG_SIMPLIFIED;
    std::vector<Case> list;
    uint32_t variant = 0;
    for (const qlora::FormatRow &row : qlora::format_rows) {
        if (row.codec != qlora::Codec::BILEVEL) continue;
        for (int32_t type : types)
            for (const Layer &one : {Layer{1, 1, 0, 0, 0}, Layer{3, 31, 7, 2, act}, Layer{17, 65, 0, 0, act | simplified}, Layer{9, 200, 150, 64, 0}, Layer{33, 127, 1000, 5, act | search}, Layer{70, 257, 8, 64, simplified},
                                     Layer{49, 300, 0, 0, act | search}, Layer{40, 384, 200, 12, act}}) {
                variant++;
                list.push_back({std::string(row.name) + " " + format_name(type) + " " + std::to_string(one.rows) + "x" + std::to_string(one.cols) + " block " + std::to_string(one.block) + " of " +
                                    std::to_string(one.nested_block) + " flags " + std::to_string(one.flags),
                                row.format, type, 0, [=](Stage &stage) {
                                    qlora_quantize_spqr_args args = {};
                                    args.flags = one.flags | (variant % 2 ? QLORA_FLAG_WIDE : 0);
                                    qlora_weight shape = qlora::make<qlora_weight>();
                                    shape.format = row.format;
                                    shape.rows = one.rows;
                                    shape.cols = one.cols;
                                    shape.block = one.block;
                                    shape.nested_block = one.nested_block;
                                    shape.outliers = one.rows * one.cols;
                                    shape.flags = variant % 5 == 4 ? QLORA_WEIGHT_INDEXED : 0;
                                    args.weight = stage.output_weight(shape);
                                    std::vector<float> w = random_values(one.rows * one.cols, variant, 0.1);
                                    for (size_t i = 0; i < w.size(); i += 61) w[i] *= 9;
                                    args.src = stage.tensor(type, one.rows, one.cols, w, variant % 3 == 2 ? one.cols + 3 : 0);
                                    std::vector<float> x = related_inputs(2 * one.cols, one.cols, 4, 0.7f);
                                    for (size_t i = 0; i < x.size() && variant % 2; i += one.cols) x[i + one.cols / 2] = 0; // a dead column
                                    const std::vector<double> h = hessian_of(x, 2 * one.cols, one.cols);
                                    const qlora::Buffer wide(stage.context(), h), outcome(stage.context(), sizeof(qlora_spqr_outcome));
                                    args.hessian = variant % 2 ? wide.span() : stage.floats(std::vector<float>(h.begin(), h.end()));
                                    args.outcome = outcome.span();
                                    args.threshold = variant % 4 == 3 ? 0.05f : 0;
                                    if (stage.run<QLORA_OP_QUANTIZE_SPQR>(args) != QLORA_OK) return;
                                    qlora_spqr_outcome found;
                                    outcome.read(&found, sizeof found);
                                    stage.output_floats("loss, limit, outliers", 3, {float(found.loss), float(found.limit), float(found.outliers)});
                                    if (found.method != QLORA_GPTQ_DONE) throw std::runtime_error("no factor at the first attempt");
                                }});
            }
    }
    return list;
}

} // namespace test
