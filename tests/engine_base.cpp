// Base models in Hugging Face directories: the bundled model, written as one, must train as it does from its GGUF file,
// whole, in shards, and quantized; and directories that must end in an Error.
#include "engine_support.h"

#include "adapter_file.h"
#include "calibrate.h"
#include "evaluate.h"
#include "format_choice.h"
#include "network.h"
#include "packed.h"
#include "program.h"
#include "rng.h"
#include "tokenizer.h"

#include <cmath>
#include <sys/stat.h>

using namespace finetune;

namespace {

const char *const config_text =
    "{\"model_type\": \"llama\", \"hidden_size\": %u, \"num_hidden_layers\": %u, \"num_attention_heads\": %u, "
    "\"num_key_value_heads\": %u, \"head_dim\": %u, \"intermediate_size\": %u, \"vocab_size\": %u, "
    "\"max_position_embeddings\": %u, \"rms_norm_eps\": %.9g, \"rope_theta\": %.9g, \"tie_word_embeddings\": %s, "
    "\"bos_token_id\": 1, \"eos_token_id\": [2, 3], \"hidden_act\": \"silu\", \"rope_scaling\": null%s}";

// A directory that is gone with the object.
struct Folder {
    Folder() : path(mark.path + "_model") { mkdir(path.c_str(), 0700); }
    ~Folder() {
        for (const std::string &name : names) unlink((path + "/" + name).c_str());
        rmdir(path.c_str());
    }
    std::string file(const std::string &name) {
        names.push_back(name);
        return path + "/" + name;
    }
    void write(const std::string &name, const std::string &text) {
        std::ofstream(file(name), std::ios::binary | std::ios::trunc) << text;
    }
    Scratch mark;
    std::string path;
    std::vector<std::string> names;
};

std::string config_of(const ModelShape &shape, const std::string &more = "") {
    char text[1024];
    snprintf(text, sizeof(text), config_text, shape.embedding, shape.layers, shape.heads, shape.kv_heads,
             shape.head_dim, shape.feed_forward, shape.vocabulary, shape.context, double(shape.epsilon),
             double(shape.ropes[0].base), shape.tied ? "true" : "false", more.c_str());
    return text;
}

std::string hugging_face_name(const std::string &name) {
    const Traits &llama = *find_architecture("llama");
    for (const Name &known : llama.naming->model)
        if (name == std::string(known.gguf) + ".weight") return std::string(known.hugging_face) + ".weight";
    const size_t dot = name.find('.', 4), ending = name.rfind(".weight");
    return llama.naming->layers + name.substr(4, dot - 4) + "." + llama.module(name.substr(dot + 1, ending - dot - 1)) + ".weight";
}

// The bundled model in Hugging Face's names and row order; tensor i goes to file i % files.size().
void save_model(const std::vector<std::string> &files, std::string *weight_map = nullptr) {
    const Gguf gguf(bundled_model());
    const BaseModel base(gguf);
    const ModelShape &shape = base.shape();
    std::vector<SafeTensorsWriter> writers(files.size());
    std::vector<std::vector<float>> values;
    values.reserve(base.tensors().size());
    for (const BaseTensor &tensor : base.tensors()) {
        values.push_back(decode_floats(tensor.weight));
        const bool q = tensor.name.find("attn_q") != std::string::npos,
                   k = tensor.name.find("attn_k") != std::string::npos;
        if (q || k) permute_to_hugging_face(values.back(), shape.embedding, HeadOrder::paired, q ? shape.heads : shape.kv_heads);
        const size_t at = (values.size() - 1) % files.size();
        const std::string name = hugging_face_name(tensor.name);
        writers[at].add_f32(name, tensor.shape, values.back().data());
        if (weight_map != nullptr)
            *weight_map += (weight_map->empty() ? "" : ", ") + ("\"" + name + "\": \"") +
                           files[at].substr(files[at].rfind('/') + 1) + "\"";
    }
    for (size_t i = 0; i < files.size(); ++i) writers[i].save(files[i]);
}

// The loss over a few random rows and all gradients, of an adapter that is the same for every base: rows of B are given
// in GGUF order and gradients brought back to it.
struct Outcome {
    double loss;
    std::vector<float> gradients;
};

Outcome outcome_of(const BaseModel &base, int32_t format = 0) {
    Device device("cpu", 2);
    const AdapterShape shape = base.shape().adapter_shape(4);
    Adapter initial = initial_adapter(shape, 8, 1);
    Random random(5, 0);
    for (AdapterPair &pair : initial.pairs)
        for (float &value : pair.b) value = 0.1f * (random.next_uniform() - 0.5f);
    const auto turn = [&](Adapter &adapter, bool to_base) {
        for (size_t i = 0; i < shape.pairs(); ++i) {
            if (to_base) shape.to_base(adapter.pairs[i].b, i, shape.rank, false);
            else shape.from_base(adapter.pairs[i].b, i, shape.rank, false);
        }
    };
    turn(initial, true);
    std::vector<int32_t> ids(64);
    for (int32_t &id : ids) id = int32_t(random.next_below(base.shape().vocabulary));
    Batch batch;
    batch.add(&ids[0], 40, 1);
    batch.add(&ids[40], 24, 1);
    BatchBounds bounds;
    bounds.include(batch);
    const Model model(device, base, format, 0);
    Trainable adapter(device, shape, initial);
    Network network(device, model, adapter, {{}, true, true}, bounds);
    network.train(batch, 1.0f / float(batch.losses()), false);
    Outcome outcome = {network.read_loss() / double(batch.losses()), {}};
    Adapter gradients = initial;
    for (size_t i = 0; i < adapter.parameters().size(); ++i) {
        const qlora_parameter &parameter = adapter.parameters()[i];
        std::vector<float> &half = i % 2 == 0 ? gradients.pairs[i / 2].a : gradients.pairs[i / 2].b;
        device.read(parameter.gradient, half.data(), parameter.count * sizeof(float));
    }
    turn(gradients, false);
    for (const AdapterPair &pair : gradients.pairs)
        for (const std::vector<float> *half : {&pair.a, &pair.b})
            outcome.gradients.insert(outcome.gradients.end(), half->begin(), half->end());
    return outcome;
}

double distance(const std::vector<float> &a, const std::vector<float> &b) {
    REQUIRE(a.size() == b.size());
    double difference = 0, norm = 0;
    for (size_t i = 0; i < a.size(); ++i) {
        difference += std::pow(double(a[i]) - double(b[i]), 2);
        norm += double(b[i]) * double(b[i]);
    }
    return std::sqrt(difference / norm);
}

void check_equal(const Outcome &ours, const Outcome &theirs, double tolerance) {
    CHECK(ours.loss == doctest::Approx(theirs.loss).epsilon(tolerance));
    CHECK(distance(ours.gradients, theirs.gradients) < tolerance);
}

int quantize_to(const std::string &from, const std::string &to, std::vector<std::string> words) {
    words.insert(words.begin(), {"qlora-quantize", "--model", from, "--out", to, "--device", "cpu"});
    std::vector<const char *> argv;
    for (const std::string &word : words) argv.push_back(word.c_str());
    char *text = nullptr;
    size_t size = 0;
    FILE *err = open_memstream(&text, &size), *out = fopen("/dev/null", "w");
    const int code = quantize::run_program(int(argv.size()), argv.data(), out, err);
    fclose(out);
    fclose(err);
    CHECK_MESSAGE(size == 0, text);
    free(text);
    return code;
}

} // namespace

