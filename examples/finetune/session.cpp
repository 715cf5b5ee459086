#include "session.h"

#include "adapter_file.h"
#include "calibrate.h"
#include "evaluate.h"
#include "exit_codes.h"
#include "format_choice.h"
#include "planner.h"
#include "report.h"
#include "html_report.h"
#include "run_flags.h"
#include "targets.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>

namespace finetune {
namespace {

struct Inputs {
    BaseModel base;
    const ModelShape &shape;
    std::unique_ptr<Tokenizer> tokenizer; // null when only token ids are used and the model has another kind
    int32_t end_token = -1;
    std::optional<Dataset> train, eval;
    std::vector<int32_t> perplexity_ids;
    TrainOptions plan;

    explicit Inputs(const Options &options);
};

Inputs::Inputs(const Options &options) : base(options.model), shape(base.shape()), plan(options.train) {
    const bool needs_text = !options.data.empty() || !options.eval_data.empty();
    tokenizer = base.tokenizer(needs_text);
    end_token = base.end_token();
    const uint64_t sequence = options.sequence == 0 ? shape.context : options.sequence;
    if (sequence > shape.context || sequence < 2)
        fail("--sequence ", sequence, ": expected 2 to ", shape.context, ", the model's context length");
    if (options.window > shape.context && !options.perplexity_ids.empty())
        fail("--window ", options.window, ": more than the model's context length ", shape.context);

    const DataLimits limits = {sequence, shape.vocabulary, options.too_long, options.strict};
    if (!options.data.empty()) train = read_data(options.data, *tokenizer, limits, options.chat_template);
    if (!options.train_ids.empty()) train = read_token_ids(options.train_ids, limits);
    if (!options.eval_data.empty()) eval = read_data(options.eval_data, *tokenizer, limits, options.chat_template);
    if (!options.eval_ids.empty()) eval = read_token_ids(options.eval_ids, limits);
    if (options.eval_fraction > 0) eval = split_off(*train, options.eval_fraction, options.train.seed);
    if (train && options.pack > 0) pack(*train, options.pack);
    if (eval && options.eval_rows > 0 && options.eval_rows < eval->rows.size()) eval->rows.resize(options.eval_rows);
    if (!options.perplexity_ids.empty()) {
        perplexity_ids = read_token_sequence(options.perplexity_ids, shape.vocabulary);
        if (options.perplexity_tokens > 0 && options.perplexity_tokens < perplexity_ids.size())
            perplexity_ids.resize(options.perplexity_tokens);
        if (perplexity_ids.size() < options.window)
            fail(options.perplexity_ids, ": shorter than one window of ", options.window, " tokens");
    }
    if (!train) plan.steps = 0;
    else if (!options.steps_given) {
        const double rows = options.epochs * double(train->rows.size());
        plan.steps = static_cast<uint64_t>(std::ceil(rows / double(plan.batch) / double(plan.accumulate)));
    }
    plan.scale_loss =
        options.precision().compute == QLORA_FORMAT_F16 || options.precision().activations == QLORA_FORMAT_F16;
}

AdapterShape targeted(AdapterShape shape, const std::string &targets) {
    choose_targets(shape, targets);
    return shape;
}

Adapter first_adapter(const Options &options, const BaseModel &base, const AdapterShape &shape) {
    // Files know alpha / rank only: rsLoRA's alpha / sqrt(rank) is that of a larger alpha.
    const float alpha = options.rslora ? options.alpha * std::sqrt(float(options.rank)) : options.alpha;
    Adapter fresh = initial_adapter(shape, alpha, options.train.seed);
    if (options.adapter_init.empty()) return fresh;
    Adapter adapter = starting_adapter(read_adapter_file(options.adapter_init, double(alpha)), base, shape, std::move(fresh));
    if (options.alpha_given) adapter.alpha = alpha;
    return adapter;
}

void check_device(const Device &device, const Precision &precision) {
    for (uint32_t operation : {QLORA_OP_RMS_NORM, QLORA_OP_ROPE, QLORA_OP_SWIGLU, QLORA_OP_ATTENTION})
        if (!device.context().operation_supports(operation, 0, precision.activations))
            fail(device.name(), " cannot compute with ", qlora::format_query(precision.activations).name,
                 " activations; choose --activations f32");
}

const char *const head_flag = "--quant-head", *const rows_flag = "--logits-rows", *const kept_flag = "--keep-layers";

void print_samples(const std::vector<Sample> &samples) {
    for (size_t i = 0; i < samples.size(); ++i)
        printf("sample %zu\n  prompt    %s\n  expected  %s\n  before    %s\n  after     %s\n", i + 1, one_line(samples[i].prompt).c_str(),
               one_line(samples[i].expected).c_str(), one_line(samples[i].before).c_str(), one_line(samples[i].after).c_str());
}

class Session {
public:
    explicit Session(const Options &options)
        : options_(options), in_(options), folder_(open_folder()), adapter_shape_(targeted(in_.shape.adapter_shape(options.rank), options.targets)),
          initial_(first_adapter(options, in_.base, adapter_shape_)), device_(options.device, options.threads),
          budget_(find_budget(device_, options.memory)) {}

