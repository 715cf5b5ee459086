#include "adapter_file.h"

#include "decode.h"
#include "json.h"

#include <cmath>
#include <cstring>
#include <set>

namespace finetune {
namespace {

const std::string peft_prefix = "base_model.model.", keys_name = "gguf_keys", order_name = "gguf_order";

// adapter_config.json of PEFT, as far as it says what the tensors mean.
class PeftConfig {
public:
    PeftConfig(const std::string &path) : path_(path) { // NOLINT
        const MappedFile file(path);
        json_ = parse_json(file.text(), path, 16);
        if (!json_.is_object()) fail(path, ": expected a JSON object");
        const Json *type = find("peft_type");
        if (type != nullptr && (!type->is_string() || type->get<std::string>() != "LORA"))
            fail(path, ": peft_type is not LORA; only LoRA adapters are read");
        for (const char *key : {"use_dora", "fan_in_fan_out", "lora_bias", "use_qalora", "alora_invocation_tokens"})
            if (const Json *value = find(key); value != nullptr && *value != false)
                fail(path, ": ", key, " is not supported: the update is more than scale * B A there");
        if (const Json *saved = find("modules_to_save"); saved != nullptr && !(saved->is_array() && saved->empty()))
            fail(path, ": modules_to_save is not supported: whole layers are trained there; merge them into the base first");
        if (const Json *bias = find("bias"); bias != nullptr && *bias != "none")
            fail(path, ": bias is not \"none\": trained biases are not supported");
    }

    // alpha / r, or alpha / sqrt(r), with what the patterns say about the module.
    double scale(const std::string &module, uint64_t rank) const {
        const double alpha = pattern("alpha_pattern", module, number("lora_alpha", std::nan("")));
        if (std::isnan(alpha)) fail(path_, ": lora_alpha is missing");
        const double r = pattern("rank_pattern", module, number("r", double(rank)));
        if (r != double(rank))
            fail(path_, ": r is ", r, ", but the tensors of ", shown(module), " have rank ", rank);
        const Json *stabilized = find("use_rslora");
        return alpha / (stabilized != nullptr && *stabilized == true ? std::sqrt(r) : r);
    }

private:
    const Json *find(const char *key) const {
        const auto found = json_.find(key);
        return found == json_.end() || found->is_null() ? nullptr : &*found;
    }
    double number(const char *key, double absent) const {
        const Json *value = find(key);
        if (value != nullptr && !value->is_number()) fail(path_, ": ", key, " is not a number");
        return value == nullptr ? absent : value->get<double>();
    }
    // A key names a module by the end of its path, whole names only. Patterns that are more than names are refused.
    double pattern(const char *key, const std::string &module, double absent) const {
        const Json *patterns = find(key);
        if (patterns == nullptr) return absent;
        if (!patterns->is_object()) fail(path_, ": ", key, " is not an object");
        for (const auto &[name, value] : patterns->items()) {
            std::string plain = name;
            if (plain.rfind("^", 0) == 0) plain.erase(0, 1);
            if (plain.find_first_of("\\[](){}*+?|^$") != std::string::npos)
                fail(path_, ": ", key, ": ", shown(name), " is a regular expression; only names of modules are read");
            if (!value.is_number()) fail(path_, ": ", key, ": ", shown(name), " is not a number");
            const bool ends = module.size() >= plain.size() &&
                              module.compare(module.size() - plain.size(), plain.size(), plain) == 0;
            if (ends && (module.size() == plain.size() || module[module.size() - plain.size() - 1] == '.'))
                return value.get<double>();
        }
        return absent;
    }

