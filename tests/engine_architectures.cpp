// A tiny model of random weights for every row of the table of architectures, and for what config.json can change in the
// order of a block: what must hold whatever the weights are.
// Whether they compute what PyTorch computes is for zoo_check to say.
#include "engine_support.h"

#include "adapter_file.h"
#include "decoder.h"
#include "generate.h"
#include "hugging_face.h"
#include "network.h"
#include "rng.h"
#include "safetensors.h"
#include "weight_loader.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <sys/stat.h>

using namespace finetune;

namespace {

const uint32_t vocabulary = 64, positions = 32, window = 5;

struct Kind {
    const Traits &traits;
    const char *keys; // of config.json beside the usual ones
};

std::vector<Kind> kinds() {
    std::vector<Kind> all;
    for (const Traits &traits : architectures()) all.push_back({traits, ""});
    const Traits &opt = *find_model_type("opt"), &bloom = *find_model_type("bloom");
    all.push_back({opt, ", \"do_layer_norm_before\": false, \"word_embed_proj_dim\": 24"});
    all.push_back({opt, ", \"layer_norm_elementwise_affine\": false, \"_remove_final_layer_norm\": true"});
    all.push_back({bloom, ", \"apply_residual_connection_post_layernorm\": true"});
    return all;
}

// A Hugging Face directory that is gone with the object.
class TinyModel {
public:
    explicit TinyModel(const Kind &kind) : traits_(kind.traits), path_(mark_.path + "_model") {
        const Traits &traits = traits_;
        mkdir(path_.c_str(), 0700);
        char config[800];
        snprintf(config, sizeof(config),
                 "{\"model_type\": \"%s\", \"hidden_size\": 32, \"num_hidden_layers\": 2, \"num_attention_heads\": 4, "
                 "\"num_key_value_heads\": %d, \"intermediate_size\": 48, \"vocab_size\": %u, \"max_position_embeddings\": "
                 "%u, \"sliding_window\": %u, \"sliding_window_pattern\": 2, \"no_rope_layer_interval\": 2, "
                 "\"query_pre_attn_scalar\": 6, \"tie_word_embeddings\": false%s%s}",
                 traits.model_type, traits.norm == NormKind::rms ? 2 : 4, vocabulary, positions, window,
                 traits.residual == Residual::shared     ? ", \"rotary_dim\": 4"
                 : traits.residual == Residual::parallel ? ", \"partial_rotary_factor\": 0.5"
                                                         : "",
                 kind.keys);
        write("config.json", config);
        shape_ = read_model_shape(read_config(path_ + "/config.json"));
        for (const Name &name : traits.naming->model) add_module(name.gguf, name.hugging_face);
        if (const uint64_t table = shape_.table_width; table != 0 && table != shape_.embedding) {
            add("model.decoder.project_in.weight", {shape_.embedding, table}, 0, 0.4f);
            add("model.decoder.project_out.weight", {table, shape_.embedding}, 0, 0.4f);
        }
        for (uint32_t layer = 0; layer < shape_.layers; ++layer)
            for (const Name &name : traits.naming->block)
                add_module(name.gguf, traits.naming->layers + std::to_string(layer) + "." + name.hugging_face);
        writer_.save(path_ + "/model.safetensors");
    }
    ~TinyModel() {
        for (const char *name : {"/config.json", "/model.safetensors"}) unlink((path_ + name).c_str());
        rmdir(path_.c_str());
    }

    const std::string &path() const { return path_; }

private:
    void write(const std::string &name, const std::string &text) const {
        std::ofstream(path_ + "/" + name, std::ios::binary) << text;
    }

    void add(const std::string &name, std::vector<uint64_t> shape, float middle, float size) {
        uint64_t count = 1;
        for (uint64_t one : shape) count *= one;
        Random random(11, values_.size());
        values_.emplace_back();
        for (uint64_t i = 0; i < count; ++i) values_.back().push_back(middle + size * (2 * random.next_uniform() - 1));
        writer_.add_f32(name, std::move(shape), values_.back().data());
    }

    void add_module(const std::string &gguf, const std::string &name) {
        const bool biased = traits_.norm == NormKind::layer;
        const uint64_t width = shape_.embedding, table = shape_.table_width != 0 ? shape_.table_width : width;
        if (gguf == "token_embd" || gguf == "output") return add(name + ".weight", {vocabulary, table}, 0, 1);
        if (gguf == "position_embd") return add(name + ".weight", {positions + 2, width}, 0, 1);
        for (Linear linear : traits_.linears())
            if (gguf == linear_gguf_names[linear]) {
                const uint64_t inputs = shape_.inputs(linear), outputs = shape_.outputs(linear);
                add(name + ".weight", {outputs, inputs}, 0, 2 / std::sqrt(float(inputs)));
                if (biased) add(name + ".bias", {outputs}, 0, 0.3f);
                return;
            }
        if (shape_.plain_norms || (gguf == "output_norm" && !shape_.output_norm)) return;
        const bool heads = gguf == "attn_q_norm" || gguf == "attn_k_norm";
        const uint64_t all = gguf == "attn_q_norm" ? shape_.q_width() : shape_.kv_width();
        const uint64_t count = !heads ? width : traits_.head_norm == HeadNorm::head ? shape_.head_dim : all;
        add(name + ".weight", {count}, traits_.offset_norms ? 0 : 1, 0.3f);
        if (biased) add(name + ".bias", {count}, 0, 0.3f);
    }

