#include "inspect.h"

#include "adapter_file.h"
#include "gguf.h"
#include "safetensors.h"
#include "tokenizer.h"

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <map>

namespace finetune {
namespace {

namespace fs = std::filesystem;

struct TypeCount {
    uint64_t tensors = 0, values = 0, bytes = 0;
};

double bits(uint64_t bytes, uint64_t values) { return values == 0 ? 0 : 8 * double(bytes) / double(values); }

void add_types(Json &out, const std::map<std::string, TypeCount> &types) {
    std::vector<std::pair<std::string, TypeCount>> order(types.begin(), types.end());
    std::stable_sort(order.begin(), order.end(), [](auto &a, auto &b) { return a.second.bytes > b.second.bytes; });
    TypeCount all;
    out["types"] = Json::array();
    for (const auto &[type, count] : order) {
        out["types"].push_back({{"type", type},
                                {"tensors", count.tensors},
                                {"values", count.values},
                                {"bytes", count.bytes},
                                {"bits_per_weight", bits(count.bytes, count.values)}});
        all.tensors += count.tensors;
        all.values += count.values;
        all.bytes += count.bytes;
    }
    out["tensors"] = all.tensors;
    out["parameters"] = all.values;
    out["bits_per_weight"] = bits(all.bytes, all.values);
}

// A value of a GGUF file; of arrays their length, and the first elements.
Json key_value(const Gguf &file, std::string_view key) {
    const std::string_view entry = file.entry(key);
    uint32_t type = 0;
    memcpy(&type, entry.data() + 8 + key.size(), sizeof(type));
    const uint32_t type_f32_value = 6, type_bool = 7, type_string = 8, type_array = 9, type_f64 = 12;
    if (type == type_string) return std::string(*file.find_string(key));
    if (type == type_f32_value || type == type_f64) {
        double value = 0;
        float narrow = 0;
        const char *at = entry.data() + 8 + key.size() + 4;
        if (type == type_f64) memcpy(&value, at, sizeof(value));
        else memcpy(&narrow, at, sizeof(narrow));
        return type == type_f64 ? value : double(narrow);
    }
    if (type == type_bool) return *file.find_bool(key);
    if (type != type_array) {
        int64_t value = 0;
        const uint32_t sizes[] = {1, 1, 2, 2, 4, 4, 0, 0, 0, 0, 8, 8};
        const uint32_t size = type < 12 ? sizes[type] : 0;
        const char *at = entry.data() + 8 + key.size() + 4;
        memcpy(&value, at, size);
        const bool is_signed = type == 1 || type == 3 || type == 5;
        if (is_signed && size < 8 && (value >> (8 * size - 1) & 1) != 0) value -= int64_t(1) << (8 * size);
        return type == 10 ? Json(uint64_t(value)) : Json(value);
    }
    uint32_t element = 0;
    uint64_t count = 0;
    memcpy(&element, entry.data() + 8 + key.size() + 4, sizeof(element));
    memcpy(&count, entry.data() + 8 + key.size() + 8, sizeof(count));
    return "array of " + std::to_string(count) + (element == type_string ? " texts" : " values");
}

void add_shape(Json &out, const ModelShape &shape) {
    out["architecture"] = shape.traits->gguf;
    out["layers"] = shape.layers;
    out["embedding"] = shape.embedding;
    out["heads"] = shape.heads;
    out["kv_heads"] = shape.kv_heads;
    out["head_dim"] = shape.head_dim;
    out["feed_forward"] = shape.feed_forward;
    out["vocabulary"] = shape.vocabulary;
    out["context"] = shape.context;
}

const char *kind_name(TokenizerKind kind) {
    return kind == TokenizerKind::byte_pairs ? "byte pairs" : kind == TokenizerKind::unigram ? "SentencePiece unigram" : "SentencePiece pairs";
}

void add_tokenizer(Json &out, const Tokenizer &tokenizer) {
    const auto token = [&](int32_t id) { return id < 0 ? Json() : Json{{"id", id}, {"piece", tokenizer.piece(id)}}; };
    out["tokenizer"] = {{"kind", kind_name(tokenizer.kind())},
                        {"tokens", tokenizer.size()},
                        {"begin", token(tokenizer.begin_token())},
                        {"end", token(tokenizer.end_token())},
                        {"turn_end", token(tokenizer.turn_end_token())},
                        {"adds_begin", tokenizer.adds_begin()}};
    if (!tokenizer.words().empty()) out["tokenizer"]["pre_tokenizer"] = tokenizer.words();
    if (!tokenizer.chat_template().empty()) out["chat_template"] = tokenizer.chat_template();
}

// What this program makes of it as a base.
void add_base(Json &out, const std::string &path) {
    try {
        const BaseModel base(path);
        add_shape(out, base.shape());
        out["base"] = "can be fine-tuned";
        try {
            if (const auto tokenizer = base.tokenizer(true)) add_tokenizer(out, *tokenizer);
        } catch (const Error &error) { out["tokenizer"] = {{"problem", error.what()}}; }
    } catch (const Error &error) { out["base"] = std::string("cannot be fine-tuned: ") + error.what(); }
}

void add_adapter(Json &out, const std::string &path, bool has_config) {
    const AdapterFile adapter = read_adapter_file(path, has_config ? -1 : 0);
    uint64_t values = 0;
    std::map<std::string, uint64_t> modules;
    std::map<uint64_t, uint64_t> ranks;
    for (const LoraPair &pair : adapter.pairs) {
        values += pair.a.size() + pair.b.size();
        std::string name = pair.module;
        const size_t digits = name.find_first_of("0123456789");
        const size_t rest = digits == std::string::npos ? 0 : name.find('.', digits);
        ++modules[rest == std::string::npos ? name : name.substr(rest == 0 ? 0 : rest + 1)];
        ++ranks[pair.rank];
    }
    out["adapter"] = {{"layers", adapter.pairs.size()}, {"parameters", values}, {"modules", modules}};
    out["adapter"]["ranks"] = Json::array();
    for (const auto &[rank, count] : ranks) out["adapter"]["ranks"].push_back({{"rank", rank}, {"layers", count}});
    if (has_config) out["adapter"]["scale"] = adapter.pairs[0].scale;
    if (!adapter.architecture.empty()) out["architecture"] = adapter.architecture;
}

Json inspect_gguf(const std::string &path) {
    const Gguf file(path);
    Json out = {{"path", path}, {"format", "GGUF version " + std::to_string(file.version())}};
    const std::string type(file.find_string("general.type").value_or("model"));
    std::map<std::string, TypeCount> types;
    for (const GgufTensor &tensor : file.tensors()) {
        TypeCount &count = types[tensor.type->name];
        ++count.tensors;
        count.values += tensor.elements;
        count.bytes += tensor.bytes;
    }
    add_types(out, types);
    if (type == "adapter") {
        out["kind"] = "LoRA adapter";
        add_adapter(out, path, true);
    } else if (file.tensors().empty()) {
        out["kind"] = "vocabulary";
        add_tokenizer(out, Tokenizer(file));
    } else {
        out["kind"] = "model";
        if (const auto name = file.find_string("general.name")) out["name"] = std::string(*name);
        add_base(out, path);
    }
    out["keys"] = Json::array();
    for (std::string_view key : file.keys()) out["keys"].push_back({{"key", std::string(key)}, {"value", key_value(file, key)}});
    return out;
}

Json inspect_safetensors(const std::string &path, bool directory) {
    const SafeTensors file(path);
    Json out = {{"path", path}, {"format", "safetensors"}};
    std::map<std::string, TypeCount> types;
    bool lora = !file.tensors().empty();
    for (const SafeTensor &tensor : file.tensors()) {
        TypeCount &count = types[tensor.dtype];
        ++count.tensors;
        count.values += tensor.elements;
        count.bytes += tensor.bytes;
        lora = lora && tensor.name.find(".lora_") != std::string::npos;
    }
    add_types(out, types);
    const std::string *format = file.metadata("format");
    if (format != nullptr && *format == "qlora-optimizer-state") {
        out["kind"] = "optimizer state";
        for (const char *key : {"optimizer", "step", "version"})
            if (const std::string *value = file.metadata(key)) out["state"][key] = *value;
    } else if (directory && !lora) {
        out["kind"] = "Hugging Face model";
        add_base(out, path);
    } else if (lora) {
        out["kind"] = "LoRA adapter";
        add_adapter(out, path, exists(file.folder() + "adapter_config.json"));
    } else {
        out["kind"] = "tensors";
        for (const SafeTensor &tensor : file.tensors())
            out["keys"].push_back({{"key", tensor.name}, {"value", tensor.dtype + " of " + std::to_string(tensor.elements)}});
    }
    return out;
}

} // namespace

Json inspect(const std::string &path) {
    Json out;
    uint64_t bytes = 0;
    if (is_directory(path)) {
        const std::string folder = path.back() == '/' ? path : path + "/";
        if (exists(folder + "adapter_model.safetensors")) {
            out = inspect_safetensors(folder + "adapter_model.safetensors", false);
            out["path"] = path;
            out["kind"] = "LoRA adapter (PEFT's directory)";
        } else if (exists(folder + "config.json")) {
            out = inspect_safetensors(path, true);
        } else if (exists(folder + "state.safetensors")) {
            out = inspect_safetensors(folder + "state.safetensors", false);
            out["kind"] = "checkpoint of a run";
        } else if (exists(folder + "config.toml") && exists(folder + "adapter.gguf")) {
            out = inspect_gguf(folder + "adapter.gguf");
            out["kind"] = "folder of a run, its adapter";
        } else {
            fail(path, ": no model, adapter or run: expected config.json, adapter_model.safetensors, or the adapter.gguf of a complete "
                       "run in this directory");
        }
        for (const fs::directory_entry &entry : fs::directory_iterator(path))
            if (entry.is_regular_file()) bytes += entry.file_size();
    } else {
        const MappedFile file(path);
        bytes = file.size();
        if (file.text().substr(0, 4) == "GGUF") {
            out = inspect_gguf(path);
        } else if (file.size() > 8 && file.text().substr(8, 1) == "{") {
            out = inspect_safetensors(path, false);
        } else {
            fail(path, ": neither GGUF nor safetensors; expected a model, an adapter or a state file",
                 file.text().substr(0, 2) == "PK" ? " (a PyTorch pickle: save it as safetensors)" : "");
        }
    }
    out["bytes"] = bytes;
    return out;
}

} // namespace finetune