TEST_CASE("base: a directory, whole or in shards, trains as the GGUF file does") {
    const Gguf gguf(bundled_model());
    const BaseModel original(gguf);
    const Outcome expected = outcome_of(original), expected_nf4 = outcome_of(original, QLORA_FORMAT_NF4);
    Folder whole, shards;
    whole.write("config.json", config_of(original.shape()));
    save_model({whole.file("model.safetensors")});
    shards.write("config.json", config_of(original.shape()));
    std::string map;
    save_model({shards.file("model-00001-of-00002.safetensors"), shards.file("model-00002-of-00002.safetensors")},
               &map);
    shards.write("model.safetensors.index.json", "{\"metadata\": {}, \"weight_map\": {" + map + "}}");
    for (const std::string &path : {whole.path, shards.path, whole.path + "/"}) {
        CAPTURE(path);
        const BaseModel base(path);
        CHECK(base.shape().rope_layout == QLORA_ROPE_HALF);
        CHECK(base.shape().tied == original.shape().tied);
        CHECK(base.end_token() == 2);
        check_equal(outcome_of(base), expected, 1e-5);
        check_equal(outcome_of(base, QLORA_FORMAT_NF4), expected_nf4, 1e-5);
    }
}

TEST_CASE("base: checkpoints of bitsandbytes and GPTQ train as the values that they stand for") {
    const Gguf gguf(bundled_model());
    const ModelShape shape = BaseModel(gguf).shape();
    Folder whole;
    whole.write("config.json", config_of(shape));
    save_model({whole.file("model.safetensors")});
    std::string rows = "{\"rows\": [[[1";
    for (int i = 0; i < 600; ++i) rows += ", " + std::to_string(4 + i * 7 % 250);
    const Scratch ids(rows + "], [2]]]}", ".json");
    const struct {
        const char *type, *config;
        std::vector<std::string> more;
    } cases[] = {{"nf4", ", \"quantization_config\": {\"quant_method\": \"bitsandbytes\"}", {}},
                 {"fp4-dq", ", \"quantization_config\": {\"quant_method\": \"bitsandbytes\"}", {}},
                 {"gptq4", ", \"quantization_config\": {\"quant_method\": \"gptq\"}", {}},
                 {"gptq4",
                  ", \"quantization_config\": {\"quant_method\": \"gptq\", \"checkpoint_format\": \"gptq_v2\"}",
                  {"--gptq-version", "2"}},
                 {"gptq8", "", {"--calibrate", ids.path + ":rows", "--calibrate-tokens", "512", "--block", "64"}}};
    for (const auto &one : cases) {
        CAPTURE(one.type);
        Folder packed, plain;
        packed.write("config.json", config_of(shape, one.config));
        plain.write("config.json", config_of(shape));
        std::vector<std::string> words = {"--type", one.type};
        words.insert(words.end(), one.more.begin(), one.more.end());
        REQUIRE(quantize_to(whole.path, packed.file("model.safetensors"), words) == 0);
        REQUIRE(quantize_to(packed.path, plain.file("model.safetensors"), {"--type", "f32"}) == 0);
        const BaseModel base(packed.path), values(plain.path);
        CHECK(!base.is_plain());
        CHECK(values.is_plain());
        check_equal(outcome_of(base), outcome_of(values), 1e-5);
        // Quantized anew, it is what its values become.
        const Outcome anew = outcome_of(base, QLORA_FORMAT_Q8_0), from_values = outcome_of(values, QLORA_FORMAT_Q8_0);
        CHECK(anew.loss == from_values.loss);
        CHECK(anew.gradients == from_values.gradients);
    }
}

