#include "train.h"

#include "rng.h"

#include <chrono>
#include <cmath>

namespace finetune {

uint64_t RowOrder::at(uint64_t i) {
    if (!shuffle_) return i % rows_;
    if (i / rows_ != epoch_) {
        epoch_ = i / rows_;
        order_.resize(rows_);
        for (uint64_t k = 0; k < rows_; ++k) order_[k] = k;
        // Streams below 2^32 initialise tensors.
        Random(seed_, (uint64_t(1) << 32) + epoch_).shuffle(order_);
    }
    return order_[i % rows_];
}

std::vector<Batch> step_batches(const std::vector<Row> &rows, RowOrder &order, const TrainOptions &options,
                                uint64_t step) {
    std::vector<Batch> batches(options.accumulate);
    uint64_t next = step * options.batch * options.accumulate;
    for (Batch &batch : batches)
        for (uint32_t i = 0; i < options.batch; ++i) batch.add(rows[order.at(next++)]);
    return batches;
}

BatchBounds training_bounds(const std::vector<Row> &rows, const TrainOptions &options) {
    BatchBounds bounds;
    RowOrder order(rows.size(), options.shuffle, options.seed);
    uint64_t next = 0;
    for (uint64_t batch = 0; batch < options.steps * options.accumulate; ++batch) {
        BatchBounds sum;
        for (uint32_t i = 0; i < options.batch; ++i) {
            const Row &packed = rows[order.at(next++)];
            const auto include = [&sum](const Row &row) {
                sum.tokens += row.tokens() - 1;
                sum.losses += row.losses();
                sum.longest = std::max(sum.longest, uint32_t(row.tokens() - 1));
                ++sum.count;
            };
            include(packed);
            for (const Row &row : packed.packed) include(row);
        }
        bounds.include(sum);
    }
    return bounds;
}

Trainer::Trainer(Device &device, Network &network, const Trainable &adapter, const TrainOptions &options)
    : device_(device), network_(network), adapter_(adapter), options_(options),
      optimizer_(device, adapter, options.optimizer, options.optimizer_bytes), norm_(device.take(4)),
      norms_(device.take(4 * adapter.parameters().size())) {
    if (!device.planning() && !options.import_state.empty()) done_ = optimizer_.import_bitsandbytes(options.import_state);
    if (!device.planning() && !options.resume.empty()) done_ = optimizer_.load(options.resume);
    device_.measure([&] { step({}, 0); });
}

StepReport Trainer::step(const std::vector<Batch> &batches, uint64_t number) {
    uint64_t answer_tokens = 0;
    for (const Batch &batch : batches) answer_tokens += batch.losses();
    const float mean = static_cast<float>(1.0 / double(std::max<uint64_t>(answer_tokens, 1)));
    double loss = 0;
    for (size_t i = 0; i < batches.size(); ++i) {
        network_.train(batches[i], options_.sum_gradients ? 1 : mean, i > 0);
        loss += network_.read_loss();
    }

    const std::vector<qlora_parameter> &parameters = adapter_.parameters();
    const float gradient_scale = options_.sum_gradients ? mean : 1;
    auto norm = qlora::make<qlora_gradient_norm_args>();
    norm.parameters = parameters.data();
    norm.parameter_count = static_cast<uint32_t>(parameters.size());
    norm.norm = norm_.span();
    norm.norms = norms_.span();
    norm.gradient_scale = gradient_scale;
    device_.run(QLORA_OP_GRADIENT_NORM, qlora_gradient_norm, norm);

    const double rate =
        options_.learning_rate * schedule_factor(options_.schedule, number, options_.warmup, options_.steps);
    auto update = qlora::make<qlora_optimizer_args>();
    optimizer_.fill(update);
    update.step = number + 1;
    update.norm = norm_.span();
    update.max_norm = options_.clip;
    update.gradient_scale = gradient_scale;
    update.learning_rate = static_cast<float>(rate);
    update.weight_decay = options_.weight_decay;
    device_.run(QLORA_OP_OPTIMIZER_STEP, qlora_optimizer_step, update);

    float gradient_norm = 0;
    device_.read(norm_.span(), &gradient_norm, 4);
    return {number, loss * double(mean), double(gradient_norm), rate, 0};
}

void Trainer::run(const std::vector<Row> &rows, const std::function<void(const StepReport &)> &report) {
    RowOrder order(rows.size(), options_.shuffle, options_.seed);
    const auto start = std::chrono::steady_clock::now();
    uint64_t tokens = 0;
    const uint64_t first = done_;
    for (uint64_t number = first; number < options_.steps; ++number) {
        const std::vector<Batch> batches = step_batches(rows, order, options_, number);
        StepReport result = step(batches, number);
        for (const Batch &batch : batches) tokens += batch.tokens();
        if (!std::isfinite(result.loss) || !std::isfinite(result.gradient_norm))
            fail("step ", number,
                 ": the loss or its gradient is not a finite number any more; lower --learning-rate, or set --compute "
                 "f32");
        done_ = number + 1;
        if (number == first) {
            first_norms_.resize(adapter_.parameters().size());
            device_.read(norms_.span(), first_norms_.data(), first_norms_.size() * 4);
        }
        result.tokens_per_second =
            double(tokens) / std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        report(result);
    }
}

} // namespace finetune
