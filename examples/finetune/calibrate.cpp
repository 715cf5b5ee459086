#include "calibrate.h"

#include "block.h"
#include "format_choice.h"

#include <cmath>

namespace finetune {
namespace {

class Calibrator {
public:
    Calibrator(Device &device, const BaseModel &base, const std::vector<Batch> &windows, const CalibrationPlan &plan)
        : device_(device), base_(base), windows_(windows), plan_(plan), model_(device, base, 0, 0),
          adapter_(device, model_.shape().adapter_shape(1), initial_adapter(model_.shape().adapter_shape(1), 1, 0)) {
        const ModelShape &shape = model_.shape();
        for (const Batch &batch : windows_) bounds_.include(batch);
        const uint64_t widest = std::max({shape.embedding, shape.q_width(), shape.feed_forward});
        hessian_ = qlora::Buffer(device_.context(), widest * widest * sizeof(float));
        outcome_ = qlora::Buffer(device_.context(), std::max(sizeof(qlora_gptq_outcome), sizeof(qlora_spqr_outcome)));
        take_spans();
        arena_.commit(device_);
        take_spans();
        device_.measure([&] {
            Pass pass = pass_of(windows_[0]);
            pass.tokens = bounds_.tokens;
            embed(pass, ids_, hidden_[0]);
            forward_block(pass, 0, space_, hidden_[0], hidden_[0]);
            for (uint64_t cols : {uint64_t(shape.embedding), uint64_t(shape.q_width()), uint64_t(shape.feed_forward)})
                accumulate(pass.view(space_.product, cols), 0);
        });
    }

    HostWeights run(const std::function<void(const CalibrationReport &)> &report) {
        report_ = &report;
        for (size_t i = 0; i < windows_.size(); ++i) {
            Pass pass = upload(windows_[i]);
            embed(pass, ids_, hidden_[i]);
        }
        for (uint32_t layer = 0; layer < model_.shape().layers; ++layer) calibrate_block(layer);
        return std::move(done_);
    }

private:
    void take_spans() {
        const ModelShape &shape = model_.shape();
        hidden_.clear();
        for (const Batch &batch : windows_) hidden_.push_back(arena_.take(batch.tokens() * shape.embedding * 4));
        space_ = take_block_space(arena_, shape, 1, QLORA_FORMAT_F32, bounds_.tokens);
        ids_ = arena_.take(bounds_.tokens * 4);
        positions_ = arena_.take(bounds_.tokens * 4);
        sequences_ = arena_.take(uint64_t(bounds_.count) * 16);
    }

    Pass pass_of(const Batch &batch) {
        return {device_,    model_,     adapter_,      Precision(),   batch.tokens(),
                positions_, sequences_, batch.count(), batch.longest, batch.longest};
    }

    Pass upload(const Batch &batch) {
        device_.write(ids_, batch.ids.data(), batch.tokens() * 4);
        device_.write(positions_, batch.positions.data(), batch.tokens() * 4);
        device_.write(sequences_, batch.sequences.data(), uint64_t(batch.count()) * 16);
        return pass_of(batch);
    }

    void accumulate(const qlora_tensor &x, uint64_t count) {
        auto args = qlora::make<qlora_hessian_args>();
        args.x = x;
        args.hessian = hessian_.span(0, x.cols * x.cols * sizeof(float));
        args.count = count;
        device_.run(QLORA_OP_HESSIAN, qlora_hessian_accumulate, args);
    }

    // Computes every window up to the inputs of some linear layers, and what these inputs have in common.
    template <class Forward> void gather(const Forward &forward) {
        uint64_t count = 0;
        for (size_t i = 0; i < windows_.size(); ++i) {
            Pass pass = upload(windows_[i]);
            const qlora_tensor inputs = forward(pass, hidden_[i]);
            accumulate(inputs, count);
            count += pass.tokens;
        }
    }

