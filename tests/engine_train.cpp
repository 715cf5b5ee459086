// The engine of examples/finetune as a whole, on every device of this machine: losses and gradients against PyTorch's
// (golden/zoo), and what must not change a result: packing, accumulation, checkpointing, the cache of a generation.
#include "engine_support.h"

#include "evaluate.h"
#include "generate.h"
#include "inspect.h"
#include "rng.h"
#include "safetensors.h"
#include "targets.h"
#include "train.h"

#include <cmath>
#include <algorithm>
#include <functional>
#include <unistd.h>

using namespace finetune;

namespace {

void on_every_device(const std::function<void(Device &)> &test) {
    for (const std::string name : {"ref", "cpu", "cuda", "vulkan"}) {
        std::string missing;
        try {
            Device device(name, 0);
            CAPTURE(device.name());
            test(device);
        } catch (const qlora::Error &error) {
            if (error.status() != QLORA_ERROR_UNAVAILABLE) throw;
            missing = error.what();
        }
        if (!missing.empty()) MESSAGE("SKIPPED on " << name << ": " << missing);
    }
}

double relative_error(const std::vector<float> &ours, const std::vector<float> &theirs) {
    REQUIRE(ours.size() == theirs.size());
    double difference = 0, norm = 0;
    for (size_t i = 0; i < ours.size(); ++i) {
        difference += std::pow(double(ours[i]) - double(theirs[i]), 2);
        norm += std::pow(double(theirs[i]), 2);
    }
    return std::sqrt(difference / std::max(norm, 1e-60));
}

std::vector<float> gradient(Device &device, const Trainable &adapter, size_t index) {
    const qlora_parameter &parameter = adapter.parameters()[index];
    std::vector<float> values(parameter.count);
    device.read(parameter.gradient, values.data(), values.size() * 4);
    return values;
}

// The PEFT tensors "<kind>.<name>" of a golden file as an adapter, in GGUF order.
Adapter golden_adapter(const SafeTensors &file, const std::string &kind, const AdapterShape &shape, float alpha) {
    Adapter adapter;
    adapter.alpha = alpha;
    for (size_t i = 0; i < shape.pairs(); ++i) {
        AdapterPair pair = {shape.linear(i).inputs, shape.linear(i).outputs, {}, {}};
        pair.a = file.floats(file.get(kind + shape.peft_name(i, "lora_A")));
        pair.b = file.floats(file.get(kind + shape.peft_name(i, "lora_B")));
        shape.to_base(pair.b, i, shape.rank, true);
        adapter.pairs.push_back(std::move(pair));
    }
    return adapter;
}

// The bundled model with an adapter whose B is not zero, and a few rows of random tokens.
struct Bundled {
    Gguf file{bundled_model()};
    ModelShape shape = read_model_shape(file);
    AdapterShape adapter_shape = shape.adapter_shape(4);
    Adapter initial = initial_adapter(adapter_shape, 8, 1);
    std::vector<Row> rows;

    Bundled() {
        Random random(5, 0);
        for (AdapterPair &pair : initial.pairs)
            for (float &value : pair.b) value = 0.1f * (random.next_uniform() - 0.5f);
        for (int i = 0; i < 4; ++i) {
            Row row;
            for (int k = 0; k < 3 + 2 * i; ++k) row.prompt.push_back(int32_t(random.next_below(2048)));
            for (int k = 0; k < 6 - i; ++k) row.answer.push_back(int32_t(random.next_below(2048)));
            rows.push_back(row);
        }
    }

    // All gradients of the mean loss over the rows, computed in batches of `batch` rows.
    std::vector<float> gradients(Device &device, uint32_t batch, bool checkpointing, int32_t format) {
        Model model(device, file, format, 0);
        Trainable adapter(device, adapter_shape, initial);
        BatchBounds bounds = {64, 64, 4, 16};
        Network network(device, model, adapter, {{}, checkpointing, true}, bounds);
        size_t answers = 0;
        for (const Row &row : rows) answers += row.answer.size();
        for (size_t first = 0; first < rows.size(); first += batch) {
            Batch packed;
            for (size_t i = first; i < std::min(first + batch, rows.size()); ++i) packed.add(rows[i]);
            network.train(packed, 1.0f / float(answers), first > 0);
        }
        std::vector<float> all;
        for (size_t i = 0; i < adapter.parameters().size(); ++i) {
            const std::vector<float> one = gradient(device, adapter, i);
            all.insert(all.end(), one.begin(), one.end());
        }
        return all;
    }
};

} // namespace

