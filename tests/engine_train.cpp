// The engine of examples/finetune as a whole, on every device of this machine: losses and gradients against PyTorch's
// (golden/zoo), and what must not change a result: packing, accumulation, checkpointing, the cache of a generation.
#include "engine_support.h"

#include "evaluate.h"
#include "generate.h"
#include "rng.h"
#include "safetensors.h"
#include "train.h"

#include <cmath>
#include <algorithm>
#include <functional>

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
    for (uint32_t layer = 0; layer < shape.layers; ++layer)
        for (int i = 0; i < linear_count; ++i) {
            AdapterPair pair = {shape.inputs[i], shape.outputs[i], {}, {}};
            pair.a = file.floats(file.get(kind + peft_weight_name(layer, Linear(i), "lora_A")));
            pair.b = file.floats(file.get(kind + peft_weight_name(layer, Linear(i), "lora_B")));
            if (i == linear_q) permute_to_gguf(pair.b, shape.rank, shape.heads);
            if (i == linear_k) permute_to_gguf(pair.b, shape.rank, shape.kv_heads);
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
        Generator together(device, model, adapter, QLORA_FORMAT_F32, 5, 9, length);
        const auto answers = together.generate(prompts, -1);
        Generator single(device, model, adapter, QLORA_FORMAT_F32, 1, 9 + length, 1);
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