    // Where both parts follow each other hidden states are the block's inputs until its middle, which then takes their
    // place, and its outputs at the end.
    void calibrate_block(uint32_t layer) {
        const ModelShape &shape = model_.shape();
        const uint64_t width = shape.embedding;
        const bool sequential = shape.residual == Residual::sequential;
        gather([&](Pass &pass, qlora_span x) { return attention_input(pass, layer, space_, x); });
        for (Linear which : {linear_q, linear_k, linear_v, linear_qkv}) quantize(layer, which);
        gather([&](Pass &pass, qlora_span x) {
            forward_attention(pass, layer, space_, x);
            return pass.view(space_.attended, shape.q_width());
        });
        quantize(layer, linear_output);
        const auto to_middle = [&](Pass &pass, qlora_span x) {
            if (sequential) device_.copy(space_.middle, x, pass.tokens * width * 4);
            else attention_input(pass, layer, space_, x);
        };
        gather([&](Pass &pass, qlora_span x) {
            if (sequential) {
                forward_attention(pass, layer, space_, x);
                forward_output(pass, layer, space_, x);
                device_.copy(x, space_.middle, pass.tokens * width * 4);
            } else to_middle(pass, x);
            return feed_forward_input(pass, layer, space_, x);
        });
        for (Linear which : {linear_gate, linear_up, linear_gate_up}) quantize(layer, which);
        gather([&](Pass &pass, qlora_span x) {
            to_middle(pass, x);
            forward_gated(pass, layer, space_, x);
            return pass.view(space_.product, shape.feed_forward);
        });
        quantize(layer, linear_down);
        for (size_t i = 0; layer + 1 < shape.layers && i < windows_.size(); ++i) {
            Pass pass = upload(windows_[i]);
            if (!sequential) {
                forward_block(pass, layer, space_, hidden_[i], hidden_[i]);
                continue;
            }
            to_middle(pass, hidden_[i]);
            forward_gated(pass, layer, space_, hidden_[i]);
            forward_down(pass, layer, space_, hidden_[i]);
        }
    }

    void quantize(uint32_t layer, Linear which) {
        if (!model_.shape().traits->has(which)) return;
        const BaseTensor &tensor = base_.tensor(gguf_weight_name(layer, which));
        const uint64_t rows = tensor.weight.rows, cols = tensor.weight.cols;
        const PlacedWeight &given = model_.layer(layer).linear[which];
        CalibrationReport report = {std::string(tensor.name), qlora::make<qlora_gptq_outcome>(), 0, 0, rows * cols, 0};
        const qlora_tensor src = qlora::tensor(given.get()->format, rows, cols, given.get()->planes[QLORA_PLANE_CODE]);
        HostWeight done;
        try {
            done = is_spqr(plan_.format) ? calibrated_spqr(src, report) : calibrated_gptq(src, report);
        } catch (const qlora::Error &error) {
            base_.reject("tensor ", shown(tensor.name), " cannot be calibrated: ", error.what());
        }
        report.loss = report.outcome.loss;
        if (*report_) {
            report.nearest_loss = nearest_loss(given, src, report.outcome);
            (*report_)(report);
        }
        model_.replace(layer, which, upload_weight(device_.context(), done));
        done_.emplace(tensor.name, std::move(done));
    }

    HostWeight calibrated_gptq(const qlora_tensor &src, CalibrationReport &report) {
        const qlora::Weight weight(device_.context(), plan_.format, src.rows, src.cols, plan_.block);
        auto args = qlora::make<qlora_quantize_gptq_args>();
        args.flags = plan_.flags;
        args.weight = weight.get();
        args.src = src;
        args.hessian = hessian_.span(0, src.cols * src.cols * sizeof(float));
        args.outcome = outcome_.span();
        args.damping = plan_.damping;
        device_.measure([&] { device_.run(QLORA_OP_QUANTIZE_GPTQ, qlora_weight_quantize_gptq, args); });
        device_.run(QLORA_OP_QUANTIZE_GPTQ, qlora_weight_quantize_gptq, args);
        outcome_.read(&report.outcome, sizeof(report.outcome));
        return download_weight(weight);
    }