TEST_CASE("network: losses and gradients are PyTorch's, with scaled and linear rotary embeddings") {
    for (const std::string name : {"llama3_rope", "llama_linear_rope"}) {
        const std::string folder = shared("golden/zoo/" + name);
        if (folder.empty()) return;
        const Gguf file(folder + "/model-f16.gguf");
        const SafeTensors golden(folder + "/golden.safetensors");
        const std::vector<int32_t> ids = golden.integers(golden.get("ids"));
        const double expected_loss = golden.floats(golden.get("lora_loss"))[0];
        const AdapterShape shape = read_model_shape(file).adapter_shape(4);
        const Adapter initial = golden_adapter(golden, "lora.", shape, 8);
        const Adapter expected = golden_adapter(golden, "grad.", shape, 8);
        CAPTURE(name);
        on_every_device([&](Device &device) {
            Model model(device, file, 0, 0);
            Trainable adapter(device, shape, initial);
            Batch batch;
            batch.add(&ids[0], 96, 1);
            batch.add(&ids[96], 96, 1);
            BatchBounds bounds;
            bounds.include(batch);
            Network network(device, model, adapter, {{}, true, true}, bounds);
            network.train(batch, 1.0f / 190, false);
            CHECK(network.read_loss() / 190 == doctest::Approx(expected_loss).epsilon(1e-4));
            for (size_t i = 0; i < adapter.parameters().size(); ++i) {
                const AdapterPair &pair = expected.pairs[i / 2];
                CAPTURE(i);
                CHECK(relative_error(gradient(device, adapter, i), i % 2 == 0 ? pair.a : pair.b) < 1e-3);
            }
        });
    }
}

TEST_CASE("network: accumulation and checkpointing change nothing") {
    Bundled bundled;
    on_every_device([&](Device &device) {
        for (int32_t format : {0, QLORA_FORMAT_NF4_DQ}) {
            const std::vector<float> whole = bundled.gradients(device, 4, true, format);
            CHECK(relative_error(bundled.gradients(device, 1, true, format), whole) < 1e-4);
            CHECK(relative_error(bundled.gradients(device, 4, false, format), whole) < 1e-5);
            CHECK(bundled.gradients(device, 4, true, format) == whole);
        }
    });
}

TEST_CASE("network: the gradient is the slope of the loss") {
    Bundled bundled;
    Device device("ref", 0);
    const std::vector<float> slopes = bundled.gradients(device, 4, true, 0);
    Random random(9, 0);
    std::vector<float> direction(slopes.size());
    double expected = 0;
    for (size_t i = 0; i < slopes.size(); ++i) {
        direction[i] = random.next_uniform() - 0.5f;
        expected += double(direction[i]) * double(slopes[i]);
    }
    const auto loss_at = [&](float distance) {
        Adapter moved = bundled.initial;
        size_t i = 0;
        for (AdapterPair &pair : moved.pairs)
            for (std::vector<float> *half : {&pair.a, &pair.b})
                for (float &value : *half) value += distance * direction[i++];
        Model model(device, bundled.file, 0, 0);
        Trainable adapter(device, bundled.adapter_shape, moved);
        Network network(device, model, adapter, {{}, true, false}, {64, 64, 4, 16});
        return mean_loss(network, pack_rows(bundled.rows, 64));
    };
    const float distance = 2e-3f;
    const double slope = (loss_at(distance) - loss_at(-distance)) / (2 * double(distance));
    CHECK(slope == doctest::Approx(expected).epsilon(0.01));
}