    const Traits &traits_;
    Scratch mark_;
    std::string path_;
    ModelShape shape_;
    std::deque<std::vector<float>> values_;
    SafeTensorsWriter writer_;
};

Adapter random_adapter(const AdapterShape &shape) {
    Adapter adapter = initial_adapter(shape, 8, 1);
    Random random(5, 0);
    for (AdapterPair &pair : adapter.pairs)
        for (float &value : pair.b) value = 0.2f * (random.next_uniform() - 0.5f);
    return adapter;
}

std::vector<int32_t> random_ids(uint64_t seed, size_t count) {
    Random random(seed, 0);
    std::vector<int32_t> ids(count);
    for (int32_t &id : ids) id = int32_t(random.next_below(vocabulary));
    return ids;
}

int32_t best(const std::vector<float> &logits) {
    return static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin());
}

std::vector<float> all_gradients(Device &device, const Trainable &adapter) {
    std::vector<float> all;
    for (const qlora_parameter &parameter : adapter.parameters()) {
        std::vector<float> one(parameter.count);
        device.read(parameter.gradient, one.data(), one.size() * 4);
        all.insert(all.end(), one.begin(), one.end());
    }
    return all;
}

} // namespace

TEST_CASE("architectures: answers with kept keys and values are those without, in groups and in pieces") {
    Device device("cpu", 1);
    const uint32_t length = 6;
    for (const Kind &kind : kinds()) {
        CAPTURE(std::string(kind.traits.model_type) + kind.keys);
        const TinyModel tiny(kind);
        const BaseModel base(tiny.path());
        const AdapterShape shape = base.shape().adapter_shape(4);
        const Model model(device, base, 0, 0);
        const Trainable adapter(device, shape, random_adapter(shape));
        const std::vector<std::vector<int32_t>> prompts = {random_ids(1, 3), random_ids(2, 9), random_ids(3, 6)};
        Generator together(device, model, adapter, {}, 3, 9, length), single(device, model, adapter, {}, 1, 9 + length, 1);
        const auto answers = together.generate(prompts, -1);
        for (size_t i = 0; i < prompts.size(); ++i) {
            std::vector<int32_t> text = prompts[i];
            for (uint32_t k = 0; k < length; ++k) text.push_back(single.generate({text}, -1)[0].at(0));
            CHECK(std::vector<int32_t>(text.begin() + long(prompts[i].size()), text.end()) == answers[i]);
        }
        Decoder decoder(device, model, adapter, {}, 9 + length, 4); // pieces of four tokens, then one by one
        std::vector<int32_t> answer = {best(decoder.set(prompts[1]))};
        while (answer.size() < length) answer.push_back(best(decoder.append(answer.back())));
        CHECK(answer == answers[1]);
    }
}

TEST_CASE("architectures: the gradient is the slope of the loss, with blocks kept or computed again") {
    Device device("ref", 1);
    for (const Kind &kind : kinds()) {
        CAPTURE(std::string(kind.traits.model_type) + kind.keys);
        const TinyModel tiny(kind);
        const BaseModel base(tiny.path());
        const AdapterShape shape = base.shape().adapter_shape(2);
        const Model model(device, base, 0, 0);
        const Adapter initial = random_adapter(shape);
        Batch batch;
        batch.add(random_ids(7, 9).data(), 9, 1);
        batch.add(random_ids(8, 5).data(), 5, 1);
        BatchBounds bounds;
        bounds.include(batch);
        std::vector<float> direction;
        const auto run = [&](float distance, bool checkpointing, std::vector<float> *gradients) {
            Adapter moved = initial;
            size_t i = 0;
            for (AdapterPair &pair : moved.pairs)
                for (std::vector<float> *half : {&pair.a, &pair.b})
                    for (float &value : *half) value += distance == 0 ? 0 : distance * direction[i++];
            const Trainable adapter(device, shape, moved);
            Network network(device, model, adapter, {{}, checkpointing, true}, bounds);
            network.train(batch, 1, false);
            if (gradients != nullptr) *gradients = all_gradients(device, adapter);
            return network.read_loss();
        };
        std::vector<float> again, kept;
        const double loss = run(0, true, &again);
        CHECK(run(0, false, &kept) == doctest::Approx(loss).epsilon(1e-6));
        double expected = 0, norm = 0, difference = 0;
        Random random(9, 0);
        for (size_t i = 0; i < again.size(); ++i) {
            norm += std::pow(double(again[i]), 2);
            difference += std::pow(double(again[i]) - double(kept[i]), 2);
            direction.push_back(random.next_uniform() - 0.5f);
            direction.back() += again[i] > 0 ? 0.5f : -0.5f; // mostly uphill, so that roundings stay small beside it
            expected += double(direction[i]) * double(again[i]);
        }
        CHECK(difference <= 1e-10 * norm);
        const float distance = 1e-4f; // short: thousands of values move at once
        const double slope = (run(distance, true, nullptr) - run(-distance, true, nullptr)) / (2 * double(distance));
        CHECK(slope == doctest::Approx(expected).epsilon(0.01));
    }
}

