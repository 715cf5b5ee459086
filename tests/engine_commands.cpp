// What the commands besides train are made of: adapters of both kinds, merging, speaking.
#include "engine_support.h"

#include "adapter_file.h"
#include "decoder.h"
#include "generate.h"
#include "inspect.h"
#include "low_rank.h"
#include "json.h"
#include "merge.h"
#include "network.h"
#include "rng.h"
#include "sampler.h"
#include "speaker.h"
#include "tiny_model.h"

#include <cmath>
#include <filesystem>

namespace finetune {
namespace {

struct TinyBase {
    Scratch file;
    std::unique_ptr<BaseModel> base;
    TinyBase() {
        write_tiny_model(file.path);
        base = std::make_unique<BaseModel>(file.path);
    }
};

struct Folder {
    std::string path;
    Folder() {
        const Scratch unused;
        path = unused.path + "_dir";
    }
    ~Folder() {
        std::error_code ignored;
        std::filesystem::remove_all(path, ignored);
    }
};

// Random values in every third layer of the base, or all; ranks rise where `ranks` says so.
AdapterFile random_adapter(const BaseModel &base, uint64_t rank, uint64_t seed, size_t step = 1, bool ranks = false) {
    AdapterFile adapter;
    adapter.path = "random";
    adapter.architecture = "llama";
    const std::vector<Module> modules = base_modules(base);
    for (size_t i = 0; i < modules.size(); i += step) {
        LoraPair pair;
        pair.module = modules[i].gguf;
        pair.rank = rank + (ranks ? i / step % 3 : 0);
        pair.inputs = modules[i].inputs;
        pair.outputs = modules[i].outputs;
        pair.scale = 16.0 / double(pair.rank);
        Random random(seed, i);
        for (uint64_t k = 0; k < pair.rank * pair.inputs; ++k) pair.a.push_back(0.2f * (random.next_uniform() - 0.5f));
        for (uint64_t k = 0; k < pair.rank * pair.outputs; ++k) pair.b.push_back(0.2f * (random.next_uniform() - 0.5f));
        adapter.pairs.push_back(pair);
    }
    return adapter;
}

// scale * B A
std::vector<double> dense(const LoraPair *pair, uint64_t size) {
    std::vector<double> out(size, 0.0);
    if (pair == nullptr) return out;
    for (uint64_t o = 0; o < pair->outputs; ++o)
        for (uint64_t k = 0; k < pair->rank; ++k)
            for (uint64_t i = 0; i < pair->inputs; ++i)
                out[o * pair->inputs + i] += pair->scale * double(pair->b[o * pair->rank + k]) * double(pair->a[k * pair->inputs + i]);
    return out;
}

double difference(const std::vector<double> &x, const std::vector<double> &y) {
    double error = 0, size = 1e-300;
    for (size_t i = 0; i < x.size(); ++i) {
        error += (x[i] - y[i]) * (x[i] - y[i]);
        size += y[i] * y[i];
    }
    return std::sqrt(error / size);
}

std::string bytes_of(const std::string &path) { return std::string(MappedFile(path).text()); }

double loss_of(Device &device, const BaseModel &base, const std::vector<AdapterFile> &adapters) {
    AdapterShape shape;
    const Adapter values = device_adapter(adapters, std::vector<double>(adapters.size(), 1.0), base, &shape);
    const Model model(device, base, 0, 0);
    const Trainable trainable(device, shape, values);
    Batch batch;
    std::vector<int32_t> ids;
    for (int i = 0; i < 40; ++i) ids.push_back((i * 37 + 11) % 256);
    batch.add(ids.data(), ids.size(), 1);
    BatchBounds bounds;
    bounds.include(batch);
    Network::Options options;
    options.training = false;
    Network network(device, model, trainable, options, bounds);
    return network.evaluate(batch) / double(batch.losses());
}

} // namespace

TEST_CASE("adapters: GGUF to PEFT and back, to the bit") {
    const TinyBase tiny;
    for (const bool partial : {false, true}) {
        const Scratch first, last;
        const Folder peft;
        AdapterFile adapter = random_adapter(*tiny.base, 4, 1, partial ? 3 : 1, partial);
        for (LoraPair &pair : adapter.pairs)
            if (partial) pair.dtype_a = pair.dtype_b = "F16";
        write_gguf_adapter(first.path, adapter);
        AdapterFile read = read_adapter_file(first.path);
        convert_adapter(read, AdapterKind::peft, *tiny.base);
        write_peft_adapter(peft.path, read, "a base");
        AdapterFile back = read_adapter_file(peft.path);
        CHECK(back.kind == AdapterKind::peft);
        CHECK(back.find("model.layers.0.self_attn.q_proj") != nullptr);
        convert_adapter(back, AdapterKind::gguf, *tiny.base);
        write_gguf_adapter(last.path, back);
        CHECK(bytes_of(first.path) == bytes_of(last.path));
        const Json config = Json::parse(bytes_of(peft.path + "/adapter_config.json"));
        CHECK(config["base_model_name_or_path"] == "a base");
        CHECK(config["r"] == 4);
        CHECK(config["lora_alpha"] == 16);
        CHECK(config["target_modules"].size() == (partial ? adapter.pairs.size() : 7));
        CHECK(config["rank_pattern"].empty() != partial);
        CHECK(inspect(peft.path)["adapter"]["layers"] == adapter.pairs.size());
    }
}

TEST_CASE("adapters: keys and order of a GGUF adapter from elsewhere survive PEFT's form") {
    const TinyBase tiny;
    const AdapterFile adapter = random_adapter(*tiny.base, 3, 2, 5);
    const Scratch first, last;
    const Folder peft;
    GgufWriter writer;
    writer.add_string("general.architecture", "llama");
    writer.add_string("general.name", "from elsewhere");
    writer.add_string("general.type", "adapter");
    writer.add_string("adapter.type", "lora");
    writer.add_f32("adapter.lora.alpha", 0); // llama.cpp: a scale of 1
    for (size_t i = adapter.pairs.size(); i-- > 0;) {
        const LoraPair &pair = adapter.pairs[i];
        writer.add_tensor(pair.module + ".weight.lora_b", type_f32, {pair.rank, pair.outputs}, pair.b.data());
        writer.add_tensor(pair.module + ".weight.lora_a", type_f32, {pair.inputs, pair.rank}, pair.a.data());
    }
    writer.save(first.path);
    AdapterFile read = read_adapter_file(first.path);
    CHECK(read.pairs[0].scale == 1);
    convert_adapter(read, AdapterKind::peft, *tiny.base);
    write_peft_adapter(peft.path, read, "x");
    read = read_adapter_file(peft.path);
    convert_adapter(read, AdapterKind::gguf, *tiny.base);
    write_gguf_adapter(last.path, read);
    CHECK(bytes_of(first.path) == bytes_of(last.path));
}

TEST_CASE("adapters: kept keys that are no keys are dropped, and an alignment is the writer's own") {
    const TinyBase tiny;
    AdapterFile adapter = random_adapter(*tiny.base, 2, 7);
    const Scratch plain, other;
    write_gguf_adapter(plain.path, adapter);
    const std::string expected = bytes_of(plain.path);
    std::string endless(8, '\0'); // a key of no letters whose value is a text of 2^64 - 1 bytes
    endless += std::string("\x08\0\0\0", 4) + std::string(8, '\xff');
    for (const std::string &keys : {std::string("abc"), std::string(8, '\xff'), endless}) {
        adapter.gguf_keys = keys;
        write_gguf_adapter(other.path, adapter);
        CHECK(bytes_of(other.path) == expected);
    }
    GgufWriter writer;
    writer.add_string("general.architecture", "llama");
    writer.add_u32("general.alignment", 4096);
    writer.add_string("general.type", "adapter");
    writer.add_string("adapter.type", "lora");
    writer.add_f32("adapter.lora.alpha", 16);
    writer.save(other.path);
    const Gguf kept(other.path);
    adapter.gguf_keys.clear();
    for (std::string_view key : kept.keys()) adapter.gguf_keys += kept.entry(key);
    write_gguf_adapter(plain.path, adapter);
    CHECK(read_adapter_file(plain.path).pairs.size() == adapter.pairs.size());
}

TEST_CASE("adapters: a scale of zero stays no update, one below zero stays below") {
    const TinyBase tiny;
    for (const double scale : {0.0, -2.0}) {
        const Scratch gguf;
        const Folder peft;
        AdapterFile adapter = random_adapter(*tiny.base, 4, 5);
        adapter.pairs[0].scale = scale; // the others keep theirs
        const std::vector<LoraPair> before = adapter.pairs;
        const auto same = [&](const AdapterFile &read) {
            for (size_t i = 0; i < before.size(); ++i) {
                const uint64_t size = before[i].inputs * before[i].outputs;
                const std::vector<double> expected = dense(&before[i], size), found = dense(&read.pairs[i], size);
                double difference = 0, norm = 0;
                for (size_t k = 0; k < found.size(); ++k) {
                    difference += std::pow(found[k] - expected[k], 2);
                    norm += std::pow(expected[k], 2);
                }
                CHECK(difference <= 1e-12 * norm);
            }
        };
        write_gguf_adapter(gguf.path, adapter);
        same(read_adapter_file(gguf.path));
        convert_adapter(adapter, AdapterKind::peft, *tiny.base);
        write_peft_adapter(peft.path, adapter, "x");
        AdapterFile back = read_adapter_file(peft.path);
        convert_adapter(back, AdapterKind::gguf, *tiny.base);
        same(back);
    }
}

TEST_CASE("adapters: scales of PEFT's configurations") {
    const TinyBase tiny;
    const Folder peft;
    AdapterFile adapter = random_adapter(*tiny.base, 4, 3);
    convert_adapter(adapter, AdapterKind::peft, *tiny.base);
    write_peft_adapter(peft.path, adapter, "x");
    const std::string path = peft.path + "/adapter_config.json";
    Json config = Json::parse(bytes_of(path));
    const auto with = [&](const char *key, const Json &value) {
        Json other = config;
        other[key] = value;
        std::ofstream(path) << other.dump();
        return read_adapter_file(peft.path);
    };
    CHECK(with("use_rslora", true).pairs[0].scale == doctest::Approx(16 / std::sqrt(4.0)));
    const AdapterFile patterned = with("alpha_pattern", {{"mlp.down_proj", 2}});
    CHECK(patterned.find("model.layers.1.mlp.down_proj")->scale == doctest::Approx(0.5));
    CHECK(patterned.find("model.layers.1.mlp.up_proj")->scale == doctest::Approx(4));
    CHECK(contains(error_of([&] { with("use_dora", true); }), "use_dora is not supported"));
    CHECK(contains(error_of([&] { with("modules_to_save", {"lm_head"}); }), "modules_to_save"));
    CHECK(contains(error_of([&] { with("r", 8); }), "r is 8, but the tensors of 'model.layers"));
    CHECK(contains(error_of([&] { with("lora_alpha", nullptr); }), "lora_alpha is missing"));
    std::filesystem::remove(path);
    CHECK(contains(error_of([&] { read_adapter_file(peft.path); }), "give --alpha"));
    CHECK(read_adapter_file(peft.path, 8).pairs[0].scale == doctest::Approx(2));
    // One file of GGUF has one alpha: B takes what differs.
    AdapterFile mixed = adapter;
    convert_adapter(mixed, AdapterKind::gguf, *tiny.base);
    mixed.pairs[1].scale = 0.25;
    const Scratch file;
    write_gguf_adapter(file.path, mixed);
    const AdapterFile read = read_adapter_file(file.path);
    const uint64_t size = mixed.pairs[1].inputs * mixed.pairs[1].outputs;
    CHECK(difference(dense(&read.pairs[1], size), dense(&mixed.pairs[1], size)) < 1e-6);
}

TEST_CASE("adapters: combined exactly, compressed, and as PEFT's linear") {
    const TinyBase tiny;
    const std::vector<AdapterFile> two = {random_adapter(*tiny.base, 4, 4), random_adapter(*tiny.base, 6, 5, 2)};
    const std::vector<double> weights = {0.75, -2};
    const AdapterFile sum = concatenate(two, weights);
    AdapterFile same = sum, small = sum;
    CHECK(compress(same, 10) < 1e-12);
    const double lost = compress(small, 3);
    double error = 0, size = 0;
    for (const Module &module : base_modules(*tiny.base)) {
        const uint64_t count = module.inputs * module.outputs;
        std::vector<double> expected = dense(two[0].find(module.gguf), count);
        const std::vector<double> second = dense(two[1].find(module.gguf), count);
        for (size_t i = 0; i < expected.size(); ++i) expected[i] = weights[0] * expected[i] + weights[1] * second[i];
        CHECK(difference(dense(sum.find(module.gguf), count), expected) < 1e-6);
        CHECK(difference(dense(same.find(module.gguf), count), expected) < 1e-6);
        const std::vector<double> compressed = dense(small.find(module.gguf), count);
        for (size_t i = 0; i < expected.size(); ++i) {
            error += (compressed[i] - expected[i]) * (compressed[i] - expected[i]);
            size += expected[i] * expected[i];
        }
    }
    CHECK(std::sqrt(error / size) == doctest::Approx(lost).epsilon(1e-5));

    const std::vector<AdapterFile> equal = {random_adapter(*tiny.base, 4, 6), random_adapter(*tiny.base, 4, 7)};
    const AdapterFile linear = combine_linear(equal, {1, 0.25});
    const double expected = 2 * double(equal[0].pairs[0].a[5]) + 1 * double(equal[1].pairs[0].a[5]); // sqrt(weight * 16 / 4)
    CHECK(double(linear.pairs[0].a[5]) == doctest::Approx(expected));
    CHECK(contains(error_of([&] { combine_linear(two, weights); }), "needs equal ranks"));
}

TEST_CASE("low rank: singular values of a product, with dependent and zero columns") {
    // B = diag(5, 3, 0) in four rows, A orthogonal rows.
    const LowRank product = {4, 5, 3, {5, 0, 0, 0, 3, 0, 0, 0, 0, 0, 0, 0}, {0, 1, 0, 0, 0, 0, 0, 0.6, 0.8, 0, 1, 0, 0, 0, 0}};
    std::vector<double> singular;
    const LowRank nearest = nearest_of_rank(product, 1, &singular);
    REQUIRE(singular.size() == 3);
    CHECK(singular[0] == doctest::Approx(5));
    CHECK(singular[1] == doctest::Approx(3));
    CHECK(singular[2] < 1e-12);
    for (uint64_t o = 0; o < 4; ++o)
        for (uint64_t i = 0; i < 5; ++i) CHECK(std::abs(nearest.b[o] * nearest.a[i] - (o == 0 && i == 1 ? 5 : 0)) < 1e-12);
}

TEST_CASE("adapters: training goes on from one of some layers and a smaller rank") {
    const TinyBase tiny;
    const AdapterFile given = random_adapter(*tiny.base, 3, 11, 2);
    const AdapterShape shape = tiny.base->shape().adapter_shape(5);
    const Adapter fresh = initial_adapter(shape, 16, 1), adapter = starting_adapter(given, *tiny.base, shape, fresh);
    CHECK(double(adapter.alpha) / 5 == doctest::Approx(given.pairs[0].scale));
    const AdapterPair &first = adapter.pairs[0], &second = adapter.pairs[1];
    CHECK(std::equal(given.pairs[0].a.begin(), given.pairs[0].a.end(), first.a.begin()));
    CHECK(first.a[3 * first.inputs] == fresh.pairs[0].a[3 * first.inputs]);
    CHECK(first.b[5 * 7 + 2] == given.pairs[0].b[3 * 7 + 2]);
    CHECK(first.b[5 * 7 + 3] == 0);
    CHECK(second.a == fresh.pairs[1].a);
    CHECK(second.b == fresh.pairs[1].b);
    const AdapterShape small = tiny.base->shape().adapter_shape(2);
    CHECK(contains(error_of([&] { starting_adapter(given, *tiny.base, small, initial_adapter(small, 16, 1)); }), "give --rank 3"));
}

TEST_CASE("adapters: what the base does not have is named") {
    const TinyBase tiny;
    AdapterFile adapter = random_adapter(*tiny.base, 4, 8);
    adapter.pairs[3].module = "blk.7.attn_output";
    CHECK(contains(error_of([&] { convert_adapter(adapter, AdapterKind::peft, *tiny.base); }), "has no linear layer 'blk.7.attn_output'"));
    adapter = random_adapter(*tiny.base, 4, 8);
    adapter.architecture = "qwen2";
    CHECK(contains(error_of([&] { convert_adapter(adapter, AdapterKind::peft, *tiny.base); }), "architecture 'qwen2', the base is 'llama'"));
    const Scratch nothing("hello");
    CHECK(contains(error_of([&] { inspect(nothing.path); }), "neither GGUF nor safetensors"));
}

TEST_CASE("merge: the merged file has the loss of base and adapter") {
    const TinyBase tiny;
    Device device("cpu", 1);
    const AdapterFile adapter = random_adapter(*tiny.base, 4, 9, 2);
    const double expected = loss_of(device, *tiny.base, {adapter}), base = loss_of(device, *tiny.base, {});
    CHECK(std::abs(expected - base) > 0.01);
    const struct {
        int32_t format;
        double tolerance;
    } cases[] = {{QLORA_FORMAT_F32, 1e-4}, {0, 1e-3}, {QLORA_FORMAT_BF16, 1e-2}, {QLORA_FORMAT_Q8_0, 2e-2}};
    for (const auto &one : cases) {
        const Scratch out;
        MergeOptions options;
        options.format = one.format;
        const Merged done = merge_gguf(device, tiny.file.path, adapter, options, out.path);
        CHECK(done.updated == adapter.pairs.size());
        const BaseModel merged(out.path);
        CHECK(loss_of(device, merged, {}) == doctest::Approx(expected).epsilon(one.tolerance));
        const Json about = inspect(out.path);
        CHECK(about["context"] == 128);
        CHECK(about["bytes"] == done.bytes);
    }
    // A value, counted by hand.
    const Scratch out;
    MergeOptions options;
    options.format = QLORA_FORMAT_F32;
    merge_gguf(device, tiny.file.path, adapter, options, out.path);
    const LoraPair &pair = adapter.pairs[0];
    const std::vector<float> before = decode_floats(view_weight(Gguf(tiny.file.path).tensor(pair.module + ".weight")));
    const Gguf merged(out.path);
    const std::vector<float> after = decode_floats(view_weight(merged.tensor(pair.module + ".weight")));
    const std::vector<double> update = dense(&pair, before.size());
    for (size_t i = 0; i < before.size(); i += 97) CHECK(double(after[i]) == doctest::Approx(double(before[i]) + update[i]).epsilon(1e-5));
}

TEST_CASE("decoder: token after token as all at once, whatever was there before") {
    const TinyBase tiny;
    Device device("cpu", 1);
    AdapterShape shape;
    const Adapter adapter = device_adapter({random_adapter(*tiny.base, 4, 10)}, {1}, *tiny.base, &shape);
    const Model model(device, *tiny.base, 0, 0);
    const Trainable trainable(device, shape, adapter);
    const std::vector<int32_t> prompt = {1, 50, 7, 200, 33, 90, 12, 4};
    Generator generator(device, model, trainable, {}, 1, 8, 12);
    const std::vector<int32_t> expected = generator.generate({prompt}, -1)[0];
    Decoder decoder(device, model, trainable, {}, 64, 3);
    Sampler sampler({});
    for (int round = 0; round < 2; ++round) {
        const std::vector<float> *logits = &decoder.set(prompt);
        std::vector<int32_t> ids;
        for (size_t i = 0; i < expected.size(); ++i) {
            ids.push_back(sampler.choose(*logits, decoder.tokens()));
            logits = &decoder.append(ids.back());
        }
        CHECK(ids == expected);
        decoder.set({1, 50, 7, 99}); // another text with the same beginning
    }
    CHECK(error_of([&] { decoder.set(std::vector<int32_t>(65, 1)); }).find("internal") == 0);
}

TEST_CASE("sampler: what may be drawn, and that seeds decide") {
    const std::vector<float> logits = {0, 3, 2, -1, 2.5f, -4};
    SamplingOptions options;
    CHECK(Sampler(options).choose(logits, {}) == 1);
    options.temperature = 1;
    const auto drawn = [&](uint64_t seed) {
        options.seed = seed;
        Sampler sampler(options);
        std::vector<int> counts(logits.size());
        for (int i = 0; i < 500; ++i) ++counts[size_t(sampler.choose(logits, {}))];
        return counts;
    };
    options.top_k = 0;
    options.top_p = 1;
    options.min_p = 0;
    std::vector<int> counts = drawn(1);
    CHECK(counts == drawn(1));
    CHECK(counts != drawn(2));
    double sum = 0;
    for (float logit : logits) sum += std::exp(double(logit));
    CHECK(double(counts[1]) / 500 == doctest::Approx(std::exp(3.0) / sum).epsilon(0.15));
    options.top_k = 2;
    counts = drawn(3);
    CHECK(counts[1] + counts[4] == 500);
    options.top_k = 0;
    options.min_p = 0.5; // of exp(3): 2.5 has 0.61 of it, 2 has 0.37
    counts = drawn(4);
    CHECK(counts[1] + counts[4] == 500);
    options.min_p = 0;
    options.top_p = 0.3; // the likeliest alone has more
    CHECK(drawn(5)[1] == 500);
    options.temperature = 0;
    options.repetition_penalty = 2;
    CHECK(Sampler(options).choose(logits, {1, 1}) == 4); // 3 / 2, once
}

TEST_CASE("speaking: whole characters, and stop texts that come in pieces") {
    TextStream plain({});
    CHECK(plain.add("a\xc3") == "a");
    CHECK(plain.add("\xa9" "b") == "\xc3\xa9" "b");
    CHECK(plain.add("\xf0\x9f\x8e") == "");
    CHECK(plain.add("\x89") == "\xf0\x9f\x8e\x89");
    CHECK(plain.add("\xff") == "\xef\xbf\xbd");
    CHECK(plain.add("\xe4\xbd") == "");
    CHECK(plain.finish() == "\xef\xbf\xbd\xef\xbf\xbd");
    TextStream stopped({"###", "User:"});
    CHECK(stopped.add("Hello Us") == "Hello ");
    CHECK(stopped.add("a ##") == "Usa ");
    CHECK(!stopped.stopped());
    CHECK(stopped.add("# more") == "");
    CHECK(stopped.stopped());
    CHECK(stopped.finish() == "");
}

} // namespace finetune
