// Memory of the fine-tuner of the examples: what was planned is what is used, and where weights, checkpoints, rows of the
// embedding and state lie changes no bit of a result.
#include "engine_support.h"

#include "evaluate.h"
#include "planner.h"
#include "rng.h"

#include <functional>
#include <sstream>

using namespace finetune;

namespace {

struct Bench {
    BaseModel base{bundled_model()};
    AdapterShape adapter_shape = base.shape().adapter_shape(4);
    Adapter initial = initial_adapter(adapter_shape, 8, 1);
    std::vector<Row> rows;
    Task task;

    Bench() {
        Random random(7, 0);
        for (AdapterPair &pair : initial.pairs)
            for (float &value : pair.b) value = 0.1f * (random.next_uniform() - 0.5f);
        for (int i = 0; i < 4; ++i) {
            Row row;
            for (int k = 0; k < 9 + 5 * i; ++k) row.prompt.push_back(int32_t(random.next_below(2048)));
            for (int k = 0; k < 12 - i; ++k) row.answer.push_back(int32_t(random.next_below(2048)));
            rows.push_back(row);
        }
        task.model.format = QLORA_FORMAT_NF4_DQ;
        task.adapter_shape = adapter_shape;
        task.initial = &initial;
        task.alpha = 8;
        task.options.batch = 2;
        task.options.steps = 3;
        task.options.learning_rate = 1e-2f;
        task.options.optimizer = optimizer_by_name("adamw8bit");
        task.training_bounds = training_bounds(rows, task.options);
        task.answer_rows = &rows;
        task.answers = 2;
    }

    struct Result {
        std::vector<double> losses;
        std::vector<float> values;
        std::vector<std::vector<int32_t>> answers;
        bool operator==(const Result &other) const {
            return losses == other.losses && values == other.values && answers == other.answers;
        }
    };

    // Training, an evaluation and answers, in an arena of just the planned size.
    Result run(const std::string &name, const MemoryChoice &choice, uint64_t *bytes = nullptr, uint64_t *host_bytes = nullptr) {
        Device device(name, 1);
        const uint64_t planned = planned_bytes(device, base, task, choice);
        device.commit();
        Machine machine(device, base, task, choice);
        Result result;
        RowOrder order(rows.size(), task.options.shuffle, task.options.seed);
        while (machine.trainer->state().step < task.options.steps) result.losses.push_back(machine.trainer->advance(rows, order).loss);
        Batch batch;
        batch.add(rows[0]);
        result.losses.push_back(machine.network->evaluate(batch));
        result.losses.push_back(machine.network->evaluate(batch));
        result.answers = answer_rows(*machine.generator, rows, 2, -1);
        for (const AdapterPair &pair : machine.trainable.download(device).pairs)
            for (const std::vector<float> *half : {&pair.a, &pair.b})
                result.values.insert(result.values.end(), half->begin(), half->end());
        CHECK(device.used_bytes() == planned);
        if (bytes != nullptr) *bytes = planned;
        if (host_bytes != nullptr) *host_bytes = device.planned_host_bytes();
        return result;
    }
};

MemoryChoice resident() {
    MemoryChoice choice;
    choice.eval_tokens = 1;
    return choice;
}

} // namespace

TEST_CASE("memory: what is planned is used, and places change no bit") {
    Bench bench;
    const struct {
        const char *name;
        std::function<void(MemoryChoice &)> apply;
        bool less; // of the device
    } choices[] = {
        {"offloaded checkpoints", [](MemoryChoice &choice) { choice.offload = true; }, true},
        {"all layers streamed", [](MemoryChoice &choice) { choice.streamed_layers = 6; }, true},
        {"some layers streamed", [](MemoryChoice &choice) { choice.streamed_layers = 4; }, true},
        {"one layer streamed", [](MemoryChoice &choice) { choice.streamed_layers = 1; }, false},
        {"paged state", [](MemoryChoice &choice) { choice.optimizer_bytes = 65536; }, true},
        {"all of it",
         [](MemoryChoice &choice) {
             choice.offload = true;
             choice.streamed_layers = 5;
             choice.optimizer_bytes = 65536;
         },
         true},
    };
    for (const std::string name : {"ref", "cpu", "cuda", "vulkan"}) {
        if (name == "cuda" && qlora::device_count(QLORA_BACKEND_CUDA) == 0) continue;
        // A software device takes twenty seconds for it.
        if (name == "vulkan" && (getenv("QLORA_TEST_ALL") == nullptr || qlora::device_count(QLORA_BACKEND_VULKAN) == 0)) continue;
        CAPTURE(name);
        uint64_t whole = 0;
        const Bench::Result expected = bench.run(name, resident(), &whole);
        CHECK(expected.losses[0] > expected.losses[2]);
        for (const auto &one : choices) {
            if (name != "cpu" && &one != &choices[5]) continue; // all at once is enough there
            CAPTURE(one.name);
            MemoryChoice choice = resident();
            one.apply(choice);
            uint64_t bytes = 0, host_bytes = 0;
            CHECK(bench.run(name, choice, &bytes, &host_bytes) == expected);
            CHECK(host_bytes > 0);
            CHECK((bytes < whole) == one.less);
        }
    }
}

TEST_CASE("memory: layers that keep their activations train as those that compute them again") {
    Bench bench;
    const Bench::Result again = bench.run("cpu", resident());
    for (uint32_t kept : {2u, 6u}) {
        MemoryChoice choice = resident();
        choice.kept_layers = kept;
        const Bench::Result result = bench.run("cpu", choice);
        CHECK(result.losses[0] == again.losses[0]);
        CHECK(result.losses[2] == doctest::Approx(again.losses[2]).epsilon(1e-5));
        choice.streamed_layers = 5;
        CHECK(bench.run("cpu", choice) == result);
    }
}

