// Recorded steps of the fine-tuner of the examples: which shapes are worth it, and that a replay changes no bit of a result.
#include "engine_support.h"

#include "evaluate.h"
#include "planner.h"
#include "rng.h"

using namespace finetune;

namespace {

Row row_of(uint64_t seed, int prompt, int answer) {
    Random random(seed, 0);
    Row row;
    for (int i = 0; i < prompt; ++i) row.prompt.push_back(int32_t(random.next_below(2048)));
    for (int i = 0; i < answer; ++i) row.answer.push_back(int32_t(random.next_below(2048)));
    return row;
}

TrainOptions plan_of(uint32_t batch, uint32_t accumulate, uint64_t steps) {
    TrainOptions options;
    options.batch = batch;
    options.accumulate = accumulate;
    options.steps = steps;
    options.learning_rate = 1e-2f;
    options.optimizer = optimizer_by_name("adamw8bit");
    return options;
}

// Two lengths of rows that come again and again, with a step's accumulated gradients.
struct Bench {
    BaseModel base{bundled_model()};
    Adapter initial;
    std::vector<Row> rows;
    Task task;

    // longer: tokens of each prompt more.
    explicit Bench(Precision precision, int longer = 0) {
        task.adapter_shape = base.shape().adapter_shape(4);
        initial = initial_adapter(task.adapter_shape, 8, 1);
        for (uint64_t i = 0; i < 4; ++i) rows.push_back(row_of(i, 9 + longer, 7));
        for (uint64_t i = 4; i < 6; ++i) rows.push_back(row_of(i, 5 + longer, 4));
        task.model.format = QLORA_FORMAT_NF4_DQ;
        task.initial = &initial;
        task.alpha = 8;
        task.precision = precision;
        task.options = plan_of(1, 2, 12);
        task.options.shuffle = false;
        task.training_bounds = training_bounds(rows, task.options);
        task.common_shapes = common_shapes(rows, task.options);
    }

    struct Result {
        std::vector<double> losses, norms;
        std::vector<float> values;
        StepGraphs::Use use;
    };
    // With an evaluation in the middle. The arena is of the planned size.
    Result run(const std::string &name, const MemoryChoice &choice) {
        Device device(name, 1);
        const uint64_t planned = planned_bytes(device, base, task, choice);
        device.commit();
        Machine machine(device, base, task, choice);
        RowOrder order(rows.size(), false, 1);
        Result result;
        while (machine.trainer->state().step < task.options.steps) {
            const StepReport report = machine.trainer->advance(rows, order);
            result.losses.push_back(report.loss);
            result.norms.push_back(report.gradient_norm);
            if (report.step == 7) result.losses.push_back(mean_loss(*machine.network, pack_rows(rows, 1)));
        }
        for (const AdapterPair &pair : machine.trainable.download(device).pairs)
            for (const std::vector<float> *half : {&pair.a, &pair.b})
                result.values.insert(result.values.end(), half->begin(), half->end());
        result.use = machine.network->graphs().use();
        CHECK(device.used_bytes() <= planned);
        return result;
    }
};

MemoryChoice with_graphs(bool graphs, bool host_embedding = false) {
    MemoryChoice choice;
    choice.graphs = graphs;
    choice.host_embedding = host_embedding;
    return choice;
}

} // namespace

