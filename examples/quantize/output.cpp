#include "output.h"

#include "format_choice.h"

#include <algorithm>
#include <map>

namespace quantize {
namespace {

// Values that are not weights, by their names in both containers.
const struct {
    uint32_t ggml;
    const char *safetensors;
} other_types[] = {{28, "F64"}, {24, "I8"}, {25, "I16"}, {26, "I32"}, {27, "I64"}};

// llama.cpp's numbers for "mostly this type" (general.file_type); 1024 is its "guess from the tensors".
const std::map<int32_t, uint32_t> file_types = {
    {QLORA_FORMAT_F32, 0},     {QLORA_FORMAT_F16, 1},     {QLORA_FORMAT_Q4_0, 2},  {QLORA_FORMAT_Q4_1, 3},
    {QLORA_FORMAT_Q8_0, 7},    {QLORA_FORMAT_Q5_0, 8},    {QLORA_FORMAT_Q5_1, 9},  {QLORA_FORMAT_Q2_K, 10},
    {QLORA_FORMAT_Q3_K, 11},   {QLORA_FORMAT_Q4_K, 14},   {QLORA_FORMAT_Q5_K, 16}, {QLORA_FORMAT_Q6_K, 18},
    {QLORA_FORMAT_IQ4_NL, 25}, {QLORA_FORMAT_IQ4_XS, 30}, {QLORA_FORMAT_BF16, 32}, {QLORA_FORMAT_MXFP4, 38},
    {QLORA_FORMAT_NVFP4, 39}};
const uint32_t file_type_guessed = 1024, quantization_version = 2;

uint32_t file_type(const std::vector<Choice> &choices) {
    std::map<int32_t, uint64_t> values;
    for (const Choice &choice : choices)
        if (choice.linear) values[choice.format] += choice.tensor->elements;
    if (values.empty()) return file_type_guessed;
    const auto most = std::max_element(values.begin(), values.end(),
                                       [](const auto &a, const auto &b) { return a.second < b.second; });
    const auto found = file_types.find(most->first);
    return found == file_types.end() ? file_type_guessed : found->second;
}

uint32_t other_ggml_type(const SourceTensor &tensor) {
    if (tensor.gguf != nullptr) return tensor.gguf->type->id;
    for (const auto &other : other_types)
        if (tensor.parts[0]->dtype == other.safetensors) return other.ggml;
    fail("tensor ", shown(tensor.name), ": GGUF has no type for ", tensor.parts[0]->dtype, " values");
}

const char *other_dtype(const SourceTensor &tensor) {
    if (tensor.gguf == nullptr) return tensor.parts[0]->dtype.c_str();
    for (const auto &other : other_types)
        if (tensor.gguf->type->id == other.ggml) return other.safetensors;
    fail("tensor ", shown(tensor.name), ": ", tensor.gguf->type->name, " has no place in a safetensors file");
}

// What a tensor of one part can be copied from; null when it is made on the way.
const void *data_of(const Choice &choice) {
    if (!choice.same()) return nullptr;
    const SourceTensor &tensor = *choice.tensor;
    if (tensor.gguf != nullptr) return tensor.gguf->data;
    return choice.format == 0 ? tensor.parts[0]->data : tensor.weight.planes[QLORA_PLANE_CODE];
}

// Tensors begin at multiples of their elements' size when those of larger elements come first. A quantized weight
// begins with floats and is a multiple of 8 bytes.
int place(const std::string &dtype) {
    if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 0;
    if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 1;
    const int after_quantized = 3;
    return dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16" ? after_quantized
                                                                                 : after_quantized + 1;
}
const int quantized_place = 2;

} // namespace

Output::Output(std::vector<Choice> choices, Container container, const Gguf *keys, uint32_t gptq_version)
    : container_(container), gptq_version_(gptq_version), choices_(std::move(choices)) {
    if (container == Container::gguf) lay_out_gguf(keys);
    else lay_out_safetensors();
}

void Output::lay_out_gguf(const Gguf *keys) {
    const char *const alignment = "general.alignment", *const type = "general.file_type",
                      *const version = "general.quantization_version";
    if (keys != nullptr)
        for (std::string_view key : keys->keys())
            if (key != alignment && key != type && key != version) gguf_.add_entry(keys->entry(key));
    gguf_.add_u32(type, file_type(choices_));
    gguf_.add_u32(version, quantization_version);
    for (size_t i = 0; i < choices_.size(); ++i) {
        const SourceTensor &tensor = *choices_[i].tensor;
        std::vector<uint64_t> ne(tensor.shape.rbegin(), tensor.shape.rend());
        if (ne.empty()) ne = {1};
        const int32_t format = choices_[i].format;
        const uint32_t id = format == 0 ? other_ggml_type(tensor) : ggml_type(format)->id;
        gguf_.add_tensor(tensor.name, id, ne, nullptr);
        slots_.push_back({i, data_of(choices_[i]), {PackedPart::plane, QLORA_PLANE_CODE, tensor.name, "", {}, 0}});
        const bool kept = choices_[i].same() && tensor.weight.tensor_scale != 0;
        if (!kept && !choices_[i].scaled) continue;
        const std::string scale = tensor_scale_name(tensor.name);
        gguf_.add_tensor(scale, type_f32, {1}, nullptr);
        slots_.push_back({i, kept ? &tensor.weight.tensor_scale : nullptr, {PackedPart::tensor_scale, 0, scale, "", {}, 0}});
    }
}

// What loaders of GPTQ checkpoints ask for, as quantize_config.json has it; one version of zeros for all tensors.
void Output::add_gptq_metadata() {
    const Choice *first = nullptr, *kept = nullptr;
    for (const Choice &choice : choices_) {
        if (!is_gptq(choice.format)) continue;
        if (first == nullptr) first = &choice;
        if (!choice.untouched()) continue;
        if (kept != nullptr && kept->tensor->weight.gptq.version != choice.tensor->weight.gptq.version)
            fail("the source mixes versions of GPTQ zeros");
        kept = &choice;
    }
    if (first == nullptr) return;
    const uint32_t version = kept == nullptr ? 0 : kept->tensor->weight.gptq.version;
    if (kept != nullptr && gptq_version_ != 0 && gptq_version_ != version)
        fail("--gptq-version ", gptq_version_, ": weights that stay as they are have ",
             version == 0 ? "no version" : "another version", "; convert to f32 and back");
    const bool unknown = kept != nullptr && version == 0; // symmetric weights that nothing describes stay so
    if (gptq_version_ == 0) gptq_version_ = version == 0 ? 1 : version;
    const uint32_t block = first->block == 0 ? qlora::format_query(first->format).block : first->block;
    safetensors_.add_metadata("format", "pt");
    safetensors_.add_metadata("quant_method", "gptq");
    safetensors_.add_metadata("bits", std::to_string(qlora::format_query(first->format).bits));
    safetensors_.add_metadata("group_size", std::to_string(block));
    safetensors_.add_metadata("desc_act", (first->tensor->weight.flags & QLORA_WEIGHT_INDEXED) != 0 ? "true" : "false");
    safetensors_.add_metadata("sym", "false");
    if (!unknown) safetensors_.add_metadata("checkpoint_format", gptq_version_ == 1 ? "gptq" : "gptq_v2");
}

void Output::lay_out_safetensors() {
    add_gptq_metadata();
    std::vector<std::pair<int, std::vector<Slot>>> groups;
    for (size_t i = 0; i < choices_.size(); ++i) {
        const Choice &choice = choices_[i];
        const SourceTensor &tensor = *choice.tensor;
        if (choice.untouched() && tensor.gguf == nullptr) {
            for (const SafeTensor *part : tensor.parts)
                groups.push_back({place(part->dtype),
                                  {{i, part->data, {PackedPart::plane, 0, part->name, part->dtype, part->shape, 0}}}});
        } else if (choice.format == 0 || is_float(choice.format)) {
            std::vector<PackedPart> parts;
            if (choice.format == 0) parts.push_back({PackedPart::plane, 0, tensor.name, other_dtype(tensor), {}, 0});
            else parts = packed_parts(tensor.name, choice.format, 0, tensor.weight.rows, tensor.weight.cols);
            parts[0].shape = tensor.shape;
            groups.push_back({place(parts[0].dtype), {{i, data_of(choice), parts[0]}}});
        } else {
            std::vector<Slot> slots;
            for (PackedPart &part : packed_parts(tensor.name, choice.format, choice.block, tensor.weight.rows,
                                                 tensor.weight.cols, gptq_version_, choice.outliers))
                slots.push_back({i, nullptr, std::move(part)});
            groups.push_back({quantized_place, std::move(slots)});
        }
    }
    std::stable_sort(groups.begin(), groups.end(), [](const auto &a, const auto &b) { return a.first < b.first; });
    for (auto &[place, slots] : groups)
        for (Slot &slot : slots) {
            safetensors_.add(slot.part.name, slot.part.dtype, slot.part.shape, slot.data);
            slots_.push_back(std::move(slot));
        }
}

void Output::save(const std::string &path, const Produce &produce) const {
    const auto bytes = [&](size_t i) { return slots_[i].data != nullptr ? slots_[i].data : produce(slots_[i]); };
    if (container_ == Container::gguf) gguf_.save(path, bytes);
    else safetensors_.save(path, bytes);
}

} // namespace quantize