TEST_CASE("network: under dropout the gradient is the slope of the loss with the same masks, kept or computed again") {
    Bundled bundled;
    choose_targets(bundled.adapter_shape, "attention,down"); // some layers without, beside
    bundled.initial = initial_adapter(bundled.adapter_shape, 8, 1);
    Random random(5, 1);
    for (AdapterPair &pair : bundled.initial.pairs)
        for (float &value : pair.b) value = 0.1f * (random.next_uniform() - 0.5f);
    Batch batch;
    for (const Row &row : bundled.rows) batch.add(row);
    on_every_device([&](Device &device) {
        const Model model(device, bundled.file, 0, 0);
        std::vector<float> direction;
        const auto run = [&](float distance, uint64_t seed, bool checkpointing, std::vector<float> *gradients) {
            Adapter moved = bundled.initial;
            size_t i = 0;
            for (AdapterPair &pair : moved.pairs)
                for (std::vector<float> *half : {&pair.a, &pair.b})
                    for (float &value : *half) value += distance == 0 ? 0 : distance * direction[i++];
            Trainable adapter(device, bundled.adapter_shape, moved);
            Network::Options options = {{}, checkpointing, true};
            options.dropout = 0.4f;
            Network network(device, model, adapter, options, {64, 64, 4, 16});
            network.train(batch, 1, false, seed);
            for (size_t p = 0; gradients != nullptr && p < adapter.parameters().size(); ++p) {
                const std::vector<float> one = gradient(device, adapter, p);
                gradients->insert(gradients->end(), one.begin(), one.end());
            }
            return network.read_loss();
        };
        std::vector<float> slopes, kept, others;
        const double loss = run(0, 7, true, &slopes);
        CHECK(run(0, 7, false, &kept) == doctest::Approx(loss).epsilon(1e-6));
        CHECK(relative_error(kept, slopes) < 1e-5);
        CHECK(run(0, 8, true, &others) != doctest::Approx(loss).epsilon(1e-4)); // another mask
        if (device.context().query().backend != QLORA_BACKEND_REF) return;
        double expected = 0;
        for (size_t i = 0; i < slopes.size(); ++i) {
            direction.push_back(random.next_uniform() - 0.5f);
            expected += double(direction[i]) * double(slopes[i]);
        }
        const float distance = 2e-3f;
        CHECK((run(distance, 7, true, nullptr) - run(-distance, 7, true, nullptr)) / (2 * double(distance)) == doctest::Approx(expected).epsilon(0.01));
    });
}

TEST_CASE("network: packed rows do not see each other") {
    Bundled bundled;
    on_every_device([&](Device &device) {
        Model model(device, bundled.file, QLORA_FORMAT_NF4_DQ, 0);
        Trainable adapter(device, bundled.adapter_shape, bundled.initial);
        Network network(device, model, adapter, {{}, true, false}, {64, 64, 4, 16});
        const double packed = mean_loss(network, pack_rows(bundled.rows, 64));
        const double alone = mean_loss(network, pack_rows(bundled.rows, 1));
        CHECK(packed == doctest::Approx(alone).epsilon(1e-5));
    });
}

TEST_CASE("network: rows packed into sequences have the loss of one row at a time, what is given has none") {
    Bundled bundled;
    on_every_device([&](Device &device) {
        Model model(device, bundled.file, 0, 0);
        Trainable adapter(device, bundled.adapter_shape, bundled.initial);
        Network network(device, model, adapter, {{}, true, false}, {64, 64, 8, 16});
        Dataset data;
        data.rows = bundled.rows;
        data.rows[0].given = {{0, 1}};
        const auto loss = [&](const std::vector<Row> &rows) {
            std::vector<Batch> batches(rows.size());
            for (size_t i = 0; i < rows.size(); ++i) batches[i].add(rows[i]);
            return mean_loss(network, batches);
        };
        const double alone = loss(data.rows);
        const size_t count = data.rows.size();
        pack(data, 24);
        REQUIRE(data.rows.size() < count);
        CHECK(loss(data.rows) == doctest::Approx(alone).epsilon(1e-4));
        CHECK(loss(bundled.rows) != doctest::Approx(alone).epsilon(1e-4));
    });
}

TEST_CASE("generator: with a cache, several prompts at once, as one token at a time without") {
    Bundled bundled;
    const uint32_t length = 6;
    on_every_device([&](Device &device) {
        Model model(device, bundled.file, 0, 0);
        Trainable adapter(device, bundled.adapter_shape, bundled.initial);
        std::vector<std::vector<int32_t>> prompts;
        for (const Row &row : bundled.rows) prompts.push_back(row.prompt);
        Generator together(device, model, adapter, {}, 5, 9, length);
        const auto answers = together.generate(prompts, -1);
        Generator single(device, model, adapter, {}, 1, 9 + length, 1);
        for (size_t i = 0; i < prompts.size(); ++i) {
            std::vector<int32_t> text = prompts[i];
            for (uint32_t k = 0; k < length; ++k) text.push_back(single.generate({text}, -1)[0].at(0));
            CHECK(std::vector<int32_t>(text.begin() + long(prompts[i].size()), text.end()) == answers[i]);
        }
        const int32_t stop = answers[0][2];
        const auto stopped = together.generate({prompts[0]}, stop);
        CHECK(stopped[0].size() <= 2);
    });
}

