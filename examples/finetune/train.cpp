#include "train.h"

#include "rng.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <map>
#include <tuple>

namespace finetune {
namespace {

const uint64_t mask_stream = uint64_t(4) << 32; // of random numbers, one a batch of a step

// Calls visit(shape) for every batch of a run.
template <class Visit> void each_shape(const std::vector<Row> &rows, const TrainOptions &options, Visit &&visit) {
    RowOrder order(rows.size(), options.shuffle, options.seed);
    uint64_t next = 0;
    for (uint64_t batch = 0; batch < options.steps * options.accumulate; ++batch) {
        BatchShape shape;
        const auto include = [&shape](const Row &row) {
            shape.tokens += row.tokens() - 1;
            shape.losses += row.losses();
            shape.longest = std::max(shape.longest, uint32_t(row.tokens() - 1));
            ++shape.count;
        };
        for (uint32_t i = 0; i < options.batch; ++i) {
            const Row &packed = rows[order.at(next++)];
            include(packed);
            for (const Row &row : packed.packed) include(row);
        }
        shape.accumulate = batch % options.accumulate != 0;
        visit(shape);
    }
}

} // namespace

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
    each_shape(rows, options, [&](const BatchShape &shape) {
        bounds.include(BatchBounds{shape.tokens, shape.losses, shape.count, shape.longest});
    });
    return bounds;
}

std::vector<BatchShape> common_shapes(const std::vector<Row> &rows, const TrainOptions &options, size_t most) {
    std::map<std::tuple<uint64_t, uint64_t, uint32_t, uint32_t, bool>, uint64_t> counts;
    uint64_t batches = 0, covered = 0;
    each_shape(rows, options, [&](const BatchShape &shape) {
        ++counts[{shape.tokens, shape.losses, shape.count, shape.longest, shape.accumulate}];
        ++batches;
    });
    std::vector<std::pair<uint64_t, BatchShape>> often;
    for (const auto &[shape, count] : counts)
        if (count >= 3) often.push_back({count, std::apply([](auto... parts) { return BatchShape{parts...}; }, shape)});
    std::stable_sort(often.begin(), often.end(), [](const auto &a, const auto &b) { return a.first > b.first; });
    if (often.size() > most) often.resize(most);
    std::vector<BatchShape> shapes;
    for (const auto &[count, shape] : often) {
        shapes.push_back(shape);
        covered += count;
    }
    if (covered * 4 < batches) shapes.clear();
    return shapes;
}

Trainer::Trainer(Device &device, Network &network, const Trainable &adapter, const TrainOptions &options)
    : device_(device), network_(network), adapter_(adapter), options_(options),
      optimizer_(device, adapter, options.optimizer, options.optimizer_bytes), norm_(device.take(4)),
      norms_(device.take(4 * adapter.parameters().size())) {
    if (!device.planning() && !options.import_state.empty()) state_.step = optimizer_.import_bitsandbytes(options.import_state);
    if (!device.planning() && !options.resume.empty()) load_state(options.resume);
    device_.measure([&] { step({}, 0); });
}

bool StepReport::is_finite() const { return std::isfinite(loss) && std::isfinite(gradient_norm); }

StepReport Trainer::step(const std::vector<Batch> &batches, uint64_t number) {
    uint64_t answer_tokens = 0;
    for (const Batch &batch : batches) answer_tokens += batch.losses();
    const double mean = 1.0 / double(std::max<uint64_t>(answer_tokens, 1));
    const float scale = options_.scale_loss ? state_.scale.value : 1;
    StepReport report = {number};
    report.loss_scale = scale;
    for (size_t i = 0; i < batches.size(); ++i) {
        network_.train(batches[i], static_cast<float>(double(scale) * mean), i > 0,
                       Random(options_.seed, mask_stream + i).at(number));
        report.loss += network_.read_loss();
        report.tokens += batches[i].tokens();
    }
    report.loss *= mean;

    const std::vector<qlora_parameter> &parameters = adapter_.parameters();
    auto norm = qlora::make<qlora_gradient_norm_args>();
    norm.parameters = parameters.data();
    norm.parameter_count = static_cast<uint32_t>(parameters.size());
    norm.norm = norm_.span();
    norm.norms = norms_.span();
    norm.gradient_scale = 1 / scale;
    device_.run(QLORA_OP_GRADIENT_NORM, qlora_gradient_norm, norm);

    report.learning_rate =
        options_.learning_rate * schedule_factor(options_.schedule, number, options_.warmup, options_.steps);
    auto update = qlora::make<qlora_optimizer_args>();
    optimizer_.fill(update);
    update.flags |= QLORA_FLAG_SKIP_STEP; // where the norm is not finite
    update.step = number + 1 - state_.skipped;
    update.norm = norm_.span();
    update.max_norm = options_.clip;
    update.gradient_scale = 1 / scale;
    update.learning_rate = static_cast<float>(report.learning_rate);
    update.weight_decay = options_.weight_decay;
    if (std::isfinite(report.loss)) device_.run(QLORA_OP_OPTIMIZER_STEP, qlora_optimizer_step, update);

    float gradient_norm = 0;
    device_.read(norm_.span(), &gradient_norm, 4);
    report.gradient_norm = double(gradient_norm);
    report.skipped = !report.is_finite();
    return report;
}

StepReport Trainer::advance(const std::vector<Row> &rows, RowOrder &order) {
    const auto start = std::chrono::steady_clock::now();
    const uint64_t number = state_.step;
    StepReport report = step(step_batches(rows, order, options_, number), number);
    ++state_.step;
    if (report.skipped) ++state_.skipped;
    if (options_.scale_loss) state_.scale.update(!report.skipped);
    if (first_norms_.empty()) {
        first_norms_.resize(adapter_.parameters().size());
        device_.read(norms_.span(), first_norms_.data(), first_norms_.size() * 4);
    }
    tokens_ += report.tokens;
    seconds_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    report.tokens_per_second = double(tokens_) / std::max(seconds_, 1e-9);
    return report;
}

void Trainer::save_state(const std::string &path, const std::string &notes) const {
    optimizer_.save(path, state_.step, {{"skipped", std::to_string(state_.skipped)},
                                        {"loss_scale", std::to_string(state_.scale.value)},
                                        {"loss_scale_steps", std::to_string(state_.scale.steps)},
                                        {"notes", notes}});
}

std::string Trainer::load_state(const std::string &path) {
    std::map<std::string, std::string> extra;
    state_ = {};
    state_.step = optimizer_.load(path, &extra);
    if (!extra["skipped"].empty()) state_.skipped = strtoull(extra["skipped"].c_str(), nullptr, 10);
    if (!extra["loss_scale"].empty()) state_.scale.value = strtof(extra["loss_scale"].c_str(), nullptr);
    if (!extra["loss_scale_steps"].empty()) state_.scale.steps = strtoull(extra["loss_scale_steps"].c_str(), nullptr, 10);
    return extra["notes"];
}

} // namespace finetune