TEST_CASE("base: adapters of a directory's base go to files in their own row order") {
    const Gguf gguf(bundled_model());
    const BaseModel base(gguf);
    AdapterShape plain = base.shape().adapter_shape(4), turned = plain;
    turned.hugging_face_rows = true;
    Adapter adapter = initial_adapter(plain, 8, 1);
    Random random(6, 0);
    for (AdapterPair &pair : adapter.pairs)
        for (float &value : pair.b) value = random.next_uniform();
    const Scratch file("", ".gguf"), peft("", ".safetensors"), again("", ".gguf"), peft_again("", ".safetensors");
    write_adapter_gguf(file.path, adapter, plain);
    write_adapter_peft(peft.path, adapter, plain);
    for (const std::string &path : {file.path, peft.path}) {
        const Adapter read = starting_adapter(read_adapter_file(path, 8), base, turned, initial_adapter(turned, 1, 2));
        CHECK(read.pairs[linear_q].b != adapter.pairs[linear_q].b);
        CHECK(read.pairs[linear_v].b == adapter.pairs[linear_v].b);
        write_adapter_gguf(again.path, read, turned);
        write_adapter_peft(peft_again.path, read, turned);
        CHECK(again.read() == file.read());
        CHECK(peft_again.read() == peft.read());
    }
}

