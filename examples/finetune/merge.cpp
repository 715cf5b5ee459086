#include "merge.h"

#include "format_choice.h"

#include <algorithm>
#include <map>

namespace finetune {
namespace {

const uint64_t elements_at_once = 1 << 26;

bool only_codes(const StoredWeight &weight) {
    bool only = weight.gptq.qweight == nullptr && weight.outliers == 0;
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
        only = only && (plane == QLORA_PLANE_CODE || weight.planes[plane] == nullptr);
    return only;
}

// Rows [first, first + rows) of a weight that has nothing but codes.
StoredWeight view_rows(const StoredWeight &weight, uint64_t first, uint64_t rows) {
    StoredWeight part;
    part.format = weight.format;
    part.block = weight.block;
    part.rows = rows;
    part.cols = weight.cols;
    part.dtype = weight.dtype;
    part.tensor_scale = weight.tensor_scale;
    part.planes[QLORA_PLANE_CODE] =
        weight.planes[QLORA_PLANE_CODE] + first * weight_bytes(weight.format, weight.block, 1, weight.cols);
    return part;
}

// values += scale * B A, rows [first, ...) of B.
void add_update(Device &device, const qlora_tensor &values, const LoraPair &pair, uint64_t first) {
    std::vector<float> b(values.rows * pair.rank), a_turned(pair.inputs * pair.rank);
    for (size_t i = 0; i < b.size(); ++i) b[i] = float(pair.scale * double(pair.b[first * pair.rank + i]));
    for (uint64_t k = 0; k < pair.rank; ++k)
        for (uint64_t i = 0; i < pair.inputs; ++i) a_turned[i * pair.rank + k] = pair.a[k * pair.inputs + i];
    const qlora::Buffer x(device.context(), b), m(device.context(), a_turned);
    auto weight = qlora::make<qlora_weight>();
    weight.format = QLORA_FORMAT_F32;
    weight.rows = pair.inputs;
    weight.cols = pair.rank;
    weight.planes[QLORA_PLANE_CODE] = m.span();
    auto args = qlora::make<qlora_matmul_args>();
    args.flags = QLORA_FLAG_ACCUMULATE;
    args.weight = &weight;
    args.x = qlora::tensor(QLORA_FORMAT_F32, values.rows, pair.rank, x.span());
    args.y = values;
    args.compute_type = QLORA_FORMAT_F32;
    device.measure([&] { device.run(QLORA_OP_MATMUL, qlora_weight_matmul, args); });
    device.run(QLORA_OP_MATMUL, qlora_weight_matmul, args);
}

std::vector<uint8_t> codes_of_rows(Device &device, const StoredWeight &stored, const LoraPair *update, uint64_t first,
                                   int32_t format) {
    const uint64_t rows = stored.rows, cols = stored.cols;
    const qlora::Buffer buffer(device.context(), rows * cols * sizeof(float));
    const qlora_tensor values = qlora::tensor(QLORA_FORMAT_F32, rows, cols, buffer.span());
    {
        const qlora::Weight weight = upload_weight(device.context(), stored);
        auto args = qlora::make<qlora_dequantize_args>();
        args.weight = weight.get();
        args.dst = values;
        device.measure([&] { device.run(QLORA_OP_DEQUANTIZE, qlora_weight_dequantize, args); });
        device.run(QLORA_OP_DEQUANTIZE, qlora_weight_dequantize, args);
    }
    if (update != nullptr) add_update(device, values, *update, first);
    qlora::Weight weight(device.context(), format, rows, cols, 0);
    if (format == QLORA_FORMAT_NVFP4) weight.set_tensor_scale(stored.tensor_scale);
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = values;
    device.quantize(args);
    return weight.read_plane(QLORA_PLANE_CODE);
}

} // namespace

std::vector<uint8_t> merged_codes(Device &device, const StoredWeight &weight, const LoraPair *update, int32_t format,
                                  const std::string &name) {
    std::vector<uint8_t> codes;
    try {
        const uint64_t most = only_codes(weight) ? std::max<uint64_t>(1, elements_at_once / weight.cols) : weight.rows;
        for (uint64_t first = 0; first < weight.rows; first += most) {
            const uint64_t rows = std::min(most, weight.rows - first);
            const std::vector<uint8_t> part =
                rows == weight.rows ? codes_of_rows(device, weight, update, 0, format)
                                    : codes_of_rows(device, view_rows(weight, first, rows), update, first, format);
            codes.insert(codes.end(), part.begin(), part.end());
        }
    } catch (const qlora::Error &error) {
        fail("tensor ", shown(name), " cannot become ", format_name(format), ": ", error.what(), "; choose another --type");
    } catch (const Error &error) { fail("tensor ", shown(name), " cannot become ", format_name(format), ": ", error.what()); }
    if (format == QLORA_FORMAT_F16)
        for (size_t i = 1; i < codes.size(); i += 2)
            if ((codes[i] & 0x7c) == 0x7c)
                fail("tensor ", shown(name), ": element ", i / 2, " is beyond the range of f16; choose --type bf16");
    return codes;
}

Merged merge_gguf(Device &device, const std::string &base, const AdapterFile &adapters, const MergeOptions &options,
                  const std::string &out) {
    const Gguf file(base);
    std::map<std::string, const LoraPair *> updates;
    for (const LoraPair &pair : adapters.pairs) updates.emplace(pair.module + ".weight", &pair);

    // What each tensor becomes; format 0: it stays, byte for byte.
    struct Step {
        const GgufTensor *tensor;
        StoredWeight weight;
        const LoraPair *update;
        int32_t format;
    };
    std::vector<Step> steps;
    Merged done;
    size_t found = 0;
    for (const GgufTensor &tensor : file.tensors()) {
        Step step = {&tensor, view_weight(file, tensor), nullptr, 0};
        const auto update = updates.find(std::string(tensor.name));
        const bool matrix = tensor.dims == 2 && step.weight.format != 0 && step.weight.rows > 1;
        if (update != updates.end()) {
            if (!matrix || step.weight.cols != update->second->inputs || step.weight.rows != update->second->outputs)
                file.reject("tensor ", shown(tensor.name), " is no weight that the adapter fits");
            step.update = update->second;
            step.format = step.weight.format;
            ++found;
        }
        // Small matrices that are no weights, as tables of rotary factors, stay.
        const std::string name(tensor.name);
        const bool weight = name.size() > 7 && name.compare(name.size() - 7, 7, ".weight") == 0 && name.find("norm") == std::string::npos;
        if (options.format != 0 && matrix && weight) {
            const int32_t fitting = fitting_format(options.format, step.weight.cols);
            if (step.update != nullptr || fitting != step.weight.format) step.format = fitting;
        }
        if (step.update != nullptr) ++done.updated;
        else if (step.format != 0) ++done.converted;
        else ++done.copied;
        steps.push_back(std::move(step));
    }
    if (found != updates.size()) file.reject("the adapter has ", updates.size(), " layers, the file ", found, " of them");

    const std::map<int32_t, uint32_t> file_types = {
        {QLORA_FORMAT_F32, 0}, {QLORA_FORMAT_F16, 1}, {QLORA_FORMAT_Q8_0, 7}, {QLORA_FORMAT_BF16, 32}};
    GgufWriter writer;
    const auto type = file_types.find(options.format);
    bool version = false;
    for (std::string_view key : file.keys()) {
        version = version || key == "general.quantization_version";
        if (key == "general.alignment" || key.substr(0, 6) == "split.") continue; // of the base's own files
        if (key == "general.file_type" && options.format != 0) continue;
        writer.add_entry(file.entry(key));
    }
    if (options.format != 0 && type != file_types.end()) writer.add_u32("general.file_type", type->second);
    if (options.format == QLORA_FORMAT_Q8_0 && !version) writer.add_u32("general.quantization_version", 2);
    for (const Step &step : steps)
        writer.add_tensor(step.tensor->name, step.format == 0 ? step.tensor->type->id : ggml_type(step.format)->id,
                          {step.tensor->ne, step.tensor->ne + step.tensor->dims}, nullptr);
    std::vector<uint8_t> codes;
    writer.save(out, [&](size_t i) -> const void * {
        const Step &step = steps[i];
        if (step.format == 0) return step.tensor->data;
        codes = merged_codes(device, step.weight, step.update, step.format, std::string(step.tensor->name));
        return codes.data();
    });
    done.bytes = writer.file_bytes();
    return done;
}

} // namespace finetune
