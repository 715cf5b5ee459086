// Models that are measured and spoken with under the planner: what streams, or is used where its file is mapped, gives the
// same answers and losses, and what is planned is used.
#include "engine_support.h"

#include "evaluate.h"
#include "host_memory.h"
#include "planner.h"
#include "rng.h"

#include <algorithm>
#include <cmath>

using namespace finetune;

namespace {

// A base as its file has it, and two adapters in turn.
struct Bench {
    BaseModel base{bundled_model()};
    TunedAdapter first = tuned(2, 1), second = tuned(7, 2);
    std::vector<Row> rows;
    std::vector<int32_t> prompt = {5, 17, 301, 9, 44, 8, 1020, 77, 3};
    Task task;

    Bench() {
        Random random(3, 0);
        for (int i = 0; i < 5; ++i) {
            Row row;
            for (int k = 0; k < 6 + 3 * i; ++k) row.prompt.push_back(int32_t(random.next_below(2048)));
            for (int k = 0; k < 5; ++k) row.answer.push_back(int32_t(random.next_below(2048)));
            rows.push_back(row);
        }
        task.training = false;
        task.adapter_shape = first.shape;
        task.initial = &first.values;
        task.alpha = first.values.alpha;
        task.others = {&second};
        task.evaluation_bounds = [this](uint64_t tokens) {
            BatchBounds bounds;
            for (const Batch &batch : pack_rows(rows, tokens)) bounds.include(batch);
            return bounds;
        };
        task.answer_rows = &rows;
        task.answers = 5;
        task.context = 24;
        task.least_context = 12;
    }

    TunedAdapter tuned(uint32_t rank, uint64_t seed) {
        TunedAdapter tuned;
        tuned.shape = base.shape().adapter_shape(rank);
        tuned.values = initial_adapter(tuned.shape, 8, seed);
        Random random(seed, 100);
        for (AdapterPair &pair : tuned.values.pairs)
            for (float &value : pair.b) value = 0.2f * (random.next_uniform() - 0.5f);
        return tuned;
    }

    struct Result {
        std::vector<double> losses;
        std::vector<float> logits;
        std::vector<std::vector<int32_t>> answers;
        bool operator==(const Result &other) const {
            return losses == other.losses && logits == other.logits && answers == other.answers;
        }
    };

    void use(Machine &machine, uint64_t tokens, Result &result) {
        result.losses.push_back(mean_loss(*machine.network, pack_rows(rows, tokens)));
        for (auto &answer : answer_rows(*machine.generator, rows, task.answers, -1)) result.answers.push_back(std::move(answer));
        const std::vector<float> *logits = &machine.decoder->set(prompt);
        for (int i = 0; i < 3; ++i) {
            result.logits.insert(result.logits.end(), logits->begin(), logits->end());
            logits = &machine.decoder->append(int32_t(std::max_element(logits->begin(), logits->end()) - logits->begin()));
        }
    }

    Result run(const std::string &name, const MemoryChoice &choice, MemoryPlan *plan = nullptr) {
        Device device(name, 1);
        MemoryOptions options;
        options.streamed_layers = choice.streamed_layers;
        options.file_layers = choice.file_layers;
        options.host_embedding = choice.host_embedding;
        options.eval_tokens = choice.eval_tokens;
        options.prompt_tokens = choice.prompt_tokens;
        if (choice.head_format != 0) options.head = "nf4";
        const MemoryPlan made = make_plan(device, base, task, options, Budget());
        const auto machine = carry_out(device, base, task, options, made);
        Result result;
        use(*machine, choice.eval_tokens, result);
        machine->take_up(1);
        use(*machine, choice.eval_tokens, result);
        machine->take_up(0); // as it was
        Result again;
        use(*machine, choice.eval_tokens, again);
        CHECK(again.losses[0] == result.losses[0]);
        CHECK(result.losses[1] != result.losses[0]);
        CHECK(device.used_bytes() == made.device_bytes);
        if (plan != nullptr) *plan = made;
        return result;
    }
};

} // namespace

TEST_CASE("resident: streamed, read from the file or used where it is mapped, a model says the same") {
    Bench bench;
    for (const std::string name : {"cpu", "cuda", "vulkan"}) {
        if (name == "cuda" && qlora::device_count(QLORA_BACKEND_CUDA) == 0) continue;
        if (name == "vulkan" && (getenv("QLORA_TEST_ALL") == nullptr || qlora::device_count(QLORA_BACKEND_VULKAN) == 0)) continue;
        CAPTURE(name);
        MemoryPlan whole, plan;
        const Bench::Result expected = bench.run(name, MemoryChoice(), &whole);
        CHECK((whole.mapped_bytes > 0) == (name == "cpu"));
        CHECK(whole.host_bytes == 0);
        MemoryChoice choice;
        choice.streamed_layers = 5;
        CHECK(bench.run(name, choice, &plan) == expected);
        CHECK(plan.from_file);
        CHECK(plan.file_bytes == 0);
        const uint64_t copies = plan.host_bytes;
        CHECK(copies > 0);
        choice.file_layers = 2;
        CHECK(bench.run(name, choice, &plan) == expected);
        CHECK(plan.file_bytes == copies / 5 * 2);
        CHECK(plan.host_bytes == copies / 5 * (3 + 2)); // and two places to pass through
        choice.file_layers = 5;
        CHECK(bench.run(name, choice, &plan) == expected);
        CHECK(plan.host_bytes == copies / 5 * 2);

        choice = MemoryChoice();
        choice.head_format = QLORA_FORMAT_NF4;
        const Bench::Result with_head = bench.run(name, choice, &whole);
        choice.host_embedding = true;
        CHECK(bench.run(name, choice, &plan) == with_head);
        if (name != "cpu") CHECK(plan.device_bytes < whole.device_bytes);
    }
}