    // How many outliers there are is known afterwards: one weight in fifty has room, and if that was too little, all.
    HostWeight calibrated_spqr(const qlora_tensor &src, CalibrationReport &report, uint64_t share = 50) {
        auto shape = qlora::make<qlora_weight>();
        shape.format = plan_.format;
        shape.block = plan_.block;
        shape.rows = src.rows;
        shape.cols = src.cols;
        shape.outliers = src.rows * src.cols / share;
        const qlora::Weight weight(device_.context(), shape);
        auto args = qlora::make<qlora_quantize_spqr_args>();
        args.flags = (plan_.flags & QLORA_FLAG_ACT_ORDER) | QLORA_FLAG_SEARCH;
        args.weight = weight.get();
        args.src = src;
        args.hessian = hessian_.span(0, src.cols * src.cols * sizeof(float));
        args.outcome = outcome_.span();
        args.damping = plan_.damping;
        args.threshold = plan_.threshold;
        device_.measure([&] { device_.run(QLORA_OP_QUANTIZE_SPQR, qlora_weight_quantize_spqr, args); });
        qlora_spqr_outcome outcome;
        try {
            device_.run(QLORA_OP_QUANTIZE_SPQR, qlora_weight_quantize_spqr, args);
        } catch (const qlora::Error &error) {
            if (error.status() != QLORA_ERROR_SHAPE || share == 1) throw;
            return calibrated_spqr(src, report, 1);
        }
        outcome_.read(&outcome, sizeof(outcome));
        report.outcome.method = outcome.method;
        report.outcome.dead_columns = outcome.dead_columns;
        report.outcome.attempts = outcome.attempts;
        report.outcome.damping = outcome.damping;
        report.outcome.floor = outcome.floor;
        report.outcome.loss = outcome.loss;
        report.outliers = outcome.outliers;
        HostWeight host = download_weight(weight);
        shrink_outliers(host, outcome.outliers);
        return host;
    }

    std::vector<float> decoded(const qlora_weight *weight) {
        const uint64_t rows = weight->rows, cols = weight->cols;
        const qlora::Buffer values(device_.context(), rows * cols * sizeof(float));
        auto args = qlora::make<qlora_dequantize_args>();
        args.weight = weight;
        args.dst = qlora::tensor(QLORA_FORMAT_F32, rows, cols, values.span());
        device_.measure([&] { device_.run(QLORA_OP_DEQUANTIZE, qlora_weight_dequantize, args); });
        device_.run(QLORA_OP_DEQUANTIZE, qlora_weight_dequantize, args);
        return values.read<float>();
    }

    // The same loss for the same weight rounded to nearest: 1/2 sum d (H + damping) d^T over the rows d of the error.
    double nearest_loss(const PlacedWeight &given, const qlora_tensor &src, const qlora_gptq_outcome &outcome) {
        const uint64_t rows = src.rows, cols = src.cols;
        const qlora::Weight nearest(device_.context(), plan_.format, rows, cols, plan_.block);
        auto args = qlora::make<qlora_quantize_args>();
        args.flags = is_spqr(plan_.format) ? 0 : plan_.flags & (QLORA_FLAG_SYMMETRIC | QLORA_FLAG_SEARCH);
        args.weight = nearest.get();
        args.src = src;
        device_.measure([&] { device_.run(QLORA_OP_QUANTIZE, qlora_weight_quantize, args); });
        device_.run(QLORA_OP_QUANTIZE, qlora_weight_quantize, args);

        std::vector<float> hessian(cols * cols);
        hessian_.read(hessian.data(), hessian.size() * sizeof(float));
        double mean = 0;
        for (uint64_t c = 0; c < cols; ++c) mean += double(hessian[c * cols + c]) / double(cols);
        std::vector<float> error = decoded(given.get());
        const std::vector<float> after = decoded(nearest.get());
        double squares = 0;
        for (uint64_t i = 0; i < error.size(); ++i) {
            const bool dead = hessian[i % cols * cols + i % cols] == 0;
            error[i] = dead ? 0 : error[i] - after[i];
            squares += double(error[i]) * double(error[i]);
        }

        qlora::Weight symmetric(device_.context(), QLORA_FORMAT_F32, cols, cols);
        symmetric.write_plane(QLORA_PLANE_CODE, hessian.data());
        const qlora::Buffer x(device_.context(), error), y(device_.context(), error.size() * sizeof(float));
        auto product = qlora::make<qlora_matmul_args>();
        product.weight = symmetric.get();
        product.x = qlora::tensor(QLORA_FORMAT_F32, rows, cols, x.span());
        product.y = qlora::tensor(QLORA_FORMAT_F32, rows, cols, y.span());
        product.compute_type = QLORA_FORMAT_F32;
        device_.measure([&] { device_.run(QLORA_OP_MATMUL, qlora_weight_matmul, product); });
        device_.run(QLORA_OP_MATMUL, qlora_weight_matmul, product);
        const std::vector<float> through = y.read<float>();
        double loss = outcome.damping * mean * squares;
        for (uint64_t i = 0; i < error.size(); ++i) loss += double(error[i]) * double(through[i]);
        return loss / 2;
    }