    std::string path_;
    Json json_;
};

const char *const supported = "; expected lora_A and lora_B of linear layers";

void finish(AdapterFile &adapter, LoraPair &pair) {
    if (pair.a.empty() || pair.b.empty())
        adapter.reject(shown(pair.module), " has only one half of its LoRA; expected lora_A and lora_B");
    for (const std::vector<float> *values : {&pair.a, &pair.b})
        for (size_t i = 0; i < values->size(); ++i)
            if (!std::isfinite((*values)[i]))
                adapter.reject(shown(pair.module), values == &pair.a ? ", A" : ", B", ": element ", i,
                               " is not a finite number");
}

LoraPair &pair_of(AdapterFile &adapter, std::map<std::string, size_t> &index, const std::string &module) {
    const auto [found, added] = index.emplace(module, adapter.pairs.size());
    if (added) {
        adapter.pairs.emplace_back();
        adapter.pairs.back().module = module;
    }
    return adapter.pairs[found->second];
}

// rows x cols of one half.
void set_half(AdapterFile &adapter, LoraPair &pair, bool is_a, uint64_t rows, uint64_t cols, std::vector<float> values,
              const std::string &dtype) {
    std::vector<float> &half = is_a ? pair.a : pair.b;
    const uint64_t rank = is_a ? rows : cols;
    if (!half.empty()) adapter.reject(shown(pair.module), " has ", is_a ? "lora_A" : "lora_B", " twice");
    if (rows == 0 || cols == 0) adapter.reject(shown(pair.module), " is empty");
    if (pair.rank != 0 && pair.rank != rank)
        adapter.reject(shown(pair.module), ": A has rank ", is_a ? rank : pair.rank, ", B ", is_a ? pair.rank : rank);
    pair.rank = rank;
    (is_a ? pair.inputs : pair.outputs) = is_a ? cols : rows;
    half = std::move(values);
    (is_a ? pair.dtype_a : pair.dtype_b) = dtype;
}

AdapterFile read_gguf(const std::string &path) {
    const Gguf file(path);
    if (file.find_string("general.type").value_or("") != "adapter" ||
        file.find_string("adapter.type").value_or("") != "lora")
        file.reject("expected a LoRA adapter: general.type 'adapter' and adapter.type 'lora'");
    AdapterFile adapter;
    adapter.path = path;
    adapter.kind = AdapterKind::gguf;
    adapter.architecture = std::string(file.find_string("general.architecture").value_or(""));
    const double alpha = file.find_float("adapter.lora.alpha").value_or(0);
    for (std::string_view key : file.keys()) adapter.gguf_keys += file.entry(key);
    std::map<std::string, size_t> index;
    for (const GgufTensor &tensor : file.tensors()) {
        const std::string name(tensor.name);
        const size_t end = name.rfind(".weight.lora_");
        if (end == std::string::npos || end + 14 != name.size() || (name.back() != 'a' && name.back() != 'b') ||
            tensor.dims != 2)
            file.reject("tensor ", shown(name), " is not supported", supported);
        std::vector<float> values(tensor.elements);
        for (uint64_t i = 0; i < tensor.elements; ++i) {
            uint16_t bits = 0;
            if (tensor.type->id == type_f32) memcpy(&values[i], tensor.data + 4 * i, 4);
            else if (tensor.type->id == type_f16 || tensor.type->id == type_bf16) memcpy(&bits, tensor.data + 2 * i, 2);
            else file.reject("tensor ", shown(name), " is ", tensor.type->name, ", expected F32, F16 or BF16");
            if (tensor.type->id == type_f16) values[i] = half_to_float(bits);
            if (tensor.type->id == type_bf16) values[i] = bfloat_to_float(bits);
        }
        set_half(adapter, pair_of(adapter, index, name.substr(0, end)), name.back() == 'a', tensor.ne[1], tensor.ne[0],
                 std::move(values), tensor.type->name);
        adapter.gguf_order.push_back(name);
    }
    for (LoraPair &pair : adapter.pairs) {
        finish(adapter, pair);
        pair.scale = alpha == 0 ? 1 : alpha / double(pair.rank); // as llama.cpp reads it
    }
    return adapter;
}

// "base_model.model.MODULE.lora_A.weight", with the adapter's name before "weight" in files of a model in memory.
bool split_peft_name(const std::string &name, std::string *module, bool *is_a) {
    const size_t half = name.rfind(".lora_");
    if (name.rfind(peft_prefix, 0) != 0 || half == std::string::npos || half + 7 >= name.size() ||
        half < peft_prefix.size())
        return false;
    const std::string rest = name.substr(half + 6); // "A.weight", "A.default.weight"
    if ((rest[0] != 'A' && rest[0] != 'B') || rest[1] != '.' || rest.size() < 8 ||
        rest.compare(rest.size() - 6, 6, "weight") != 0)
        return false;
    *module = name.substr(peft_prefix.size(), half - peft_prefix.size());
    *is_a = rest[0] == 'A';
    return true;
}

std::string from_hex(const std::string &text) {
    const auto digit = [](char c) { return c >= 'a' ? c - 'a' + 10 : c - '0'; };
    std::string bytes;
    for (size_t i = 0; i + 1 < text.size(); i += 2)
        bytes += static_cast<char>(digit(text[i]) * 16 + digit(text[i + 1]));
    return bytes;
}

AdapterFile read_peft(const std::string &path, double alpha) {
    const SafeTensors file(path);
    AdapterFile adapter;
    adapter.path = path;
    adapter.kind = AdapterKind::peft;
    std::map<std::string, size_t> index;
    for (const SafeTensor &tensor : file.tensors()) {
        std::string module;
        bool is_a = false;
        if (!split_peft_name(tensor.name, &module, &is_a) || tensor.shape.size() != 2)
            file.reject("tensor ", shown(tensor.name), " is not supported", supported);
        set_half(adapter, pair_of(adapter, index, module), is_a, tensor.shape[0], tensor.shape[1], file.floats(tensor),
                 tensor.dtype);
    }
    const std::string config_path = file.folder() + "adapter_config.json";
    if (exists(config_path)) {
        const PeftConfig config(config_path);
        for (LoraPair &pair : adapter.pairs) pair.scale = config.scale(pair.module, pair.rank);
    } else {
        const std::string *own = file.metadata(adapter_alpha_name); // of a file of ours
        const bool given = alpha >= 0;
        if (!given && own != nullptr) alpha = strtod(own->c_str(), nullptr);
        if (!std::isfinite(alpha)) file.reject("the adapter's alpha is not a finite number");
        if (!given && own == nullptr)
            file.reject("there is no adapter_config.json beside it to tell the scale; give --alpha, or fetch the whole "
                        "adapter directory");
        for (LoraPair &pair : adapter.pairs) pair.scale = alpha / double(pair.rank);
    }
    for (LoraPair &pair : adapter.pairs) finish(adapter, pair);
    if (const std::string *keys = file.metadata(keys_name)) adapter.gguf_keys = from_hex(*keys);
    if (const std::string *order = file.metadata(order_name))
        for (size_t start = 0; start < order->size();) {
            const size_t end = std::min(order->find('\n', start), order->size());
            adapter.gguf_order.push_back(order->substr(start, end - start));
            start = end + 1;
        }
    return adapter;
}

} // namespace

const LoraPair *AdapterFile::find(const std::string &module) const {
    for (const LoraPair &pair : pairs)
        if (pair.module == module) return &pair;
    return nullptr;
}

uint64_t AdapterFile::most_rank() const {
    uint64_t most = 0;
    for (const LoraPair &pair : pairs) most = std::max(most, pair.rank);
    return most;
}

AdapterFile read_adapter_file(const std::string &path, double alpha) {
    std::string file = path;
    if (is_directory(path)) {
        const std::string folder = path.back() == '/' ? path : path + "/";
        file = folder + "adapter_model.safetensors";
        if (!exists(file))
            fail(path, ": there is no adapter_model.safetensors in this directory",
                 exists(folder + "adapter_model.bin")
                     ? "; adapter_model.bin is a pickle, which may run code: save it again with safe_serialization=True"
                     : "");
    }
    bool gguf = false;
    {
        const MappedFile mapped(file);
        gguf = mapped.text().substr(0, 4) == "GGUF";
    }
    AdapterFile adapter = gguf ? read_gguf(file) : read_peft(file, alpha);
    if (adapter.pairs.empty()) adapter.reject("the adapter holds no LoRA");
    return adapter;
}

std::vector<Module> base_modules(const BaseModel &base) {
    const AdapterShape shape = base.shape().adapter_shape(1);
    std::vector<Module> modules;
    for (size_t i = 0; i < shape.pairs(); ++i) {
        const AdapterLinear &linear = shape.linear(i);
        const std::string gguf = shape.gguf_name(i), peft = shape.peft_name(i, "");
        modules.push_back({gguf.substr(0, gguf.size() - 7), // without ".weight"
                           peft.substr(peft_prefix.size(), peft.size() - peft_prefix.size() - 8), // and "..weight"
                           linear.inputs, linear.outputs, linear.rows, linear.heads});
    }
    return modules;
}

void convert_adapter(AdapterFile &adapter, AdapterKind kind, const BaseModel &base) {
    const bool same = adapter.kind == kind;
    if (adapter.kind == AdapterKind::gguf && adapter.architecture != base.shape().traits->gguf)
        adapter.reject("the adapter is for architecture ", shown(adapter.architecture), ", the base is ",
                       shown(base.shape().traits->gguf));
    std::map<std::string, const Module *> known;
    const std::vector<Module> modules = base_modules(base);
    for (const Module &module : modules)
        known.emplace(adapter.kind == AdapterKind::gguf ? module.gguf : name_in_text_part(module.peft), &module);
    std::map<const Module *, size_t> places;
    for (size_t i = 0; i < adapter.pairs.size(); ++i) {
        LoraPair &pair = adapter.pairs[i];
        const auto found = known.find(name_in_text_part(pair.module));
        if (found == known.end())
            adapter.reject("the base ", base.path(), " has no linear layer ", shown(pair.module),
                           " that could have this LoRA; another base?");
        const Module &module = *found->second;
        if (pair.inputs != module.inputs || pair.outputs != module.outputs)
            adapter.reject(shown(pair.module), " is ", pair.outputs, " x ", pair.inputs, ", in the base ", base.path(),
                           " it is ", module.outputs, " x ", module.inputs, "; another base?");
        if (!same)
            (kind == AdapterKind::gguf ? permute_to_gguf : permute_to_hugging_face)(pair.b, pair.rank, module.rows, module.heads);
        pair.module = kind == AdapterKind::gguf ? module.gguf : module.peft;
        places.emplace(&module, i);
    }
    // In the order of the base.
    std::vector<LoraPair> ordered;
    for (const Module &module : modules)
        if (const auto place = places.find(&module); place != places.end())
            ordered.push_back(std::move(adapter.pairs[place->second]));
    adapter.pairs = std::move(ordered);
    const auto layer_of = [](const std::string &module) { return module.substr(0, module.find('.', module.find_first_of("0123456789"))); };
    std::set<std::string> of_base, own;
    for (const Module &module : modules) of_base.insert(layer_of(kind == AdapterKind::gguf ? module.gguf : module.peft));
    for (const LoraPair &pair : adapter.pairs) own.insert(layer_of(pair.module));
    adapter.whole_layers = own == of_base;
    adapter.kind = kind;
    adapter.architecture = base.shape().traits->gguf;
}

} // namespace finetune