TEST_CASE("resident: sixteen bits of activations bring sixteen bits of keys and values") {
    Bench bench;
    MemoryPlan wide, narrow;
    const Bench::Result expected = bench.run("cpu", MemoryChoice(), &wide);
    bench.task.precision.activations = QLORA_FORMAT_BF16;
    const Bench::Result result = bench.run("cpu", MemoryChoice(), &narrow);
    CHECK(narrow.device_bytes < wide.device_bytes);
    CHECK(result.losses[0] == doctest::Approx(expected.losses[0]).epsilon(0.01));
    double worst = 0;
    for (size_t i = 0; i < 2048; ++i) worst = std::max(worst, std::fabs(double(result.logits[i]) - double(expected.logits[i])));
    CHECK(worst > 0);
    CHECK(worst < 0.2);
}

TEST_CASE("resident: answers are made with as many prompts at once as memory is meant for") {
    Bench bench;
    MemoryChoice choice;
    choice.eval_tokens = 40; // two of the longest
    MemoryPlan whole, plan;
    const Bench::Result expected = bench.run("cpu", MemoryChoice(), &whole);
    const Bench::Result result = bench.run("cpu", choice, &plan);
    CHECK(result.answers == expected.answers);
    CHECK(plan.device_bytes < whole.device_bytes);
}

TEST_CASE("resident: a budget is met by the cheapest means, a shorter context before streaming") {
    Bench bench;
    bench.task.evaluation_bounds = nullptr;
    bench.task.answers = 0;
    bench.task.others.clear();
    bench.task.context = 4096;
    bench.task.least_context = 10;
    bench.task.model.format = QLORA_FORMAT_NF4; // nothing is where the file has it
    Device device("cpu", 1);
    MemoryOptions options;
    const auto plan_for = [&](uint64_t bytes, bool one_memory) {
        options.memory = std::to_string(bytes);
        Budget budget = find_budget(device, options);
        budget.one_memory = one_memory;
        return make_plan(device, bench.base, bench.task, options, budget);
    };
    const MemoryPlan whole = plan_for(uint64_t(256) << 20, false);
    CHECK(whole.savings.empty());
    CHECK(whole.context == 4096);
    const MemoryPlan shorter = plan_for(whole.device_bytes * 2 / 3, false);
    CHECK(shorter.fits());
    CHECK(shorter.context < 4096);
    CHECK(shorter.choice.streamed_layers == 0);
    const MemoryPlan least = plan_for(1000, false);
    CHECK_FALSE(least.fits());
    CHECK(least.context == 1024);
    CHECK(least.choice.streamed_layers == 6);
    CHECK(contains(error_of([&] { reject_plan(device, bench.base, bench.task, options, least); }), "--context 512 (saves "));
    // Where the device is the host nothing is gained by what waits there.
    const MemoryPlan host = plan_for(1000, true);
    CHECK(host.choice.streamed_layers == 0);
    CHECK(host.host_bytes == 0);

    options.context = 4096; // by hand
    CHECK(plan_for(1000, false).context == 4096);
    options.context.reset();
    bench.task.least_context = 1500; // the prompt
    const MemoryPlan prompt = plan_for(1000, false);
    CHECK(prompt.context == 2048);
    CHECK(error_of([&] { reject_plan(device, bench.base, bench.task, options, prompt); }).find("--context 1024 (saves ") == std::string::npos);
}

TEST_CASE("resident: what host memory has no room for is read from the file, or refused with what would help") {
    Bench bench;
    Device device("cpu", 1);
    MemoryOptions options;
    options.streamed_layers = 6;
    Budget budget;
    const MemoryPlan copies = make_plan(device, bench.base, bench.task, options, budget);
    REQUIRE(copies.host_bytes > 0);
    budget.host_limit = copies.host_bytes / 2;
    budget.host_source = "--host-memory small";
    const MemoryPlan half = make_plan(device, bench.base, bench.task, options, budget);
    CHECK(half.choice.file_layers == 5); // one has a copy, and two places are for the others
    CHECK(half.fits_host());
    CHECK(half.savings.size() == 1);
    CHECK(contains(brief_plan(half), "from the file in each pass"));
    budget.host_limit = 1;
    CHECK(make_plan(device, bench.base, bench.task, options, budget).choice.file_layers == 6);

    options.file_layers = 0; // by hand
    const MemoryPlan fixed = make_plan(device, bench.base, bench.task, options, budget);
    CHECK_FALSE(fixed.fits_host());
    const std::string message = error_of([&] { carry_out(device, bench.base, bench.task, options, fixed); });
    CHECK(contains(message, "out of host memory"));
    CHECK(contains(message, "--host-memory small"));
    CHECK(contains(message, "--file-layers 6"));

    // What is quantized on the way is in no file.
    options.file_layers.reset();
    bench.task.model.format = QLORA_FORMAT_NF4;
    const MemoryPlan made = make_plan(device, bench.base, bench.task, options, budget);
    CHECK_FALSE(made.fits_host());
    CHECK(contains(error_of([&] { carry_out(device, bench.base, bench.task, options, made); }), "a base that is quantized already"));
    options.file_layers = 2;
    CHECK(contains(error_of([&] { make_plan(device, bench.base, bench.task, options, budget); }), "--file-layers 2"));
#ifdef __linux__
    CHECK(free_host_memory() > 0);
#endif
}
