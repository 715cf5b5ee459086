#include "adapter.h"

#include "decode.h"
#include "safetensors.h"

#include <cmath>
#include <cstring>

namespace finetune {

const char *const linear_gguf_names[linear_count] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                     "ffn_gate", "ffn_up", "ffn_down"};
const char *const linear_peft_names[linear_count] = {"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
                                                     "self_attn.o_proj", "mlp.gate_proj",    "mlp.up_proj",
                                                     "mlp.down_proj"};

namespace {

// Moves row from(h, i, p) to row to(h, i, p) for every head h, pair i and half p.
void permute(std::vector<float> &rows, uint64_t width, uint32_t heads, bool to_gguf) {
    const uint64_t count = rows.size() / width, size = count / heads, half = size / 2;
    const std::vector<float> source = rows;
    for (uint64_t h = 0; h < heads; ++h)
        for (uint64_t p = 0; p < 2; ++p)
            for (uint64_t i = 0; i < half; ++i) {
                const uint64_t plain = h * size + p * half + i, paired = h * size + 2 * i + p;
                const uint64_t from = to_gguf ? plain : paired, to = to_gguf ? paired : plain;
                memcpy(&rows[to * width], &source[from * width], width * sizeof(float));
            }
}

// Rows of B from the order of the base to that of a file, or back.
void permute_rows(std::vector<float> &rows, const AdapterShape &shape, int linear, bool hugging_face_file,
                  bool to_file) {
    const uint32_t heads = linear == linear_q ? shape.heads : linear == linear_k ? shape.kv_heads : 0;
    if (heads > 0 && hugging_face_file != shape.hugging_face_rows)
        permute(rows, shape.rank, heads, hugging_face_file != to_file);
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

std::vector<float> peft_floats(const SafeTensors &file, uint32_t layer, Linear linear, const char *half, uint64_t rows,
                               uint64_t cols) {
    const std::string plain = peft_weight_name(layer, linear, half);
    const std::string with_adapter = peft_weight_name(layer, linear, half, "default.");
    const SafeTensor *tensor = file.find(plain);
    if (tensor == nullptr) tensor = file.find(with_adapter);
    if (tensor == nullptr)
        file.reject("tensor ", shown(plain), " is missing; expected a LoRA on all seven linear layers");
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

std::string peft_weight_name(uint32_t layer, Linear linear, const char *half, const char *adapter) {
    return "base_model.model.model.layers." + std::to_string(layer) + "." + linear_peft_names[linear] + "." + half +
           "." + adapter + "weight";
}

void permute_to_gguf(std::vector<float> &rows, uint64_t width, uint32_t heads) { permute(rows, width, heads, true); }

void permute_to_hugging_face(std::vector<float> &rows, uint64_t width, uint32_t heads) {
    permute(rows, width, heads, false);
}

void write_adapter_gguf(const std::string &path, const Adapter &adapter, const AdapterShape &shape) {
    GgufWriter writer;
    writer.add_string("general.architecture", shape.architecture);
    writer.add_string("general.type", "adapter");
    writer.add_string("adapter.type", "lora");
    writer.add_f32("adapter.lora.alpha", adapter.alpha);
    std::vector<std::vector<float>> rows(adapter.pairs.size()); // B in the file's order, alive until save()
    for (uint32_t layer = 0; layer < shape.layers; ++layer)
        for (int i = 0; i < linear_count; ++i) {
            const size_t index = layer * linear_count + i;
            const AdapterPair &pair = adapter.pairs[index];
            rows[index] = pair.b;
            permute_rows(rows[index], shape, i, false, true);
            const std::string name = gguf_weight_name(layer, Linear(i));
            writer.add_tensor(name + ".lora_a", type_f32, {pair.inputs, shape.rank}, pair.a.data());
            writer.add_tensor(name + ".lora_b", type_f32, {shape.rank, pair.outputs}, rows[index].data());
        }
    writer.save(path);
}

Adapter read_adapter_gguf(const std::string &path, const AdapterShape &shape) {
    const Gguf file(path);
    if (file.find_string("general.type").value_or("") != "adapter" ||
        file.find_string("adapter.type").value_or("") != "lora")
        file.reject("expected a LoRA adapter: general.type 'adapter' and adapter.type 'lora'");
    if (file.find_string("general.architecture").value_or("") != shape.architecture)
        file.reject("the adapter is for another architecture, expected ", shown(shape.architecture));
    Adapter adapter;
    adapter.alpha = static_cast<float>(file.find_float("adapter.lora.alpha").value_or(0));
    for (uint32_t layer = 0; layer < shape.layers; ++layer)
        for (int i = 0; i < linear_count; ++i) {
            const std::string name = gguf_weight_name(layer, Linear(i));
            AdapterPair pair = {shape.inputs[i], shape.outputs[i], {}, {}};
            pair.a = gguf_floats(file, name + ".lora_a", pair.inputs, shape.rank);
            pair.b = gguf_floats(file, name + ".lora_b", shape.rank, pair.outputs);
            permute_rows(pair.b, shape, i, false, false);
            adapter.pairs.push_back(std::move(pair));
        }
    return adapter;
}

Adapter read_adapter_peft(const std::string &path, const AdapterShape &shape) {
    const SafeTensors file(path);
    Adapter adapter;
    for (uint32_t layer = 0; layer < shape.layers; ++layer)
        for (int i = 0; i < linear_count; ++i) {
            AdapterPair pair = {shape.inputs[i], shape.outputs[i], {}, {}};
            pair.a = peft_floats(file, layer, Linear(i), "lora_A", shape.rank, pair.inputs);
            pair.b = peft_floats(file, layer, Linear(i), "lora_B", pair.outputs, shape.rank);
            permute_rows(pair.b, shape, i, true, false);
            adapter.pairs.push_back(std::move(pair));
        }
    return adapter;
}

void write_adapter_peft(const std::string &path, const Adapter &adapter, const AdapterShape &shape) {
    SafeTensorsWriter writer;
    std::vector<std::vector<float>> rows(adapter.pairs.size()); // B in the file's order, alive until save()
    for (uint32_t layer = 0; layer < shape.layers; ++layer)
        for (int i = 0; i < linear_count; ++i) {
            const size_t index = layer * linear_count + i;
            const AdapterPair &pair = adapter.pairs[index];
            rows[index] = pair.b;
            permute_rows(rows[index], shape, i, true, true);
            writer.add_f32(peft_weight_name(layer, Linear(i), "lora_A"), {shape.rank, pair.inputs}, pair.a.data());
            writer.add_f32(peft_weight_name(layer, Linear(i), "lora_B"), {pair.outputs, shape.rank},
                           rows[index].data());
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