TEST_CASE("training: the order of rows and the size of batches") {
    RowOrder shuffled(10, true, 1), file(10, false, 1);
    std::vector<uint64_t> first, second;
    for (uint64_t i = 0; i < 10; ++i) first.push_back(shuffled.at(i));
    for (uint64_t i = 10; i < 20; ++i) second.push_back(shuffled.at(i));
    CHECK(first != second);
    std::sort(first.begin(), first.end());
    for (uint64_t i = 0; i < 10; ++i) {
        CHECK(first[i] == i);
        CHECK(file.at(i + 10) == i);
    }
    Batch batch;
    const int32_t tokens[] = {7, 8, 9, 10};
    batch.add(tokens, 4, 2);
    batch.add(tokens, 2, 1);
    CHECK(batch.ids == std::vector<int32_t>{7, 8, 9, 7});
    CHECK(batch.positions == std::vector<int32_t>{0, 1, 2, 0});
    CHECK(batch.sequences == std::vector<int32_t>{0, 3, 0, 3, 3, 1, 3, 1});
    CHECK(batch.loss_rows == std::vector<int32_t>{1, 2, 3});
    CHECK(batch.targets == std::vector<int32_t>{9, 10, 8});
    CHECK(batch.loss_index == std::vector<int32_t>{-1, 0, 1, 2});
    Batch turns;
    turns.add(tokens, 4, 1, {{1, 2}}); // tokens 1 and 3 are learned, 2 is given
    CHECK(turns.targets == std::vector<int32_t>{8, 10});
    CHECK(turns.loss_rows == std::vector<int32_t>{0, 2});
}

namespace {

// A training run on the bundled model: steps with one optimizer, from a state file if there is one.
struct Run {
    Device device;
    Model model;
    Trainable adapter;
    Network network;
    Trainer trainer;

    Run(const std::string &device_name, const Bundled &bundled, const TrainOptions &options)
        : device(device_name, 1), model(device, bundled.file, QLORA_FORMAT_NF4_DQ, 0), adapter(device, bundled.adapter_shape, bundled.initial),
          network(device, model, adapter, {{}, true, true}, {64, 64, 4, 16}), trainer(device, network, adapter, options) {
        RowOrder order(bundled.rows.size(), options.shuffle, options.seed);
        while (trainer.state().step < options.steps) trainer.advance(bundled.rows, order);
    }
    std::vector<float> values() {
        std::vector<float> all;
        for (const AdapterPair &pair : adapter.download(device).pairs)
            for (const std::vector<float> *half : {&pair.a, &pair.b}) all.insert(all.end(), half->begin(), half->end());
        return all;
    }
};

TrainOptions few_steps(const char *optimizer, uint64_t steps) {
    TrainOptions options;
    options.batch = 2;
    options.steps = steps;
    options.schedule = Schedule::constant;
    options.learning_rate = 1e-2f;
    options.optimizer = optimizer_by_name(optimizer);
    return options;
}

// The option that names a device; "" for ref, which is slow.
std::string device_argument(const Device &device) {
    static const char *const names[] = {"", "", "cpu", "cuda", "vulkan"};
    return names[device.context().query().backend];
}

std::string state_path() { return std::string(getenv("TMPDIR") ? getenv("TMPDIR") : P_tmpdir) + "/qlora_state_" + std::to_string(getpid()) + ".safetensors"; }

} // namespace

TEST_CASE("training: a run that stops and goes on ends where one without a pause does, to the bit") {
    Bundled bundled;
    const std::string path = state_path();
    on_every_device([&](Device &device) {
        const std::string name = device_argument(device);
        if (name.empty()) return;
        for (const char *optimizer : {"adamw8bit", "adamw", "ademamix8bit"}) {
            Run whole(name, bundled, few_steps(optimizer, 4));
            {
                Run first(name, bundled, few_steps(optimizer, 2));
                first.trainer.save_state(path);
            }
            TrainOptions rest = few_steps(optimizer, 4);
            rest.resume = path;
            Run second(name, bundled, rest);
            CHECK(second.values() == whole.values());
            second.trainer.save_state(path + ".again");
            whole.trainer.save_state(path);
            CHECK(MappedFile(path).text() == MappedFile(path + ".again").text());
        }
    });
    remove(path.c_str());
    remove((path + ".again").c_str());
}

TEST_CASE("training: state under a budget of a tenth of it gives the same adapter, to the bit") {
    Bundled bundled;
    on_every_device([&](Device &device) {
        const std::string name = device_argument(device);
        if (name.empty()) return;
        for (const char *optimizer : {"adamw", "adamw8bit", "lamb"}) {
            Run whole(name, bundled, few_steps(optimizer, 3));
            TrainOptions tight = few_steps(optimizer, 3);
            const uint64_t all = whole.trainer.optimizer().device_bytes();
            tight.optimizer_bytes = std::max<uint64_t>(all / 10, 65536);
            Run paged(name, bundled, tight);
            CHECK(paged.trainer.optimizer().host_bytes() > 0);
            CHECK(paged.trainer.optimizer().device_bytes() <= tight.optimizer_bytes);
            CHECK(paged.values() == whole.values());
        }
    });
}