    Device &device_;
    const BaseModel &base_;
    const std::vector<Batch> &windows_;
    const CalibrationPlan &plan_;
    Model model_;
    Trainable adapter_; // its B is zero
    BatchBounds bounds_;
    Arena arena_;
    std::vector<qlora_span> hidden_; // of each window
    BlockSpace space_;
    qlora_span ids_, positions_, sequences_;
    qlora::Buffer hessian_, outcome_;
    HostWeights done_;
    const std::function<void(const CalibrationReport &)> *report_ = nullptr;
};

void check(const BaseModel &base, const Device &device, const CalibrationPlan &plan) {
    if (!is_calibrated(plan.format))
        fail(format_name(plan.format), " has no calibration; expected gptq2, gptq3, gptq4, gptq8, spqr3 or spqr4");
    if (!device.context().operation_supports(is_spqr(plan.format) ? QLORA_OP_QUANTIZE_SPQR : QLORA_OP_QUANTIZE_GPTQ, plan.format, QLORA_FORMAT_F32))
        fail(device.name(), " cannot calibrate; choose cpu or ref");
    const ModelShape &shape = base.shape();
    for (uint32_t layer = 0; layer < shape.layers; ++layer)
        for (Linear which : shape.traits->linears()) {
            const BaseTensor &tensor = base.tensor(gguf_weight_name(layer, which));
            if (!is_float(tensor.weight.format))
                base.reject("tensor ", shown(tensor.own_name), " is ", tensor.type,
                            " already; calibration needs an F32, F16 or BF16 base");
            weight_layout(plan.format, plan.block, tensor.weight.rows, tensor.weight.cols);
        }
}

} // namespace

HostWeights calibrate(Device &device, const BaseModel &base, const std::vector<Batch> &windows, const CalibrationPlan &plan,
                      const std::function<void(const CalibrationReport &)> &report) {
    check(base, device, plan);
    if (windows.empty()) fail("calibration needs at least one window of tokens");
    return Calibrator(device, base, windows, plan).run(report);
}

std::string calibration_line(const CalibrationReport &report) {
    static const char *const methods[] = {"?", "as asked", "damped more", "diagonal raised", "rounded to nearest"};
    const uint32_t method = report.outcome.method <= QLORA_GPTQ_NEAREST ? report.outcome.method : 0;
    char line[256];
    snprintf(line, sizeof(line), "%-24s loss %11.4e  to nearest %11.4e  damping %.2f, %s", report.name.c_str(),
             report.loss, report.nearest_loss, report.outcome.damping, methods[method]);
    std::string text = line;
    if (report.outliers > 0) {
        snprintf(line, sizeof(line), ", %.2f %% outliers", 100 * double(report.outliers) / double(report.weights));
        text += line;
    }
    if (report.outcome.dead_columns > 0) text += ", " + std::to_string(report.outcome.dead_columns) + " dead columns";
    return text;
}

CalibrationDevice::CalibrationDevice(Device &device, uint32_t threads) : device_(device) {
    if (!device.context().operation_supports(QLORA_OP_QUANTIZE_GPTQ, QLORA_FORMAT_GPTQ4, QLORA_FORMAT_F32))
        own_ = std::make_unique<Device>("cpu", threads);
}

} // namespace finetune