TEST_CASE("base: the tokenizer of a directory") {
    const std::string zoo = shared("golden/zoo/llama3_rope");
    if (zoo.empty()) return;
    const BaseModel directory(zoo), gguf(zoo + "/model-f16.gguf");
    const std::unique_ptr<Tokenizer> ours = directory.tokenizer(true), theirs = gguf.tokenizer(true);
    CHECK(ours->size() == theirs->size());
    CHECK(ours->begin_token() == theirs->begin_token());
    CHECK(ours->end_token() == theirs->end_token());
    CHECK(ours->adds_begin());
    for (const char *text : {"The king and the queen", "  two  spaces", "caf\xc3\xa9 \xf0\x9f\x98\x80", "</s> <s>", ""}) {
        CHECK(ours->encode(text, false) == theirs->encode(text, false));
        CHECK(ours->decode(ours->encode(text)) == theirs->decode(theirs->encode(text)));
    }
    std::ifstream stream(zoo + "/tokenizer.model", std::ios::binary);
    const std::string model{std::istreambuf_iterator<char>(stream), {}};
    for (size_t length = 0; length < model.size(); length += length < 64 ? 1 : 97) {
        const Scratch cut(model.substr(0, length));
        error_of([&] { Tokenizer tokenizer(read_sentencepiece(cut.path)); }); // an Error or a shorter list, never more
    }
    CHECK(contains(error_of([&] { read_sentencepiece(Scratch("\x0a\xff\xff\xff\xff\x0f").path); }), "damaged"));
    CHECK(contains(error_of([&] { read_sentencepiece(Scratch(std::string("\x0a\x03\x0a\x01") + "a\x12\x02\x18\x04").path); }),
                   "expected 1 (unigram) or 2 (byte pairs)"));
}

TEST_CASE("base: directories that are incomplete, of another kind, or lie") {
    const Gguf gguf(bundled_model());
    const ModelShape shape = BaseModel(gguf).shape();
    Folder folder;
    const auto error = [&] { return error_of([&] { BaseModel base(folder.path); }); };
    CHECK(contains(error(), "expected model.safetensors or model.safetensors.index.json"));
    save_model({folder.file("model.safetensors")});
    CHECK(contains(error(), "config.json"));
    const auto config = [&](const std::string &text) {
        folder.write("config.json", text);
        return error();
    };
    CHECK(contains(config("[1]"), "expected a JSON object"));
    CHECK(contains(config("{\"model_type\": \"gpt2\"}"), "model_type 'gpt2' is not supported"));
    CHECK(contains(config("{\"model_type\": \"llama\", \"num_hidden_layers\": -1}"), "not a size"));
    CHECK(contains(config("{\"model_type\": \"llama\"}"), "'num_hidden_layers' is missing"));
    CHECK(contains(config(config_of(shape, ", \"quantization_config\": {\"quant_method\": \"awq\"}")),
                   "quant_method 'awq' is not supported"));
    CHECK(contains(config(config_of(shape, ", \"rope_parameters\": {\"rope_type\": \"twisted\", \"factor\": 4}")),
                   "rope scaling 'twisted' is not supported"));
    std::string curved = config_of(shape);
    curved.replace(curved.find("silu"), 4, "tanh");
    CHECK(contains(config(curved), "activation 'tanh' is not supported, expected one of 'silu'"));
    ModelShape wider = shape;
    wider.feed_forward += 1;
    CHECK(contains(config(config_of(wider)), "from the model's config.json"));
    std::string windowed = config_of(shape, ", \"sliding_window\": 16");
    windowed.replace(windowed.find("llama"), 5, "mistral");
    CHECK(config(windowed) == "");
    CHECK(BaseModel(folder.path).shape().layer.at(0).window == 16);
    CHECK(config(config_of(shape)) == "");
    CHECK(contains(error_of([&] { BaseModel(folder.path).tokenizer(true); }), "there is no tokenizer.json and no tokenizer.model; put"));
    folder.write("tokenizer.json", "{}");
    CHECK(contains(error_of([&] { BaseModel(folder.path).tokenizer(true); }), "tokenizer.json: model: type '' is not supported"));
    CHECK(BaseModel(folder.path).tokenizer(false) == nullptr);

    const auto index = [&](const std::string &text) {
        folder.write("model.safetensors.index.json", text);
        return error();
    };
    CHECK(contains(index("{}"), "weight_map"));
    CHECK(contains(index("{\"weight_map\": {\"x\": 3}}"), "its file is not a string"));
    CHECK(contains(index("{\"weight_map\": {\"x\": \"../model.safetensors\"}}"), "not the name of a file"));
    CHECK(contains(index("{\"weight_map\": {\"x\": \"absent.safetensors\"}}"), "absent.safetensors"));
    CHECK(contains(index("{\"weight_map\": {\"x\": \"model.safetensors\"}}"), "tensor 'x' is not in"));
}
