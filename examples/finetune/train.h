// Steps: which rows one takes, the step itself, and what it reports.
#pragma once

#include "loss_scale.h"
#include "network.h"
#include "optimizer.h"
#include "schedule.h"

namespace finetune {

struct TrainOptions {
    uint32_t batch = 16;     // rows computed at a time
    uint32_t accumulate = 1; // such batches added up in one step
    uint64_t steps = 0;
    bool shuffle = true;
    uint64_t seed = 1;
    Schedule schedule = Schedule::cosine;
    uint64_t warmup = 0;
    float learning_rate = 1e-4f, weight_decay = 0, clip = 1;
    OptimizerChoice optimizer;
    uint64_t optimizer_bytes = 0;      // of device memory for the optimizer's state; 0: no bound
    std::string resume, import_state; // state files to begin with
    float dropout = 0; // of the adapters' inputs
    bool scale_loss = false;          // f16: gradients are kept large enough for the type
};

// The rows of a run in order: epoch after epoch, each shuffled by its own stream of random numbers, or as in the file.
class RowOrder {
public:
    RowOrder(uint64_t rows, bool shuffle, uint64_t seed) : rows_(rows), shuffle_(shuffle), seed_(seed) {}
    uint64_t at(uint64_t i);

private:
    uint64_t rows_;
    bool shuffle_;
    uint64_t seed_;
    uint64_t epoch_ = UINT64_MAX;
    std::vector<uint64_t> order_;
};

// The batches of one step.
std::vector<Batch> step_batches(const std::vector<Row> &rows, RowOrder &order, const TrainOptions &options,
                                uint64_t step);
// What the largest batch of the whole run needs.
BatchBounds training_bounds(const std::vector<Row> &rows, const TrainOptions &options);
// Shapes of batches that come three times or more, the most frequent first, at most `most`; none unless they are a good part of all
// batches.
std::vector<BatchShape> common_shapes(const std::vector<Row> &rows, const TrainOptions &options, size_t most = 4);

struct StepReport {
    uint64_t step;            // from 0
    double loss = 0;          // mean over the answer tokens of all batches of the step
    double gradient_norm = 0; // before clipping
    double learning_rate = 0;
    double tokens_per_second = 0; // since this process began
    uint64_t tokens = 0;          // of this step
    bool skipped = false;         // something was not finite: values and state stayed as they were
    float loss_scale = 1;

    bool is_finite() const;
};

// Where training stands: with the adapter and the optimizer's state all that the next step depends on. Rows and masks are
// functions of the seed and the step.
struct TrainState {
    uint64_t step = 0;    // steps done
    uint64_t skipped = 0; // of them: the optimizer has not counted these
    LossScale scale;
};

class Trainer {
public:
    Trainer(Device &device, Network &network, const Trainable &adapter, const TrainOptions &options);

    // The next step. `order` is that of `rows`. A step that is not finite changes nothing but the state's counts.
    StepReport advance(const std::vector<Row> &rows, RowOrder &order);

    const TrainState &state() const { return state_; }
    // Values and state, to go on from later; `notes` is a text that comes back with load_state.
    void save_state(const std::string &path, const std::string &notes = "") const;
    std::string load_state(const std::string &path);
    Optimizer &optimizer() { return optimizer_; }

    // Norms of the gradients of the first step, in the order of Trainable::parameters().
    const std::vector<float> &first_norms() const { return first_norms_; }

private:
    StepReport step(const std::vector<Batch> &batches, uint64_t number);

    Device &device_;
    Network &network_;
    const Trainable &adapter_;
    TrainOptions options_;
    Optimizer optimizer_;
    TrainState state_;
    uint64_t tokens_ = 0; // and seconds, of this process
    double seconds_ = 0;
    Memory norm_, norms_;
    std::vector<float> first_norms_;
};

} // namespace finetune
