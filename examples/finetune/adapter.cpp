#include "adapter.h"

#include "decode.h"
#include "safetensors.h"

#include <cmath>
#include <cstring>

namespace finetune {

namespace {

void permute(std::vector<float> &rows, uint64_t width, HeadOrder order, uint32_t heads, bool to_gguf) {
    const std::vector<uint64_t> from = hugging_face_rows(order, rows.size() / width, heads);
    const std::vector<float> source = rows;
    for (uint64_t i = 0; i < from.size(); ++i)
        memcpy(&rows[(to_gguf ? i : from[i]) * width], &source[(to_gguf ? from[i] : i) * width], width * sizeof(float));
}

void check_finite(const std::vector<float> &values, const std::string &path, const std::string &name) {
    for (size_t i = 0; i < values.size(); ++i)
        if (!std::isfinite(values[i])) fail(path, ": tensor ", shown(name), ": element ", i, " is not a finite number");
}

std::vector<float> gguf_floats(const Gguf &file, const std::string &name, uint64_t inputs, uint64_t outputs) {
    const GgufTensor &tensor = file.tensor(name);
    if (tensor.dims != 2 || tensor.ne[0] != inputs || tensor.ne[1] != outputs)
        file.reject("tensor ", shown(name), " is [", tensor.ne[0], ", ", tensor.ne[1], "] with ", tensor.dims,
                    " dimensions, expected [", inputs, ", ", outputs, "]; its rank or base model is another one");
    std::vector<float> values(tensor.elements);
    for (uint64_t i = 0; i < tensor.elements; ++i) {
        uint16_t bits = 0;
        if (tensor.type->id == type_f32) memcpy(&values[i], tensor.data + 4 * i, 4);
        else memcpy(&bits, tensor.data + 2 * i, tensor.type->bytes == 2 ? 2 : 0);
        if (tensor.type->id == type_f16) values[i] = half_to_float(bits);
        else if (tensor.type->id == type_bf16) values[i] = bfloat_to_float(bits);
        else if (tensor.type->id != type_f32)
            file.reject("tensor ", shown(name), " is ", tensor.type->name, ", expected F32, F16 or BF16");
    }
    check_finite(values, file.path(), name);
    return values;
}

std::vector<float> peft_floats(const SafeTensors &file, const AdapterShape &shape, size_t pair, const char *half,
                               uint64_t rows, uint64_t cols) {
    const std::string plain = shape.peft_name(pair, half);
    const SafeTensor *tensor = file.find(plain);
    if (tensor == nullptr) tensor = file.find(shape.peft_name(pair, half, "default."));
    for (const char *other : {shape.traits->naming->layers, "model.language_model.layers.", "language_model.model.layers."})
        if (tensor == nullptr) { // of the same model with or without what it sees with
            AdapterShape named = shape;
            named.layers_name = other;
            tensor = file.find(named.peft_name(pair, half));
        }
    if (tensor == nullptr) {
        std::string targets;
        for (const AdapterLinear &linear : shape.linears)
            targets += (targets.empty() ? "" : ", ") + std::string(shape.traits->module(linear.use));
        file.reject("tensor ", shown(plain), " is missing; expected a LoRA on each of ", targets);
    }
    if (tensor->shape != std::vector<uint64_t>{rows, cols})
        file.reject("tensor ", shown(tensor->name), ": expected shape [", rows, ", ", cols,
                    "]; --rank or the base model differ");
    std::vector<float> values = file.floats(*tensor);
    check_finite(values, file.path(), tensor->name);
    return values;
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

Adapter read_adapter_gguf(const std::string &path, const AdapterShape &shape) {
    const Gguf file(path);
    if (file.find_string("general.type").value_or("") != "adapter" ||
        file.find_string("adapter.type").value_or("") != "lora")
        file.reject("expected a LoRA adapter: general.type 'adapter' and adapter.type 'lora'");
    if (file.find_string("general.architecture").value_or("") != shape.traits->gguf)
        file.reject("the adapter is for another architecture, expected ", shown(shape.traits->gguf));
    Adapter adapter;
    adapter.alpha = static_cast<float>(file.find_float("adapter.lora.alpha").value_or(0));
    for (size_t i = 0; i < shape.pairs(); ++i) {
        AdapterPair pair = {shape.linear(i).inputs, shape.linear(i).outputs, {}, {}};
        pair.a = gguf_floats(file, shape.gguf_name(i) + ".lora_a", pair.inputs, shape.rank);
        pair.b = gguf_floats(file, shape.gguf_name(i) + ".lora_b", shape.rank, pair.outputs);
        shape.to_base(pair.b, i, shape.rank, false);
        adapter.pairs.push_back(std::move(pair));
    }
    return adapter;
}

Adapter read_adapter_peft(const std::string &path, const AdapterShape &shape) {
    const SafeTensors file(path);
    Adapter adapter;
    for (size_t i = 0; i < shape.pairs(); ++i) {
        AdapterPair pair = {shape.linear(i).inputs, shape.linear(i).outputs, {}, {}};
        pair.a = peft_floats(file, shape, i, "lora_A", shape.rank, pair.inputs);
        pair.b = peft_floats(file, shape, i, "lora_B", pair.outputs, shape.rank);
        shape.to_base(pair.b, i, shape.rank, true);
        adapter.pairs.push_back(std::move(pair));
    }
    return adapter;
}

void write_adapter_peft(const std::string &path, const Adapter &adapter, const AdapterShape &shape) {
    SafeTensorsWriter writer;
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

Adapter read_adapter(const std::string &path, const AdapterShape &shape) {
    bool gguf = false;
    {
        const MappedFile file(path);
        gguf = file.text().substr(0, 4) == "GGUF";
    }
    return gguf ? read_adapter_gguf(path, shape) : read_adapter_peft(path, shape);
}

} // namespace finetune
