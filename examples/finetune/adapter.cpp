#include "adapter.h"

#include "safetensors.h"

#include <cstring>

namespace finetune {

namespace {

void permute(std::vector<float> &rows, uint64_t width, HeadOrder order, uint32_t heads, bool to_gguf) {
    const std::vector<uint64_t> from = hugging_face_rows(order, rows.size() / width, heads);
    const std::vector<float> source = rows;
    for (uint64_t i = 0; i < from.size(); ++i)
        memcpy(&rows[(to_gguf ? i : from[i]) * width], &source[(to_gguf ? from[i] : i) * width], width * sizeof(float));
}

} // namespace

std::string gguf_weight_name(uint32_t layer, Linear linear) {
    return "blk." + std::to_string(layer) + "." + linear_gguf_names[linear] + ".weight";
}

size_t AdapterShape::pair(uint32_t layer, Linear use) const {
    for (size_t i = 0; i < linears.size(); ++i)
        if (linears[i].use == use) return layer * linears.size() + i;
    return pairs();
}

std::string AdapterShape::gguf_name(size_t pair) const {
    return gguf_weight_name(uint32_t(pair / linears.size()), linear(pair).use);
}

std::string AdapterShape::peft_name(size_t pair, const char *half, const char *adapter) const {
    return "base_model.model." + (layers_name.empty() ? traits->naming->layers : layers_name) + std::to_string(pair / linears.size()) + "." +
           traits->module(linear(pair).use) + "." + half + "." + adapter + "weight";
}

// Interleaved rows are GGUF's in every base: the reader of directories sees to it.
bool AdapterShape::turns(size_t pair, bool hugging_face_file) const {
    const HeadOrder rows = linear(pair).rows;
    return rows != HeadOrder::same && hugging_face_file != (hugging_face_rows && rows == HeadOrder::paired);
}

void AdapterShape::to_base(std::vector<float> &rows, size_t pair, uint64_t width, bool hugging_face_file) const {
    if (turns(pair, hugging_face_file))
        permute(rows, width, linear(pair).rows, linear(pair).heads, hugging_face_file);
}

void AdapterShape::from_base(std::vector<float> &rows, size_t pair, uint64_t width, bool hugging_face_file) const {
    if (turns(pair, hugging_face_file))
        permute(rows, width, linear(pair).rows, linear(pair).heads, !hugging_face_file);
}

void permute_to_gguf(std::vector<float> &rows, uint64_t width, HeadOrder order, uint32_t heads) {
    permute(rows, width, order, heads, true);
}

void permute_to_hugging_face(std::vector<float> &rows, uint64_t width, HeadOrder order, uint32_t heads) {
    permute(rows, width, order, heads, false);
}

void write_adapter_gguf(const std::string &path, const Adapter &adapter, const AdapterShape &shape) {
    GgufWriter writer;
    writer.add_string("general.architecture", shape.traits->gguf);
    writer.add_string("general.type", "adapter");
    writer.add_string("adapter.type", "lora");
    writer.add_f32("adapter.lora.alpha", adapter.alpha);
    std::vector<std::vector<float>> rows(adapter.pairs.size()); // B in the file's order, alive until save()
    for (size_t i = 0; i < shape.pairs(); ++i) {
        const AdapterPair &pair = adapter.pairs[i];
        rows[i] = pair.b;
        shape.from_base(rows[i], i, shape.rank, false);
        writer.add_tensor(shape.gguf_name(i) + ".lora_a", type_f32, {pair.inputs, shape.rank}, pair.a.data());
        writer.add_tensor(shape.gguf_name(i) + ".lora_b", type_f32, {shape.rank, pair.outputs}, rows[i].data());
    }
    writer.save(path);
}

const char *const adapter_alpha_name = "lora_alpha";

void write_adapter_peft(const std::string &path, const Adapter &adapter, const AdapterShape &shape) {
    SafeTensorsWriter writer;
    std::ostringstream alpha;
    alpha.precision(9);
    alpha << adapter.alpha;
    writer.add_metadata(adapter_alpha_name, alpha.str());
    std::vector<std::vector<float>> rows(adapter.pairs.size()); // B in the file's order, alive until save()
    for (size_t i = 0; i < shape.pairs(); ++i) {
        const AdapterPair &pair = adapter.pairs[i];
        rows[i] = pair.b;
        shape.from_base(rows[i], i, shape.rank, true);
        writer.add_f32(shape.peft_name(i, "lora_A"), {shape.rank, pair.inputs}, pair.a.data());
        writer.add_f32(shape.peft_name(i, "lora_B"), {pair.outputs, shape.rank}, rows[i].data());
    }
    writer.save(path);
}

} // namespace finetune