TEST_CASE("training: state files that are damaged or of something else are refused") {
    Bundled bundled;
    const std::string path = state_path();
    Run run("cpu", bundled, few_steps("adamw8bit", 1));
    run.trainer.save_state(path);
    const Json about = inspect(path); // though its tensors are named as an adapter's
    CHECK(about["kind"] == "optimizer state");
    CHECK(about["state"]["optimizer"] == "adamw8bit");
    const auto refuse = [&](const char *optimizer, const char *word) {
        TrainOptions options = few_steps(optimizer, 2);
        options.resume = path;
        try {
            Run again("cpu", bundled, options);
            FAIL_CHECK("taken, though " << word);
        } catch (const Error &error) { CHECK_MESSAGE(std::string(error.what()).find(word) != std::string::npos, error.what()); }
    };
    refuse("adamw", "--optimizer adamw8bit");
    std::string bytes(MappedFile(path).text());
    bytes[bytes.size() - 5] ^= 1;
    {
        NewFile file(path);
        file.write(bytes.data(), bytes.size());
        file.commit();
    }
    refuse("adamw8bit", "checksum");
    bytes.resize(bytes.size() / 2);
    {
        NewFile file(path);
        file.write(bytes.data(), bytes.size());
        file.commit();
    }
    refuse("adamw8bit", "");
    remove(path.c_str());
    CHECK_THROWS_AS(optimizer_by_name("adam9bit"), Error);
}

TEST_CASE("training: moments of a bitsandbytes optimizer are taken over") {
    Bundled bundled;
    const std::string path = state_path();
    Run run("cpu", bundled, few_steps("adamw8bit", 2));
    Optimizer &ours = run.trainer.optimizer();
    // A state dict as bitsandbytes writes one, by index: codes of our own state where there are 8 bits, in its order of rows.
    std::vector<std::vector<uint8_t>> data;
    std::vector<float> table(256), step = {2};
    SafeTensorsWriter writer;
    const auto read = [&](const qlora_span &span) {
        data.emplace_back(span.size);
        run.device.read(span, data.back().data(), span.size);
        return data.back().data();
    };
    data.reserve(ours.parameters().size() * 8);
    size_t small = 0;
    for (size_t i = 0; i < ours.parameters().size(); ++i) {
        const qlora_parameter &parameter = ours.parameters()[i];
        const std::string prefix = "state." + std::to_string(i);
        const char *dtype = parameter.state_type == QLORA_FORMAT_F32 ? "F32" : "U8";
        writer.add(prefix + ".state1", dtype, {parameter.count}, read(parameter.state1));
        writer.add(prefix + ".state2", dtype, {parameter.count}, read(parameter.state2));
        writer.add_f32(prefix + ".step", {1}, step.data());
        if (parameter.state_type == QLORA_FORMAT_F32) continue;
        ++small;
        writer.add(prefix + ".absmax1", "F32", {parameter.absmax1.size / 4}, read(parameter.absmax1));
        writer.add(prefix + ".absmax2", "F32", {parameter.absmax2.size / 4}, read(parameter.absmax2));
        writer.add_f32(prefix + ".qmap1", {256}, ours.table(false).data());
        writer.add_f32(prefix + ".qmap2", {256}, ours.table(true).data());
    }
    writer.save(path);
    Optimizer taken(run.device, run.adapter, optimizer_by_name("adamw8bit"), 0);
    CHECK(taken.import_bitsandbytes(path) == 2);
    uint64_t same = 0;
    for (size_t i = 0; i < ours.parameters().size(); ++i) {
        const bool turned = i % 2 == 1 && run.adapter.shape().turns(i / 2, true);
        if (turned) continue; // rows of B come in another order
        for (const qlora_span qlora_parameter::*piece : {&qlora_parameter::state1, &qlora_parameter::state2, &qlora_parameter::absmax1}) {
            const qlora_span &a = ours.parameters()[i].*piece, &b = taken.parameters()[i].*piece;
            if (a.size == 0) continue;
            std::vector<uint8_t> x(a.size), y(b.size);
            run.device.read(a, x.data(), x.size());
            run.device.read(b, y.data(), y.size());
            CHECK(x == y);
            ++same;
        }
    }
    CHECK(same > 20);
    remove(path.c_str());
}
