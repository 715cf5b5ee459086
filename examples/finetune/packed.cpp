#include "packed.h"

#include "format_choice.h"
#include "json.h"
#include "packed_gptq.h"
#include "packed_spqr.h"

#include <cmath>
#include <cstring>

namespace finetune {
namespace {

const uint64_t nested_block = 256;
const std::string state_mark = ".quant_state.", state_of_bitsandbytes = "bitsandbytes__", state_of_ours = "qlora__";
const char *const part_endings[] = {".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map",
                                    ".scale"};

struct Dtype {
    int32_t type;
    const char *safetensors, *torch;
};
const Dtype dtypes[] = {{QLORA_FORMAT_F32, "F32", "float32"},
                        {QLORA_FORMAT_F16, "F16", "float16"},
                        {QLORA_FORMAT_BF16, "BF16", "bfloat16"}};

bool has_table(int32_t format) {
    return (format >= QLORA_FORMAT_NF4 && format <= QLORA_FORMAT_FP4_DQ) || format == QLORA_FORMAT_DYN8 ||
           format == QLORA_FORMAT_UDYN8;
}
bool is_nested(int32_t format) { return format == QLORA_FORMAT_NF4_DQ || format == QLORA_FORMAT_FP4_DQ; }
bool is_bitsandbytes(int32_t format) { return format >= QLORA_FORMAT_NF4 && format <= QLORA_FORMAT_FP4_DQ; }
int32_t without_nesting(int32_t format) { return is_nested(format) ? format - 1 : format; }

bool ends_with(const std::string &text, const std::string &ending) {
    return text.size() > ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

// Reads the parts of one weight, given the name of its state tensor.
class Reader {
public:
    Reader(const SafeTensors &file, const SafeTensor &state) : file_(file), who_("tensor " + shown(state.name)) {
        const size_t mark = state.name.rfind(state_mark);
        name_ = state.name.substr(0, mark);
        kind_ = state.name.substr(mark + state_mark.size());
        if (state.dtype != "U8") file_.reject(who_, " is ", state.dtype, ", expected U8: JSON in UTF-8");
        json_ = parse_json({reinterpret_cast<const char *>(state.data), static_cast<size_t>(state.bytes)},
                           file_.path() + ": " + who_, 4);
        if (!json_.is_object()) file_.reject(who_, ": expected a JSON object");
        packed_.parts.push_back(&part(""));
        state_ = &state;
    }

    PackedTensor read() {
        StoredWeight &weight = packed_.weight;
        packed_.name = name_;
        weight.format = read_format();
        weight.block = static_cast<uint32_t>(std::min<uint64_t>(number("blocksize"), UINT32_MAX));
        if (weight.block == 0 && qlora::format_query(weight.format).block != 0) file_.reject(who_, ": blocksize is 0");
        read_shape();
        weight.dtype = read_dtype();
        if (is_spqr(weight.format)) {
            weight.nested_block =
                static_cast<uint32_t>(std::min<uint64_t>(number("nested_blocksize"), UINT32_MAX));
            weight.outliers = number("outliers");
            if (weight.nested_block != spqr_rows) file_.reject(who_, ": nested_blocksize: expected ", spqr_rows);
            read_spqr(file_, name_, who_, &packed_);
            packed_.parts.push_back(state_);
            return std::move(packed_);
        }
        qlora_weight_layout_info layout;
        try {
            layout = weight_layout(weight.format, weight.block, weight.rows, weight.cols);
        } catch (const Error &error) { file_.reject(who_, ": ", error.what()); }
        weight.planes[QLORA_PLANE_CODE] = checked_codes(*packed_.parts[0], layout.plane_bytes[QLORA_PLANE_CODE]);
        read_scales(layout);
        packed_.parts.push_back(state_);
        return std::move(packed_);
    }

private:
    const SafeTensor &part(const std::string &ending) const {
        const SafeTensor *found = file_.find(name_ + ending);
        if (found == nullptr)
            file_.reject("tensor ", shown(name_ + ending), " is missing, which ", who_,
                         " needs; the file is incomplete, save the model again");
        return *found;
    }

    const SafeTensor &add_part(const std::string &ending) {
        packed_.parts.push_back(&part(ending));
        return *packed_.parts.back();
    }

    const uint8_t *checked(const SafeTensor &tensor, const char *dtype, uint64_t bytes) const {
        if (tensor.dtype != dtype || tensor.bytes != bytes)
            file_.reject("tensor ", shown(tensor.name), " has ", tensor.bytes, " bytes of ", tensor.dtype,
                         ", expected ", bytes, " bytes of ", dtype, " from ", who_);
        return tensor.data;
    }

    // bitsandbytes writes its codes as the values of any type that its option bnb_4bit_quant_storage names.
    const uint8_t *checked_codes(const SafeTensor &tensor, uint64_t bytes) const {
        bool storage = false;
        for (const Dtype &dtype : dtypes) storage = storage || tensor.dtype == dtype.safetensors;
        const bool padded = storage && tensor.bytes >= bytes && tensor.bytes < bytes + 4;
        return is_bitsandbytes(packed_.weight.format) && padded ? tensor.data : checked(tensor, "U8", bytes);
    }

    const Json &value(const char *key) const {
        if (!json_.contains(key)) file_.reject(who_, ": key '", key, "' is missing");
        return json_[key];
    }

    uint64_t number(const char *key) const {
        if (!value(key).is_number_unsigned()) file_.reject(who_, ": key '", key, "' is not a size");
        return json_[key].get<uint64_t>();
    }

    std::string text(const char *key) const {
        if (!value(key).is_string()) file_.reject(who_, ": key '", key, "' is not a string");
        return json_[key].get<std::string>();
    }

    int32_t read_format() const {
        const std::string type = text("quant_type");
        if (kind_ == state_of_bitsandbytes + type && (type == "nf4" || type == "fp4"))
            return named_format(type + (json_.contains("nested_blocksize") ? "-dq" : ""), "");
        int32_t format = 0;
        if (kind_ == state_of_ours + type && qlora_format_find(type.c_str(), &format) == QLORA_OK &&
            !is_bitsandbytes(format) && !is_float(format) && !is_gptq(format))
            return format;
        file_.reject(who_, ": quant_type ", shown(type), " under this name is unknown");
    }

    void read_shape() {
        if (!value("shape").is_array() || json_["shape"].empty() || json_["shape"].size() > 8)
            file_.reject(who_, ": key 'shape' is not an array of 1 to 8 sizes");
        uint64_t elements = 1;
        for (const Json &size : json_["shape"]) {
            if (!size.is_number_unsigned() || size.get<uint64_t>() == 0)
                file_.reject(who_, ": key 'shape' holds something other than sizes above 0");
            packed_.shape.push_back(size.get<uint64_t>());
            if (!multiply(elements, packed_.shape.back(), &elements) || elements > INT64_MAX)
                file_.reject(who_, ": its shape overflows 63 bits");
        }
        packed_.weight.cols = packed_.shape.back();
        packed_.weight.rows = elements / packed_.weight.cols;
    }

    int32_t read_dtype() const {
        std::string name = text("dtype");
        if (name.rfind("torch.", 0) == 0) name = name.substr(6);
        for (const Dtype &dtype : dtypes)
            if (name == dtype.torch) return dtype.type;
        file_.reject(who_, ": dtype ", shown(name), ": expected float16, bfloat16 or float32");
    }

    const uint8_t *checked_floats(const SafeTensor &tensor, uint64_t bytes) const {
        const uint8_t *data = checked(tensor, "F32", bytes);
        for (uint64_t i = 0; i < bytes / 4; ++i) {
            float number;
            memcpy(&number, data + 4 * i, 4);
            if (!std::isfinite(number)) file_.reject("tensor ", shown(tensor.name), ": element ", i, " is ", number);
        }
        return data;
    }

    void read_scales(const qlora_weight_layout_info &layout) {
        StoredWeight &weight = packed_.weight;
        const uint64_t scale_bytes = layout.plane_bytes[QLORA_PLANE_SCALE];
        if (scale_bytes == 0) return;
        if (!has_table(weight.format)) {
            const uint64_t block = weight.block == 0 ? weight.cols : weight.block; // 0 means a row
            const bool floats = scale_bytes * block >= weight.rows * weight.cols * 4;
            const SafeTensor &scales = add_part(floats ? ".absmax" : ".scale");
            weight.planes[QLORA_PLANE_SCALE] =
                floats ? checked_floats(scales, scale_bytes) : checked(scales, "U8", scale_bytes);
            return;
        }
        const bool nested = is_nested(weight.format);
        const SafeTensor &scales = add_part(".absmax");
        weight.planes[QLORA_PLANE_SCALE] =
            nested ? checked(scales, "U8", scale_bytes) : checked_floats(scales, scale_bytes);
        const SafeTensor &table = add_part(".quant_map");
        const std::vector<float> &expected = code_table(without_nesting(weight.format));
        checked_floats(table, expected.size() * 4);
        if (nested) read_nested(layout);
        if (file_.floats(table) != expected) decode_by(file_.floats(table));
    }

    void read_nested(const qlora_weight_layout_info &layout) {
        StoredWeight &weight = packed_.weight;
        if (number("nested_blocksize") != nested_block)
            file_.reject(who_, ": nested_blocksize ", number("nested_blocksize"), " is not supported, expected 256");
        if (!value("nested_offset").is_number()) file_.reject(who_, ": key 'nested_offset' is not a number");
        const float offset = static_cast<float>(json_["nested_offset"].get<double>());
        if (!std::isfinite(offset)) file_.reject(who_, ": key 'nested_offset' is beyond f32");
        const SafeTensor &absmax = add_part(".nested_absmax"), &table = add_part(".nested_quant_map");
        checked_floats(absmax, layout.plane_bytes[QLORA_PLANE_NESTED]);
        const std::vector<float> &expected = code_table(QLORA_FORMAT_DYN8);
        checked_floats(table, expected.size() * 4);
        const std::vector<float> map = file_.floats(table);
        if (map == expected) {
            weight.made = {offset};
            weight.planes[QLORA_PLANE_NESTED] = absmax.data;
            weight.planes[QLORA_PLANE_OFFSET] = reinterpret_cast<const uint8_t *>(weight.made.data());
            return;
        }
        // Tables differ in last bits between builds of what wrote them: the scales it meant, in f32.
        const std::vector<float> nested = file_.floats(absmax);
        const uint64_t count = layout.plane_bytes[QLORA_PLANE_SCALE];
        weight.made.resize(count);
        for (uint64_t i = 0; i < count; ++i) {
            const float product = map[weight.planes[QLORA_PLANE_SCALE][i]] * nested[i / nested_block];
            weight.made[i] = product + offset;
        }
        weight.planes[QLORA_PLANE_SCALE] = reinterpret_cast<const uint8_t *>(weight.made.data());
        weight.format = without_nesting(weight.format);
        weight.decoded = true;
    }

    // The values by a table that is not the library's.
    void decode_by(const std::vector<float> &table) {
        StoredWeight &weight = packed_.weight;
        if (is_nested(weight.format))
            file_.reject(who_, ": its quant_map is not that of ", format_name(weight.format),
                         ", and its scales are double-quantized: not supported together");
        const uint64_t elements = weight.rows * weight.cols;
        const bool nibbles = table.size() == 16;
        std::vector<float> values(elements);
        for (uint64_t i = 0; i < elements; ++i) {
            const uint8_t byte = weight.planes[QLORA_PLANE_CODE][nibbles ? i / 2 : i];
            float scale;
            memcpy(&scale, weight.planes[QLORA_PLANE_SCALE] + 4 * (i / weight.block), 4);
            values[i] = table[!nibbles ? byte : i % 2 == 0 ? byte >> 4 : byte & 15] * scale;
        }
        weight.made = std::move(values);
        weight.format = QLORA_FORMAT_F32;
        weight.decoded = true;
        weight.block = 0;
        weight.planes[QLORA_PLANE_CODE] = reinterpret_cast<const uint8_t *>(weight.made.data());
        weight.planes[QLORA_PLANE_SCALE] = nullptr;
    }

    const SafeTensors &file_;
    std::string who_, name_, kind_;
    Json json_;
    const SafeTensor *state_ = nullptr;
    PackedTensor packed_;
};

PackedTensor plain(const SafeTensor &tensor) {
    PackedTensor packed;
    packed.name = tensor.name;
    packed.shape = tensor.shape;
    packed.parts = {&tensor};
    if (tensor.shape.empty() || tensor.elements == 0) return packed;
    for (const Dtype &dtype : dtypes)
        if (tensor.dtype == dtype.safetensors) packed.weight.format = packed.weight.dtype = dtype.type;
    packed.weight.cols = tensor.shape.back();
    packed.weight.rows = tensor.elements / tensor.shape.back();
    packed.weight.planes[QLORA_PLANE_CODE] = tensor.data;
    return packed;
}

// The state in bitsandbytes' own spelling. Its size depends on shape and format only: spaces, which JSON allows, take
// the place of missing digits, and fill the weight's last part up to a multiple of 8 bytes.
std::string state_text(int32_t format, uint32_t block, uint64_t rows, uint64_t cols, int32_t dtype, float offset) {
    std::string text = "{\"quant_type\": \"" + format_name(without_nesting(format)) +
                       "\", \"blocksize\": " + std::to_string(block) + ", \"dtype\": \"";
    for (const Dtype &known : dtypes)
        if (known.type == dtype) text += known.torch;
    text += "\", \"shape\": [" + std::to_string(rows) + ", " + std::to_string(cols) + "]";
    if (is_nested(format))
        text += ", \"nested_blocksize\": " + std::to_string(nested_block) +
                ", \"nested_dtype\": \"float32\", \"nested_offset\": " + Json(double(offset)).dump();
    return text + "}";
}

uint64_t state_bytes(int32_t format, uint32_t block, uint64_t rows, uint64_t cols, uint64_t others) {
    const uint64_t longest_number = 26, longest_dtype = 1;
    uint64_t bytes = state_text(format, block, rows, cols, QLORA_FORMAT_F16, 0).size() + longest_dtype;
    if (is_nested(format)) bytes += longest_number - 3;
    return bytes + (8 - (bytes + others) % 8) % 8;
}

// bitsandbytes' 8-bit weights: X.weight in I8 with X.SCB, the largest magnitude of each row, in F32.
const SafeTensor *find_row_scales(const SafeTensors &file, const SafeTensor &tensor) {
    const std::string ending = ".weight";
    if (tensor.dtype != "I8" || tensor.shape.size() != 2 || !ends_with(tensor.name, ending)) return nullptr;
    return file.find(tensor.name.substr(0, tensor.name.size() - ending.size()) + ".SCB");
}

PackedTensor read_int8(const SafeTensors &file, const SafeTensor &tensor, const SafeTensor &scales) {
    PackedTensor packed;
    packed.name = tensor.name;
    packed.shape = tensor.shape;
    packed.parts = {&tensor, &scales};
    StoredWeight &weight = packed.weight;
    weight.format = QLORA_FORMAT_INT8;
    weight.rows = tensor.shape[0];
    weight.cols = tensor.shape[1];
    weight.dtype = QLORA_FORMAT_F16;
    if (scales.dtype != "F32" || scales.elements != weight.rows)
        file.reject("tensor ", shown(scales.name), " has ", scales.elements, " values of ", scales.dtype,
                    ", expected ", weight.rows, " of F32");
    weight.planes[QLORA_PLANE_CODE] = tensor.data;
    weight.planes[QLORA_PLANE_SCALE] = scales.data;
    const std::string form = scales.name.substr(0, scales.name.size() - 3) + "weight_format";
    if (const SafeTensor *said = file.find(form)) {
        if (said->dtype != "U8" || said->elements != 1 || said->data[0] != 0)
            file.reject("tensor ", shown(form), ": only rows one after the other (0) are supported; save the model again "
                        "with a current bitsandbytes");
        packed.parts.push_back(said);
    }
    return packed;
}

} // namespace

std::vector<PackedTensor> read_packed(const SafeTensors &file) {
    std::unordered_map<std::string, PackedTensor> packed;
    std::unordered_map<std::string, bool> taken;
    for (const SafeTensor &tensor : file.tensors()) {
        const bool gptq = ends_with(tensor.name, gptq_mark);
        const SafeTensor *row_scales = find_row_scales(file, tensor);
        if (!gptq && row_scales == nullptr && tensor.name.find(state_mark) == std::string::npos) continue;
        PackedTensor one = gptq                    ? read_gptq(file, tensor)
                           : row_scales != nullptr ? read_int8(file, tensor, *row_scales)
                                                   : Reader(file, tensor).read();
        if (gptq && file.find(one.name) != nullptr)
            file.reject("tensor ", shown(one.name), " is there beside ", shown(tensor.name));
        for (const SafeTensor *part : one.parts)
            if (!taken.emplace(part->name, true).second)
                file.reject("tensor ", shown(part->name), " has two quantization states");
        packed.emplace(gptq ? tensor.name : one.name, std::move(one));
    }
    std::vector<PackedTensor> all;
    for (const SafeTensor &tensor : file.tensors()) {
        const auto found = packed.find(tensor.name);
        if (found != packed.end()) {
            all.push_back(std::move(found->second));
            continue;
        }
        if (taken.count(tensor.name) != 0) continue;
        if (ends_with(tensor.name, ".qzeros"))
            file.reject("tensor ", shown(tensor.name),
                        " belongs to a GPTQ weight whose qweight is missing; save the model again");
        for (const char *ending : part_endings)
            if (ends_with(tensor.name, ending) &&
                file.find(tensor.name.substr(0, tensor.name.size() - strlen(ending))) != nullptr)
                file.reject("tensor ", shown(tensor.name),
                            " belongs to a quantized weight whose quant_state is missing; save the model again");
        all.push_back(plain(tensor));
    }
    return all;
}

std::vector<PackedPart> packed_parts(const std::string &name, int32_t format, uint32_t block, uint64_t rows,
                                     uint64_t cols, uint32_t gptq_version, uint64_t outliers) {
    if (is_gptq(format)) return gptq_parts(name, format, block, rows, cols, gptq_version);
    if (is_spqr(format)) return spqr_parts(name, format, block, rows, cols, outliers);
    const qlora_weight_layout_info layout = weight_layout(format, block, rows, cols);
    const uint64_t codes = layout.plane_bytes[QLORA_PLANE_CODE], scales = layout.plane_bytes[QLORA_PLANE_SCALE];
    for (const Dtype &dtype : dtypes)
        if (dtype.type == format)
            return {{PackedPart::plane, QLORA_PLANE_CODE, name, dtype.safetensors, {rows, cols}, codes}};
    if (block == 0) block = qlora::format_query(format).block;
    std::vector<PackedPart> parts;
    const auto add = [&](PackedPart::Content content, int plane, const char *ending, const char *dtype,
                         uint64_t bytes) {
        parts.push_back({content, plane, name + ending, dtype, {bytes / (dtype[0] == 'F' ? 4 : 1)}, bytes});
    };
    // Floats first: their places in the file are multiples of 4 then.
    const bool nested = is_nested(format);
    const bool powers = scales > 0 && scales * (block == 0 ? cols : block) < rows * cols * 4 && !nested;
    if (has_table(format))
        add(PackedPart::table, 0, ".quant_map", "F32", code_table(without_nesting(format)).size() * 4);
    if (nested) {
        add(PackedPart::plane, QLORA_PLANE_NESTED, ".nested_absmax", "F32", layout.plane_bytes[QLORA_PLANE_NESTED]);
        add(PackedPart::nested_table, 0, ".nested_quant_map", "F32", 256 * 4);
    }
    if (scales > 0)
        add(PackedPart::plane, QLORA_PLANE_SCALE, powers ? ".scale" : ".absmax", nested || powers ? "U8" : "F32",
            scales);
    add(PackedPart::plane, QLORA_PLANE_CODE, "", "U8", codes);
    if (is_bitsandbytes(format)) parts.back().shape = {codes, 1};
    uint64_t bytes = 0;
    for (const PackedPart &part : parts) bytes += part.bytes;
    const std::string kind =
        (is_bitsandbytes(format) ? state_of_bitsandbytes : state_of_ours) + format_name(without_nesting(format));
    add(PackedPart::state, 0, (state_mark + kind).c_str(), "U8", state_bytes(format, block, rows, cols, bytes));
    return parts;
}

std::vector<uint8_t> packed_bytes(const PackedPart &part, const qlora::Weight &weight, int32_t dtype) {
    const qlora_weight &about = *weight.get();
    std::vector<uint8_t> bytes;
    if (part.content == PackedPart::gptq) return gptq_bytes(part, weight);
    if (part.content == PackedPart::tensor_scale) {
        const float scale = about.tensor_scale == 0 ? 1.0f : about.tensor_scale;
        bytes.resize(sizeof(scale));
        memcpy(bytes.data(), &scale, sizeof(scale));
        return bytes;
    }
    if (part.content == PackedPart::plane) return weight.read_plane(part.plane_index);
    if (part.content == PackedPart::state && is_spqr(about.format)) {
        for (const Dtype &known : dtypes)
            if (known.type == dtype) return spqr_state(weight, known.torch, part.bytes);
    }
    if (part.content == PackedPart::state) {
        float offset = 0;
        if (is_nested(about.format)) memcpy(&offset, weight.read_plane(QLORA_PLANE_OFFSET).data(), sizeof(offset));
        const uint32_t block = about.block == 0 ? qlora::format_query(about.format).block : about.block;
        const std::string text = state_text(about.format, block, about.rows, about.cols, dtype, offset);
        bytes.assign(text.begin(), text.end());
        bytes.resize(part.bytes, ' ');
        return bytes;
    }
    const std::vector<float> &table =
        code_table(part.content == PackedPart::nested_table ? QLORA_FORMAT_DYN8 : without_nesting(about.format));
    bytes.resize(table.size() * 4);
    memcpy(bytes.data(), table.data(), bytes.size());
    return bytes;
}

} // namespace finetune
