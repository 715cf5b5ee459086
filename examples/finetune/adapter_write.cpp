// Adapters of the combined forms as files.
#include "adapter_file.h"
#include "decode.h"
#include "json.h"
#include "run_folder.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <set>

namespace finetune {
namespace {

// The values of one half in the type of its file, alive until the file is written.
struct Encoded {
    std::string name, dtype;
    uint64_t rows, cols;
    std::vector<uint16_t> halves;
    const float *floats;

    const void *data() const { return halves.empty() ? static_cast<const void *>(floats) : halves.data(); }
};

Encoded encode(const std::string &name, const std::string &dtype, uint64_t rows, uint64_t cols,
               const std::vector<float> &values) {
    Encoded one = {name, dtype.empty() ? "F32" : dtype, rows, cols, {}, values.data()};
    if (one.dtype == "F16")
        for (float value : values) one.halves.push_back(float_to_half(value));
    if (one.dtype == "BF16")
        for (float value : values) one.halves.push_back(float_to_bfloat(value));
    return one;
}

std::string to_hex(const std::string &bytes) {
    const char digits[] = "0123456789abcdef";
    std::string text;
    for (unsigned char byte : bytes) (text += digits[byte >> 4]) += digits[byte & 15];
    return text;
}

std::string joined(const std::vector<std::string> &texts) {
    std::string all;
    for (const std::string &text : texts) all += (all.empty() ? "" : "\n") + text;
    return all;
}

// A file has one alpha, and scales of alpha / rank: where those of the pairs differ, B takes the difference.
double common_alpha(std::vector<LoraPair> &pairs) {
    double alpha = double(float(pairs[0].scale * double(pairs[0].rank)));
    if (alpha == 0) alpha = double(pairs[0].rank); // readers take 0 as a scale of 1: B becomes zeros instead
    for (LoraPair &pair : pairs) {
        const double factor = pair.scale * double(pair.rank) / alpha;
        if (std::abs(factor - 1) < 1e-6) continue; // float's alpha is no nearer
        for (float &value : pair.b) value = float(double(value) * factor);
        pair.dtype_b = "F32";
        pair.scale = alpha / double(pair.rank);
    }
    return alpha;
}

// The keys that a GGUF adapter had before it was PEFT's, with an alpha that may have changed. Empty: there are none, or
// they are not of this adapter.
struct KeptKey {
    std::string_view key, entry;
};
std::vector<KeptKey> kept_keys(const AdapterFile &adapter) {
    // As a file without tensors, so that the reader checks them.
    std::vector<KeptKey> keys;
    const std::string_view bytes = adapter.gguf_keys;
    const auto number = [&](size_t at, size_t size) {
        uint64_t value = 0;
        if (at + size <= bytes.size() && at + size >= at) memcpy(&value, bytes.data() + at, size);
        return value;
    };
    const uint64_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    for (size_t at = 0; at < bytes.size();) {
        const size_t begin = at;
        const uint64_t length = number(at, 8);
        if (bytes.size() - at < 8 || length > bytes.size() - at - 8) return {};
        const std::string_view key = bytes.substr(at + 8, length);
        at += 8 + length;
        uint64_t type = number(at, 4), count = 1;
        at += 4;
        if (type == 9) {
            type = number(at, 4);
            count = number(at + 4, 8);
            at += 12;
        }
        if (type > 12 || type == 9 || count > bytes.size()) return {};
        for (uint64_t i = 0; i < count; ++i) {
            if (type == 8 && number(at, 8) > bytes.size()) return {};
            const uint64_t size = type == 8 ? 8 + number(at, 8) : sizes[type];
            if (at > bytes.size() || size > bytes.size() - at) return {};
            at += size;
        }
        if (at > bytes.size()) return {};
        if (key != "general.alignment") keys.push_back({key, bytes.substr(begin, at - begin)}); // the writer has its own
    }
    return keys;
}

} // namespace

void write_gguf_adapter(const std::string &path, const AdapterFile &adapter) {
    std::vector<LoraPair> pairs = adapter.pairs;
    const double alpha = common_alpha(pairs);
    const std::vector<KeptKey> kept = kept_keys(adapter);
    const auto has = [&](const char *key) {
        return std::any_of(kept.begin(), kept.end(), [&](const KeptKey &one) { return one.key == key; });
    };
    GgufWriter writer;
    if (has("general.architecture") && has("adapter.lora.alpha")) {
        for (const KeptKey &one : kept) {
            float was = 0;
            if (one.entry.size() >= 4) memcpy(&was, one.entry.data() + one.entry.size() - 4, 4);
            const bool without = was == 0 && alpha == double(pairs[0].rank); // an alpha of 0 is a scale of 1
            if (one.key == "general.architecture") writer.add_string(one.key, adapter.architecture);
            else if (one.key == "adapter.lora.alpha" && !without) writer.add_f32(one.key, float(alpha));
            else writer.add_entry(one.entry);
        }
    } else {
        writer.add_string("general.architecture", adapter.architecture);
        writer.add_string("general.type", "adapter");
        writer.add_string("adapter.type", "lora");
        writer.add_f32("adapter.lora.alpha", float(alpha));
    }
    std::vector<Encoded> halves;
    for (const LoraPair &pair : pairs) {
        halves.push_back(encode(pair.module + ".weight.lora_a", pair.dtype_a, pair.rank, pair.inputs, pair.a));
        halves.push_back(encode(pair.module + ".weight.lora_b", pair.dtype_b, pair.outputs, pair.rank, pair.b));
    }
    if (adapter.gguf_order.size() == halves.size()) {
        std::map<std::string, size_t> places;
        for (size_t i = 0; i < adapter.gguf_order.size(); ++i) places.emplace(adapter.gguf_order[i], i);
        const auto place = [&](const Encoded &half) {
            const auto found = places.find(half.name);
            return found == places.end() ? places.size() : found->second;
        };
        std::stable_sort(halves.begin(), halves.end(),
                         [&](const Encoded &a, const Encoded &b) { return place(a) < place(b); });
    }
    for (const Encoded &half : halves)
        writer.add_tensor(half.name, half.dtype == "F16" ? type_f16 : half.dtype == "BF16" ? type_bf16 : type_f32,
                          {half.cols, half.rows}, half.data());
    writer.save(path);
}

void write_peft_adapter(const std::string &directory, const AdapterFile &adapter, const std::string &base_name) {
    std::error_code problem;
    std::filesystem::create_directories(directory, problem);
    if (problem) fail(directory, ": cannot be created: ", problem.message());
    const std::string folder = directory.back() == '/' ? directory : directory + "/";

    // r and lora_alpha of most modules; the others by name.
    const auto alpha_of = [](const LoraPair &pair) {
        const double alpha = pair.scale * double(pair.rank), rounded = double(float(alpha));
        return std::abs(alpha - rounded) <= 1e-12 * std::abs(alpha) ? rounded : alpha;
    };
    std::map<uint64_t, size_t> ranks;
    for (const LoraPair &pair : adapter.pairs) ++ranks[pair.rank];
    const uint64_t rank = std::max_element(ranks.begin(), ranks.end(), [](auto &a, auto &b) { return a.second < b.second; })->first;
    const auto usual = std::find_if(adapter.pairs.begin(), adapter.pairs.end(), [&](const LoraPair &pair) { return pair.rank == rank; });
    const double alpha = alpha_of(*usual);
    Json rank_pattern = Json::object(), alpha_pattern = Json::object();
    std::map<std::string, size_t> leaves; // last names of modules
    for (const LoraPair &pair : adapter.pairs) {
        if (pair.rank != rank) rank_pattern[pair.module] = pair.rank;
        if (std::abs(alpha_of(pair) - alpha) > 1e-9 * std::abs(alpha)) alpha_pattern[pair.module] = alpha_of(pair);
        ++leaves[pair.module.substr(pair.module.rfind('.') + 1)];
    }
    // A last name stands for that module of every layer, so it names targets only when each has it. What a model sees with
    // has layers of the same last names.
    std::set<std::string> layers;
    for (const LoraPair &pair : adapter.pairs) {
        const size_t at = pair.module.find_first_of("0123456789");
        if (at != std::string::npos) layers.insert(pair.module.substr(0, pair.module.find('.', at)));
    }
    Json targets = Json::array();
    const bool sees = usual->module.rfind(text_part, 0) == 0;
    const bool everywhere = !sees && adapter.whole_layers && std::all_of(leaves.begin(), leaves.end(), [&](auto &leaf) { return leaf.second == layers.size(); });
    for (const auto &[leaf, count] : leaves)
        if (everywhere) targets.push_back(leaf);
    if (!everywhere)
        for (const LoraPair &pair : adapter.pairs) targets.push_back(pair.module);
    const Json integral = alpha == std::floor(alpha) && std::abs(alpha) < 1e9 ? Json(int64_t(alpha)) : Json(alpha);
    const Json config = {{"peft_type", "LORA"},
                         {"task_type", "CAUSAL_LM"},
                         {"base_model_name_or_path", base_name},
                         {"r", rank},
                         {"lora_alpha", integral},
                         {"use_rslora", false},
                         {"lora_dropout", 0.0},
                         {"bias", "none"},
                         {"fan_in_fan_out", false},
                         {"inference_mode", true},
                         {"init_lora_weights", true},
                         {"modules_to_save", nullptr},
                         {"target_modules", targets},
                         {"rank_pattern", rank_pattern},
                         {"alpha_pattern", alpha_pattern}};

    SafeTensorsWriter writer;
    writer.add_metadata("format", "pt");
    if (!adapter.gguf_keys.empty()) {
        writer.add_metadata("gguf_keys", to_hex(adapter.gguf_keys));
        writer.add_metadata("gguf_order", joined(adapter.gguf_order));
    }
    std::vector<Encoded> halves;
    for (const LoraPair &pair : adapter.pairs) {
        const std::string name = "base_model.model." + pair.module;
        halves.push_back(encode(name + ".lora_A.weight", pair.dtype_a, pair.rank, pair.inputs, pair.a));
        halves.push_back(encode(name + ".lora_B.weight", pair.dtype_b, pair.outputs, pair.rank, pair.b));
    }
    for (const Encoded &half : halves) writer.add(half.name, half.dtype, {half.rows, half.cols}, half.data());
    writer.save(folder + "adapter_model.safetensors");
    write_text(folder + "adapter_config.json", config.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
}

bool names_gguf(const std::string &path) {
    const std::string ending = ".gguf";
    return path.size() > ending.size() && path.compare(path.size() - ending.size(), ending.size(), ending) == 0;
}

void write_adapter_file(const std::string &path, const AdapterFile &adapter, const std::string &base_name) {
    if (adapter.kind == AdapterKind::gguf) write_gguf_adapter(path, adapter);
    else write_peft_adapter(path, adapter, base_name);
}

} // namespace finetune