TEST_CASE("architectures: adapters are named as Hugging Face names modules, and come back from both kinds of file") {
    for (const Kind &kind : kinds()) {
        CAPTURE(std::string(kind.traits.model_type) + kind.keys);
        const TinyModel tiny(kind);
        const BaseModel model(tiny.path());
        const AdapterShape shape = model.shape().adapter_shape(3);
        const Adapter adapter = random_adapter(shape);
        const Scratch gguf("", ".gguf"), peft("", ".safetensors");
        write_adapter_gguf(gguf.path, adapter, shape);
        write_adapter_peft(peft.path, adapter, shape);
        const SafeTensors file(peft.path), base(tiny.path() + "/model.safetensors");
        const std::string prefix = "base_model.model.", ending = ".lora_A.weight";
        for (const SafeTensor &tensor : file.tensors()) {
            if (tensor.name.find("lora_A") == std::string::npos) continue;
            const std::string module = tensor.name.substr(prefix.size(), tensor.name.size() - prefix.size() - ending.size());
            CHECK(base.find(module + ".weight") != nullptr);
        }
        // Adapters of a model that sees fit the one that only reads, and the other way round.
        const Scratch renamed("", ".safetensors");
        AdapterShape other_names = shape;
        if (std::string(shape.traits->naming->layers) == "model.layers.")
            other_names.layers_name = shape.layers_name.empty() ? std::string(text_part) + "layers." : "";
        write_adapter_peft(renamed.path, adapter, other_names);
        for (const std::string &path : {gguf.path, peft.path, renamed.path}) {
            AdapterShape found;
            const Adapter read = device_adapter({read_adapter_file(path, 8)}, {1}, model, &found);
            CHECK(found.rank == 3);
            REQUIRE(read.pairs.size() == adapter.pairs.size());
            for (size_t i = 0; i < read.pairs.size(); ++i) {
                CHECK(read.pairs[i].a == adapter.pairs[i].a);
                CHECK(read.pairs[i].b == adapter.pairs[i].b);
            }
        }
        // Heads of q, k and v in turn, or rotary pairs: in a file of the other kind rows lie elsewhere.
        const Gguf other(gguf.path);
        for (size_t i = 0; i < shape.pairs(); ++i) {
            const GgufTensor &b = other.tensor(shape.gguf_name(i) + ".lora_b");
            const std::vector<float> theirs = file.floats(file.get(shape.peft_name(i, "lora_B")));
            const bool equal = memcmp(b.data, theirs.data(), theirs.size() * 4) == 0;
            CHECK(equal == (shape.linear(i).rows == HeadOrder::same));
        }
    }
}

TEST_CASE("architectures: heads whose q, k and v come in turn are put in order in the formats of bitsandbytes, too, to the bit") {
    Device device("cpu", 1);
    const uint32_t heads = 4;
    const uint64_t rows = 3 * heads * 2, cols = 128;
    const std::vector<uint64_t> from = hugging_face_rows(HeadOrder::interleaved, rows, heads);
    Random random(3, 0);
    std::vector<float> values(rows * cols);
    for (float &value : values) value = random.next_uniform() - 0.5f;
    const qlora::Buffer source(device.context(), values);
    for (int32_t format : {QLORA_FORMAT_F32, QLORA_FORMAT_NF4, QLORA_FORMAT_NF4_DQ, QLORA_FORMAT_FP4_DQ, QLORA_FORMAT_INT8}) {
        CAPTURE(format);
        const qlora::Weight weight(device.context(), format, rows, cols, 0);
        auto args = qlora::make<qlora_quantize_args>();
        args.weight = weight.get();
        args.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, source.span());
        device.quantize(args);
        const HostWeight host = download_weight(weight);
        StoredWeight stored;
        stored.format = format;
        stored.block = host.block != 0 ? host.block : qlora::format_query(format).block;
        stored.rows = rows;
        stored.cols = cols;
        for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
            if (!host.planes[plane].empty()) stored.planes[plane] = host.planes[plane].data();
        const std::vector<float> before = decode_weight(stored);
        reorder_rows(stored, from, "attn_qkv.weight");
        const std::vector<float> after = decode_weight(stored);
        for (uint64_t row = 0; row < rows; ++row)
            CHECK(std::equal(&after[row * cols], &after[row * cols] + cols, &before[from[row] * cols]));
    }
    StoredWeight other;
    other.format = QLORA_FORMAT_Q4_0;
    other.rows = rows;
    other.cols = cols;
    CHECK(contains(error_of([&] { reorder_rows(other, from, "attn_qkv.weight"); }), "take an F16 base"));
}
