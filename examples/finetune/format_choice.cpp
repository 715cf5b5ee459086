#include "format_choice.h"

#include <map>

namespace finetune {
namespace {

const int32_t ggml_formats = 0x100, most_formats = 0x200;
const std::string nearest_ending = "-rtn", integers_name = "llm-int8", scaled_name = "nvfp4-scaled";

// What takes the place of a format with long blocks.
const std::map<int32_t, int32_t> shorter_blocks = {
    {QLORA_FORMAT_Q2_K, QLORA_FORMAT_IQ4_NL},   {QLORA_FORMAT_Q3_K, QLORA_FORMAT_IQ4_NL},
    {QLORA_FORMAT_IQ4_XS, QLORA_FORMAT_IQ4_NL}, {QLORA_FORMAT_NVFP4, QLORA_FORMAT_IQ4_NL},
    {QLORA_FORMAT_Q4_K, QLORA_FORMAT_Q5_0},     {QLORA_FORMAT_Q5_K, QLORA_FORMAT_Q5_1},
    {QLORA_FORMAT_Q6_K, QLORA_FORMAT_Q8_0}};

bool fits(int32_t format, uint64_t cols) {
    auto weight = qlora::make<qlora_weight>();
    auto layout = qlora::make<qlora_weight_layout_info>();
    weight.format = format;
    weight.rows = 1;
    weight.cols = cols;
    return qlora_weight_layout(&weight, &layout) == QLORA_OK;
}

} // namespace

std::vector<int32_t> all_formats() {
    std::vector<int32_t> formats = {QLORA_FORMAT_F32, QLORA_FORMAT_F16, QLORA_FORMAT_BF16};
    auto info = qlora::make<qlora_format_info>();
    for (int32_t format = 1; format < most_formats; ++format)
        if (!is_float(format) && qlora_format_query(format, &info) == QLORA_OK) formats.push_back(format);
    return formats;
}

std::string format_name(int32_t format) { return qlora::format_query(format).name; }

std::string format_names() {
    std::string names;
    for (int32_t format : all_formats()) names += (names.empty() ? "" : ", ") + format_name(format);
    return names;
}

int32_t named_format(const std::string &name, const std::string &option) {
    int32_t format = 0;
    if (qlora_format_find(name.c_str(), &format) != QLORA_OK)
        fail(option, " ", shown(name), ": no such format; expected one of ", format_names());
    return format;
}

FormatChoice named_choice(const std::string &text, const std::string &option) {
    FormatChoice choice;
    const size_t colon = std::min(text.find(':'), text.size());
    std::string name = text.substr(0, colon);
    if (colon < text.size()) {
        const std::string digits = text.substr(colon + 1);
        if (digits.empty() || digits.size() > 9 || digits.find_first_not_of("0123456789") != std::string::npos)
            fail(option, " ", shown(text), ": expected a number of values that share a scale after the colon");
        choice.block = static_cast<uint32_t>(std::stoul(digits));
        if (choice.block == 0) fail(option, " ", shown(text), ": 0 values cannot share a scale");
    }
    if (name.size() > nearest_ending.size() &&
        name.compare(name.size() - nearest_ending.size(), nearest_ending.size(), nearest_ending) == 0) {
        const std::string before = name.substr(0, name.size() - nearest_ending.size());
        int32_t format = 0;
        if (qlora_format_find(before.c_str(), &format) == QLORA_OK && is_calibrated(format)) {
            choice.nearest = true;
            name = before;
        }
    }
    if (name == integers_name) {
        choice.integers = true;
        name = "int8";
    }
    if (name == scaled_name) {
        choice.scaled = true;
        name = "nvfp4";
    }
    choice.format = named_format(name, option);
    return choice;
}

std::string FormatChoice::name(uint32_t default_block) const {
    const uint32_t shown_block = block != 0 ? block : default_block;
    return (integers ? integers_name : scaled ? scaled_name : format_name(format)) + (nearest ? nearest_ending : "") +
           (shown_block == 0 ? "" : ":" + std::to_string(shown_block));
}

const TensorType *ggml_type(int32_t format) {
    return format < ggml_formats ? nullptr : find_tensor_type(static_cast<uint32_t>(format - ggml_formats));
}

int32_t format_of(const TensorType &type) {
    auto info = qlora::make<qlora_format_info>();
    const int32_t format = ggml_formats + static_cast<int32_t>(type.id);
    return qlora_format_query(format, &info) == QLORA_OK ? format : 0;
}

int32_t fitting_format(int32_t format, uint64_t cols) {
    if (fits(format, cols)) return format;
    const auto found = shorter_blocks.find(format);
    return found != shorter_blocks.end() && fits(found->second, cols) ? found->second : QLORA_FORMAT_F16;
}

qlora_weight_layout_info weight_layout(int32_t format, uint32_t block, uint64_t rows, uint64_t cols,
                                       uint64_t outliers) {
    auto weight = qlora::make<qlora_weight>();
    auto layout = qlora::make<qlora_weight_layout_info>();
    weight.format = format;
    weight.block = block;
    weight.rows = rows;
    weight.cols = cols;
    weight.outliers = outliers;
    const int32_t status = qlora_weight_layout(&weight, &layout);
    if (status == QLORA_ERROR_ARGUMENT) fail(format_name(format), " takes no block of ", block, " values");
    if (status != QLORA_OK) fail(format_name(format), " does not take a matrix of ", rows, " x ", cols);
    return layout;
}

uint64_t weight_bytes(int32_t format, uint32_t block, uint64_t rows, uint64_t cols, uint64_t outliers) {
    uint64_t bytes = 0;
    for (uint64_t plane : weight_layout(format, block, rows, cols, outliers).plane_bytes) bytes += plane;
    return bytes;
}

// A weight whose codes count upwards and whose scales are 1, decoded by the library.
const std::vector<float> &code_table(int32_t format) {
    static std::map<int32_t, std::vector<float>> tables;
    std::vector<float> &table = tables[format];
    if (!table.empty()) return table;
    const uint32_t bits = qlora::format_query(format).bits, count = 1u << bits;
    qlora::Context context(QLORA_BACKEND_REF);
    qlora::Weight weight(context, format, 1, count);
    std::vector<uint8_t> codes(weight.layout().plane_bytes[QLORA_PLANE_CODE]);
    for (size_t i = 0; i < codes.size(); ++i)
        codes[i] = static_cast<uint8_t>(bits == 4 ? (2 * i) << 4 | (2 * i + 1) : i);
    const std::vector<float> ones(weight.layout().plane_bytes[QLORA_PLANE_SCALE] / sizeof(float), 1.0f);
    weight.write_plane(QLORA_PLANE_CODE, codes.data());
    weight.write_plane(QLORA_PLANE_SCALE, ones.data());
    qlora::Buffer values(context, count * sizeof(float));
    auto args = qlora::make<qlora_dequantize_args>();
    args.weight = weight.get();
    args.dst = qlora::tensor(QLORA_FORMAT_F32, 1, count, values.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_DEQUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_dequantize(args);
    table = values.read<float>();
    for (float &value : table) value += 0.0f; // bitsandbytes' table has no negative zero
    return table;
}

} // namespace finetune