TEST_CASE("memory: rows of the embedding from the host are those of the device") {
    Bench bench;
    for (const int32_t activations : {QLORA_FORMAT_F32, QLORA_FORMAT_BF16}) {
        bench.task.precision.activations = activations;
        MemoryChoice choice = resident();
        choice.head_format = QLORA_FORMAT_NF4; // of the tied matrix, which would else be on the device anyway
        uint64_t both = 0, one = 0;
        const Bench::Result expected = bench.run("cpu", choice, &both);
        choice.host_embedding = true;
        CHECK(bench.run("cpu", choice, &one) == expected);
        CHECK(one <= both); // where the device's memory is the host's, its matrix is the file's too
    }
}

TEST_CASE("memory: a budget is met by the cheapest means, or refused with what would help") {
    Bench bench;
    Device device("cpu", 1);
    MemoryOptions options;
    CHECK(find_budget(device, options).limit == 0);
    const uint64_t whole = make_plan(device, bench.base, bench.task, options, {}).device_bytes;
    const auto plan_for = [&](uint64_t bytes) {
        options.memory = std::to_string(bytes);
        Budget budget = find_budget(device, options);
        CHECK(budget.arena() == bytes);
        CHECK(budget.one_memory);
        budget.one_memory = false; // as if it were a GPU
        return make_plan(device, bench.base, bench.task, options, budget);
    };
    const MemoryPlan enough = plan_for(whole);
    CHECK(enough.savings.empty());
    CHECK(enough.fits());
    const MemoryPlan less = plan_for(whole - 1);
    REQUIRE(less.fits());
    CHECK(less.savings.size() == 1);
    uint64_t saved = 0, smallest = 0;
    for (const Saving &saving : less.savings) saved += saving.bytes;
    CHECK(less.device_bytes + saved == whole);

    // No step is taken whose saving is not needed, whatever the budget.
    for (uint64_t bytes = whole; bytes-- > 0; bytes -= std::min(bytes, whole / 64)) {
        const MemoryPlan plan = plan_for(bytes);
        if (!plan.fits() || plan.choice.streamed_layers > 0) break;
        for (const Saving &saving : plan.savings) {
            CAPTURE(bytes);
            CAPTURE(saving.what);
            CHECK(plan.device_bytes + saving.bytes > bytes);
        }
    }

    const MemoryPlan none = plan_for(1000);
    CHECK_FALSE(none.fits());
    smallest = none.device_bytes;
    const MemoryPlan least = plan_for(smallest);
    CHECK(least.fits());
    const std::string message = error_of([&] { reject_plan(device, bench.base, bench.task, options, none); });
    CHECK(contains(message, "out of memory"));
    CHECK(contains(message, "--memory 1000"));
    size_t flags = 0;
    for (size_t at = message.find("(saves "); at != std::string::npos; at = message.find("(saves ", at + 1)) ++flags;
    CHECK(flags == 3);

    // What the command line decides stays, and is what would help.
    options.offload = false;
    options.streamed_layers = 0;
    options.head = "none";
    const MemoryPlan fixed = plan_for(smallest);
    CHECK_FALSE(fixed.fits());
    CHECK(fixed.choice.streamed_layers == 0);
    CHECK(contains(error_of([&] { reject_plan(device, bench.base, bench.task, options, fixed); }), "--offload on"));

    options = MemoryOptions();
    const MemoryPlan roomy = plan_for(whole * 2);
    CHECK(roomy.choice.kept_layers == 6);
    const MemoryPlan some = plan_for((whole + roomy.device_bytes) / 2);
    CHECK(some.fits());
    CHECK(some.choice.kept_layers > 0);
    CHECK(some.choice.kept_layers < 6);
    options.kept_layers = 0;
    const Largest largest = find_largest(device, bench.base, bench.task, options, roomy, 512);
    CHECK(largest.sequence[0] > bench.task.training_bounds.longest);
    CHECK(largest.sequence[1] >= largest.sequence[0]);
    CHECK(largest.rank[0] > 4);
    Task longer = bench.task;
    longer.training_bounds.tokens = longer.training_bounds.losses = 2 * largest.sequence[0];
    longer.training_bounds.longest = uint32_t(largest.sequence[0]);
    longer.training_bounds.count = 2;
    longer.answers = 0;
    CHECK(planned_bytes(device, bench.base, longer, MemoryChoice()) <= whole * 2);
    if (largest.sequence[0] < 512) {
        longer.training_bounds.tokens = longer.training_bounds.losses = 2 * (largest.sequence[0] + 1);
        longer.training_bounds.longest += 1;
        CHECK(planned_bytes(device, bench.base, longer, MemoryChoice()) > whole * 2);
    }
}

TEST_CASE("memory: sizes on the command line") {
    CHECK(parse_bytes("--memory", "6G") == uint64_t(6) << 30);
    CHECK(parse_bytes("--memory", "6GB") == 6000000000u);
    CHECK(parse_bytes("--memory", "4.5GiB") == uint64_t(4.5 * (1 << 30)));
    CHECK(parse_bytes("--memory", "4096") == 4096);
    CHECK(parse_bytes("--memory", "512K") == 524288);
    for (const char *wrong : {"", "G", "6g", "-1G", "6 G", "1e9", "nan", "6GG", "99999999999999999999T"})
        CHECK(contains(error_of([&] { parse_bytes("--memory", wrong); }), "--memory"));
}