    int run();
    // What run() would take, and the longest sequence and the largest rank that fit.
    void plan();

private:
    // Null without one. What decides results is compared before anything is computed.
    std::unique_ptr<RunFolder> open_folder();
    // What the planner chose and decides last bits is chosen again when a run goes on, whatever memory there is then.
    void keep_choices(const RunFlags &began);
    Task task();
    // Without --quant, a base of floats becomes nf4-dq and a quantized base stays as it is.
    void choose_format(Task &task);
    void calibrate_weights(Task &task, const FormatChoice &choice);
    BatchBounds evaluation_bounds(uint64_t tokens) const;
    // --graph on is an Error where nothing would be recorded.
    void check_graphs(const Task &task, const MemoryPlan &plan) const;
    void prepare();
    void print_plan(const Task &task, const MemoryPlan &plan, const Machine &machine) const;
    void print_chat(Task task);
    void print_use() const;
    double perplexity();
    std::optional<double> eval_loss();
    // Answers held-out rows; returns the share that is exactly right and keeps the first for samples.
    double exact_match(std::vector<std::vector<int32_t>> *answers);
    std::vector<Sample> samples(const std::vector<std::vector<int32_t>> &before,
                                const std::vector<std::vector<int32_t>> &after) const;
    std::string text_of(const std::vector<int32_t> &ids) const;
    RunEnd train();
    void save_adapter();

    uint32_t generated_rows() const {
        return in_.eval ? uint32_t(std::min<uint64_t>(std::max(options_.exact_match, options_.samples),
                                                      in_.eval->rows.size()))
                        : 0;
    }