TEST_CASE("graphs: shapes are common when they come three times and make up a good part of a run") {
    std::vector<Row> rows = {row_of(0, 9, 7), row_of(1, 9, 7), row_of(2, 5, 4), row_of(3, 6, 4)};
    rows[3].packed.push_back(row_of(4, 3, 2));
    TrainOptions options = plan_of(1, 1, 8);
    std::vector<BatchShape> shapes = common_shapes(rows, options);
    REQUIRE(shapes.size() == 1); // the others come twice
    CHECK(shapes[0] == BatchShape{15, 7, 1, 15, false});
    options.steps = 12;
    shapes = common_shapes(rows, options);
    REQUIRE(shapes.size() == 3);
    CHECK(shapes[0] == BatchShape{15, 7, 1, 15, false});
    CHECK((shapes[1] == BatchShape{13, 6, 2, 9, false} || shapes[2] == BatchShape{13, 6, 2, 9, false}));
    CHECK(common_shapes(rows, options, 1).size() == 1);
    options.accumulate = 2;
    options.shuffle = false;
    shapes = common_shapes(rows, options);
    REQUIRE(shapes.size() == 4);
    CHECK(shapes[0].accumulate != shapes[1].accumulate);
    options.batch = 4;
    CHECK(common_shapes(rows, options).size() == 2);
    // Forty lengths, each three times, of which few could be recorded.
    rows.clear();
    for (int i = 0; i < 40; ++i) rows.push_back(row_of(uint64_t(i), 4 + i, 3));
    CHECK(common_shapes(rows, plan_of(1, 1, 120)).empty());
    CHECK(common_shapes({row_of(0, 4, 4)}, plan_of(1, 1, 2)).empty());
}

TEST_CASE("graphs: recorded steps have the losses, norms and adapters of steps that are not, to the bit") {
    for (const char *name : {"cpu", "cuda", "vulkan"}) {
        std::string device_name = name;
        bool records = false;
        try {
            const Device device(name, 1);
            device_name = device.name();
            records = device.records();
        } catch (const qlora::Error &error) {
            if (error.status() != QLORA_ERROR_UNAVAILABLE) throw;
            MESSAGE("SKIPPED on " << std::string(name) << ": " << std::string(error.what()));
            continue;
        }
        CAPTURE(device_name);
        CHECK(records == (std::string(name) == "cuda"));
        for (const Precision precision : {Precision{}, Precision{QLORA_FORMAT_BF16, QLORA_FORMAT_BF16}}) {
            if (!records && precision.activations != QLORA_FORMAT_F32) continue;
            // From 128 tokens on products of sixteen bits are made otherwise, some of them beside the recorded stream.
            Bench bench(precision, precision.activations == QLORA_FORMAT_F32 ? 0 : 150);
            const Bench::Result plain = bench.run(name, with_graphs(false));
            CHECK(plain.use.graphs == 0);
            for (const bool host_embedding : {false, true}) {
                const Bench::Result recorded = bench.run(name, with_graphs(true, host_embedding));
                CHECK(recorded.losses == plain.losses);
                CHECK(recorded.norms == plain.norms);
                CHECK(recorded.values == plain.values);
                CHECK_MESSAGE(recorded.use.failure.empty(), recorded.use.failure);
                CHECK(recorded.use.graphs == (records ? 4 : 0));
                CHECK(recorded.use.batches == 24);
                CHECK(recorded.use.replayed == (records ? 16 : 0)); // but the first two of each shape
                if (records) MESSAGE(device_name << ": " << recorded.use.nodes << " nodes in " << recorded.use.bytes << " bytes");
            }
        }
    }
}

TEST_CASE("graphs: their memory is in the plan, and where it does not fit there are none") {
    Bench bench({});
    std::string name = "cuda";
    try {
        const Device device(name, 1);
    } catch (const qlora::Error &error) {
        if (error.status() != QLORA_ERROR_UNAVAILABLE) throw;
        MESSAGE("SKIPPED on cuda: " << std::string(error.what()));
        name = "cpu";
    }
    Device device(name, 1);
    const uint64_t with = planned_bytes(device, bench.base, bench.task, with_graphs(true)), without = planned_bytes(device, bench.base, bench.task, with_graphs(false));
    CHECK((with > without) == device.records());
    if (!device.records()) return;
    Budget budget;
    budget.limit = with;
    CHECK(make_plan(device, bench.base, bench.task, {}, budget).choice.graphs);
    budget.limit = with - 256;
    const MemoryPlan plan = make_plan(device, bench.base, bench.task, {}, budget);
    CHECK(plan.fits());
    CHECK(!plan.choice.graphs);
    REQUIRE(plan.savings.size() == 1);
    CHECK(plan.savings[0].flag == "--graph off");
}