    const Options &options_;
    MemoryOptions memory_ = options_.memory;
    Inputs in_;
    RunFlags flags_;
    std::unique_ptr<RunFolder> folder_;
    AdapterShape adapter_shape_;
    Adapter initial_;
    Device device_;
    Budget budget_;
    HostWeights ready_; // calibrated weights
    std::unique_ptr<Machine> machine_;
    uint64_t planned_ = 0;
    std::vector<Batch> eval_batches_, window_batches_;
    Metrics metrics_;
};

std::unique_ptr<RunFolder> Session::open_folder() {
    if (options_.run.folder.empty() || in_.plan.steps == 0 || options_.plan_only) return nullptr;
    flags_ = run_flags(options_, in_.plan, in_.base, *in_.train, in_.eval ? &*in_.eval : nullptr);
    auto folder = std::make_unique<RunFolder>(options_.run.folder, options_.run.resume);
    if (options_.run.resume) {
        keep_choices(first_flags(*folder));
        check_same_run(*folder, flags_);
    }
    if (!folder->checkpoints().steps().empty()) in_.plan.import_state.clear(); // it is in the checkpoint
    return folder;
}

void Session::keep_choices(const RunFlags &began) {
    const auto head = began.find(head_flag), rows = began.find(rows_flag), kept = began.find(kept_flag);
    if (!memory_.head && head != began.end()) memory_.head = head->second;
    if (!memory_.chunk_rows && rows != began.end()) memory_.chunk_rows = uint32_t(strtoul(rows->second.c_str(), nullptr, 10));
    if (!memory_.kept_layers && kept != began.end()) memory_.kept_layers = uint32_t(strtoul(kept->second.c_str(), nullptr, 10));
    if (memory_.kept_layers) flags_[kept_flag] = std::to_string(*memory_.kept_layers);
    if (memory_.head) flags_[head_flag] = *memory_.head;
    if (memory_.chunk_rows) flags_[rows_flag] = std::to_string(*memory_.chunk_rows);
}

void Session::choose_format(Task &task) {
    FormatChoice choice = options_.format();
    if (options_.quant.empty() && in_.base.is_plain()) choice.format = QLORA_FORMAT_NF4_DQ;
    if (options_.quant.empty()) choice.block = options_.quant_block;
    task.integers = choice.integers;
    task.model.format = choice.format;
    task.model.block = choice.block;
    task.model.scaled = choice.scaled;
    if (!options_.plan_only && options_.calibrates(choice)) calibrate_weights(task, choice);
}

void Session::calibrate_weights(Task &task, const FormatChoice &choice) {
    const std::vector<Batch> windows = calibration_windows(options_.calibrate, options_.calibrate_tokens, in_.base);
    CalibrationDevice calibrating(device_, options_.threads);
    printf("calibration with %zu windows of %llu tokens of %s on %s\n", windows.size(),
           static_cast<unsigned long long>(windows[0].tokens()), options_.calibrate.c_str(),
           (*calibrating).name().c_str());
    ready_ = calibrate(*calibrating, in_.base, windows, {choice.format, choice.block}, [](const CalibrationReport &report) {
        printf("  %s\n", calibration_line(report).c_str());
        fflush(stdout);
    });
    task.model = {};
    task.model.ready = &ready_;
}

BatchBounds Session::evaluation_bounds(uint64_t tokens) const {
    BatchBounds bounds = bounds_of(pack_windows(in_.perplexity_ids, options_.window, tokens));
    if (in_.eval) bounds.include(bounds_of(pack_rows(in_.eval->rows, tokens)));
    return bounds;
}

Task Session::task() {
    Task task;
    task.precision = options_.precision();
    check_device(device_, task.precision);
    choose_format(task);
    task.adapter_shape = adapter_shape_;
    task.initial = &initial_;
    task.alpha = initial_.alpha;
    task.options = in_.plan;
    task.options.steps = std::max<uint64_t>(1, in_.plan.steps); // a plan without rows has one
    task.training = in_.plan.steps > 0 || options_.plan_only;
    if (in_.plan.steps > 0) {
        task.training_bounds = training_bounds(in_.train->rows, in_.plan);
        if (memory_.graphs.value_or(true)) task.common_shapes = common_shapes(in_.train->rows, in_.plan);
    }
    if (options_.plan_only && !in_.train) {
        const uint32_t sequence = uint32_t(options_.sequence == 0 ? in_.shape.context : options_.sequence);
        task.training_bounds.tokens = task.training_bounds.losses = uint64_t(sequence) * options_.train.batch;
        task.training_bounds.count = options_.train.batch;
        task.training_bounds.longest = sequence;
    }
    // Evaluation shares the training's memory, so it takes as many tokens at a time as fit there.
    if (in_.eval || !in_.perplexity_ids.empty())
        task.evaluation_bounds = [this](uint64_t tokens) { return evaluation_bounds(tokens); };
    task.answers = generated_rows();
    if (in_.eval) task.answer_rows = &in_.eval->rows;
    return task;
}

void Session::check_graphs(const Task &task, const MemoryPlan &plan) const {
    if (!memory_.graphs.value_or(false) || in_.plan.steps == 0) return;
    const auto refuse = [](const auto &...why) { fail("--graph on: ", why..., "; use --graph auto"); };
    if (!device_.records()) refuse(device_.name(), " records no graphs");
    if (in_.plan.dropout > 0) refuse("the masks of --lora-dropout change in every step");
    if (plan.choice.streamed_layers > 0) refuse("weights of ", plan.choice.streamed_layers, " layers stream from host memory");
    if (plan.choice.offload) refuse("inputs of the layers wait in host memory");
    if (task.common_shapes.empty()) refuse("no shape of a batch comes often enough to be recorded");
}

void Session::prepare() {
    const Task task = this->task();
    const MemoryPlan plan = make_plan(device_, in_.base, task, memory_, budget_);
    if (plan.fits()) check_graphs(task, plan);
    flags_[head_flag] = plan.choice.head_format == 0 ? "none" : format_name(plan.choice.head_format);
    flags_[rows_flag] = std::to_string(plan.choice.chunk_rows);
    flags_[kept_flag] = std::to_string(plan.choice.kept_layers);
    machine_ = carry_out(device_, in_.base, task, memory_, plan);
    planned_ = plan.device_bytes;
    const uint64_t tokens = std::max(plan.choice.eval_tokens, task.training_bounds.tokens);
    if (in_.eval) eval_batches_ = pack_rows(in_.eval->rows, tokens);
    window_batches_ = pack_windows(in_.perplexity_ids, options_.window, tokens);
    print_plan(task, plan, *machine_);
}

void Session::plan() {
    const Task task = this->task();
    const MemoryPlan plan = make_plan(device_, in_.base, task, memory_, budget_);
    device_.plan();
    { const Machine dry(device_, in_.base, task, plan.choice);
    print_plan(task, plan, dry); }
    if (budget_.limit == 0) {
        printf("  fits         no bound is known; give --memory to see what fits\n");
        print_chat(task);
        return;
    }
    const Largest largest = find_largest(device_, in_.base, task, memory_, plan, in_.shape.context);
    const auto show = [](const char *name, uint64_t as_planned, uint64_t by_all_means) {
        printf("  %-12s %llu as planned, %llu by all means\n", name, static_cast<unsigned long long>(as_planned),
               static_cast<unsigned long long>(by_all_means));
    };
    show("sequence", largest.sequence[0], largest.sequence[1]);
    show("rank", largest.rank[0], largest.rank[1]);
    print_chat(task);
    if (!plan.fits() || !plan.fits_host()) reject_plan(device_, in_.base, task, memory_, plan);
}

// What a conversation with the result would take.
void Session::print_chat(Task task) {
    task.training = false;
    task.training_bounds = {};
    task.evaluation_bounds = nullptr;
    task.answers = 0;
    task.context = std::min(in_.shape.context, usual_context);
    MemoryOptions options; // of what decides about a conversation, too
    options.host_embedding = memory_.host_embedding;
    options.head = memory_.head;
    const MemoryPlan plan = make_plan(device_, in_.base, task, options, budget_);
    printf("  chat         %s with a context of %u tokens", readable_bytes(plan.bytes() + budget_.overhead).c_str(), plan.context);
    if (plan.choice.streamed_layers > 0) printf("; %u of %u layers stream for each token", plan.choice.streamed_layers, plan.layers);
    printf("%s\n", plan.fits() && plan.fits_host() ? "" : ", which does not fit");
}

void Session::print_plan(const Task &task, const MemoryPlan &plan, const Machine &machine) const {
    const ModelShape &shape = in_.shape;
    uint64_t parameters = 0;
    for (const BaseTensor &tensor : in_.base.tensors()) parameters += tensor.elements;
    printf("plan\n");
    printf("  model        %s: %s, %u layers of %u, %s parameters, vocabulary %u\n", options_.model.c_str(),
           shape.traits->gguf, shape.layers, shape.embedding, readable_count(parameters).c_str(),
           shape.vocabulary);
    printf("  device       %s, products in %s\n", device_.name().c_str(), options_.compute.c_str());
    printf("  base         linear layers %s, %s in all\n", machine.model.linear_format().c_str(),
           readable_bytes(machine.model.linear_bytes()).c_str());
    printf("  adapter      rank %u, alpha %g, %s trained values\n", options_.rank, double(initial_.alpha),
           readable_count(machine.trainable.count()).c_str());
    if (in_.train) {
        printf("  training     %s\n  lengths      %s\n", describe(*in_.train).c_str(),
               describe_lengths(*in_.train).c_str());
        if (in_.tokenizer)
            printf("  first row    %s\n               (learned: between \xe2\x9f\xa6 and \xe2\x9f\xa7)\n",
                   one_line(marked(in_.train->rows[0], *in_.tokenizer, 400)).c_str());
        printf("  steps        %llu of %u x %u rows, learning rate %g\n",
               static_cast<unsigned long long>(in_.plan.steps), in_.plan.batch, in_.plan.accumulate,
               double(in_.plan.learning_rate));
    } else if (task.training) {
        printf("  training     %u rows of %u tokens at a time\n", task.training_bounds.count, task.training_bounds.longest);
    }
    if (in_.eval)
        printf("  held out     %s\n", options_.eval_fraction > 0
                                           ? (std::to_string(in_.eval->rows.size()) + " of the training rows").c_str()
                                           : describe(*in_.eval).c_str());
    finetune::print_plan(plan, machine.model);
    fflush(stdout);
}

// What the arena gave, and what the device says of everyone's use of it.
void Session::print_use() const {
    const qlora_context_info info = device_.context().query();
    printf("memory       %s used of %s planned", readable_bytes(device_.used_bytes()).c_str(), readable_bytes(planned_).c_str());
    if (info.memory_free_bytes > 0 && (info.backend == QLORA_BACKEND_CUDA || info.backend == QLORA_BACKEND_VULKAN))
        printf("; with driver and context %s planned, the device has %s in use",
               readable_bytes(planned_ + budget_.overhead).c_str(),
               readable_bytes(info.memory_bytes - info.memory_free_bytes).c_str());
    printf("\n");
    const StepGraphs::Use graphs = machine_->network->graphs().use();
    if (!graphs.failure.empty()) printf("graphs       given up: %s\n", graphs.failure.c_str());
    if (graphs.graphs > 0)
        printf("graphs       %llu recorded, %llu nodes in %s; %llu of %llu batches replayed\n", static_cast<unsigned long long>(graphs.graphs),
               static_cast<unsigned long long>(graphs.nodes), readable_bytes(graphs.bytes).c_str(), static_cast<unsigned long long>(graphs.replayed),
               static_cast<unsigned long long>(graphs.batches));
}

double Session::perplexity() { return std::exp(mean_loss(*machine_->network, window_batches_)); }

std::optional<double> Session::eval_loss() {
    if (!in_.eval) return {};
    return mean_loss(*machine_->network, eval_batches_);
}

std::string Session::text_of(const std::vector<int32_t> &ids) const {
    if (in_.tokenizer) return in_.tokenizer->decode(ids);
    std::string text;
    for (int32_t id : ids) text += (text.empty() ? "" : " ") + std::to_string(id);
    return text;
}

double Session::exact_match(std::vector<std::vector<int32_t>> *answers) {
    const std::vector<Row> &rows = in_.eval->rows;
    *answers = finetune::answer_rows(*machine_->generator, rows, generated_rows(), in_.end_token);
    const size_t count = std::min<size_t>(options_.exact_match, answers->size());
    uint32_t right = 0;
    for (size_t i = 0; i < count; ++i) right += is_right(rows[i], (*answers)[i], in_.tokenizer.get(), in_.end_token);
    return double(right) / double(std::max<size_t>(1, count));
}

std::vector<Sample> Session::samples(const std::vector<std::vector<int32_t>> &before,
                                     const std::vector<std::vector<int32_t>> &after) const {
    std::vector<Sample> list;
    for (uint32_t i = 0; i < std::min<uint64_t>(options_.samples, after.size()); ++i) {
        const Row &row = in_.eval->rows[i];
        list.push_back({text_of(row.prompt), text_of(row.first_answer()), text_of(before[i]), text_of(after[i])});
    }
    return list;
}

RunEnd Session::train() {
    if (folder_) write_text(folder_->file("config.toml"), options_.config_text); // not before everything else was found to be right
    const TrainingTask task = {device_, *machine_->network, machine_->trainable, *machine_->trainer, in_.plan, in_.train->rows, eval_batches_,
                               flags_, planned_ + budget_.overhead, budget_.limit};
    TrainingRun run(task, options_.run, folder_.get());
    Trainer &trainer = run.trainer();
    printf("optimizer    %s, %s of state on the device, %s in host memory\n", trainer.optimizer().name().c_str(),
           readable_bytes(trainer.optimizer().device_bytes()).c_str(), readable_bytes(trainer.optimizer().host_bytes()).c_str());
    const auto start = std::chrono::steady_clock::now();
    if (folder_ && metrics_.eval_before && trainer.state().step == 0)
        folder_->log({{"step", 0}, {"validation_loss", *metrics_.eval_before}});
    const RunEnd end = run.run([&](const StepReport &report) { metrics_.train.push_back(report); });
    metrics_.train_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    metrics_.norms_step0 = trainer.first_norms();
    metrics_.eval_after = run.last_validation();
    for (size_t i = 0; i < adapter_shape_.pairs(); ++i)
        for (const char *half : {"lora_A", "lora_B"})
            metrics_.norm_names.push_back(adapter_shape_.peft_name(i, half, "default."));
    printf("trained in %.1f s\n", metrics_.train_seconds);
    print_use();
    const std::optional<double> best = run.watchdog().best_validation();
    if (folder_ && best)
        printf("best validation loss %.4f at step %llu: %s\n", *best, static_cast<unsigned long long>(run.watchdog().best_step()),
               folder_->checkpoints().path(run.watchdog().best_step()).c_str());
    // A folder holds a checkpoint of it; without one the adapter comes before all else that may fail.
    if (end != RunEnd::interrupted || !folder_) save_adapter();
    if (!options_.save_state.empty()) {
        trainer.save_state(options_.save_state);
        printf("state written to %s\n", options_.save_state.c_str());
    }
    return end;
}

void Session::save_adapter() {
    if (options_.out.empty()) return;
    const Adapter trained = machine_->trainable.download(device_);
    const std::string ending = ".safetensors";
    const bool peft =
        options_.out.size() > ending.size() && options_.out.substr(options_.out.size() - ending.size()) == ending;
    if (peft) write_adapter_peft(options_.out, trained, adapter_shape_);
    else write_adapter_gguf(options_.out, trained, adapter_shape_);
    printf("adapter written to %s\n", options_.out.c_str());
}

int Session::run() {
    prepare();
    metrics_.device = device_.name();
    metrics_.quant = machine_->model.linear_format();
    if (!window_batches_.empty()) {
        metrics_.perplexity = perplexity();
        printf("perplexity before training %.4f over %s tokens\n", *metrics_.perplexity,
               readable_count(in_.perplexity_ids.size()).c_str());
        fflush(stdout);
    }
    std::vector<std::vector<int32_t>> answers_before, answers_after;
    if ((metrics_.eval_before = eval_loss())) printf("held-out answer loss before %.4f\n", *metrics_.eval_before);
    if (machine_->generator) {
        const double share = exact_match(&answers_before);
        if (options_.exact_match > 0) metrics_.match_before = share;
    }
    if (metrics_.match_before) printf("held-out exact match before %.1f %%\n", 100 * *metrics_.match_before);
    fflush(stdout);
    if (in_.plan.steps > 0) {
        if (train() == RunEnd::interrupted) {
            // The folder holds a checkpoint; without one, what there is so far goes where the whole would have gone.
            if (folder_) printf("interrupted; go on with --resume %s\n", folder_->path().c_str());
            else if (!options_.metrics.empty()) metrics_.save(options_.metrics);
            return exit_interrupted;
        }
        if (!metrics_.eval_after) metrics_.eval_after = eval_loss();
        if (metrics_.eval_after)
            printf("held-out answer loss  before %.4f  after %.4f\n", *metrics_.eval_before, *metrics_.eval_after);
        if (machine_->generator) {
            const double share = exact_match(&answers_after);
            if (options_.exact_match > 0) metrics_.match_after = share;
        }
        if (metrics_.match_after)
            printf("held-out exact match  before %.1f %%  after %.1f %%\n", 100 * *metrics_.match_before,
                   100 * *metrics_.match_after);
    }
    const std::vector<Sample> samples = this->samples(answers_before, answers_after.empty() ? answers_before : answers_after);
    print_samples(samples);
    if (in_.plan.steps == 0) save_adapter();
    if (!options_.metrics.empty()) metrics_.save(options_.metrics);
    if (folder_) {
        write_report(*folder_, samples);
        printf("report       %s\n", folder_->file("report.html").c_str());
    }
    return exit_success;
}

} // namespace

int run_session(const Options &options) {
    const std::initializer_list<std::string> inputs = {options.model, options.data, options.eval_data, options.train.import_state};
    for (const std::string &path : {options.metrics, options.save_state}) if (!path.empty()) check_writable(path, inputs);
    // The adapter's usual place is in the folder of the run, which may not be there yet.
    if (!options.out.empty() && (options.run.folder.empty() || options.out.rfind(options.run.folder + "/", 0) != 0)) check_writable(options.out, inputs);
    return Session(options).run();
}

void run_plan(const Options &options) { Session(options).plan(); }

} // namespace finetune
