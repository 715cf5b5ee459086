// State dicts of bitsandbytes' optimizers.
#include "optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace finetune {
namespace {

uint64_t blocks_of(uint64_t count, uint64_t block) { return (count + block - 1) / block; }

} // namespace

// State 0..2 (m, v, n) of parameter i as floats: F32 as it is, or codes by the file's own table and scales. n stands behind m.
std::vector<float> Optimizer::decode(const SafeTensors &file, const std::string &prefix, int state, size_t i) const {
    const std::string digit = state == 1 ? "2" : "1";
    const uint64_t count = parameters_[i].count, first = state == 2 ? count : 0;
    const SafeTensor &tensor = file.get(prefix + ".state" + digit);
    if (tensor.elements < first + count) file.reject("tensor ", shown(tensor.name), " has ", tensor.elements, " elements, the parameter ", count);
    std::vector<float> values(count);
    if (tensor.dtype != "U8") {
        const std::vector<float> all = file.floats(tensor);
        std::copy(all.begin() + std::ptrdiff_t(first), all.begin() + std::ptrdiff_t(first + count), values.begin());
        return values;
    }
    const std::vector<float> table = file.floats(file.get(prefix + ".qmap" + digit)), absmax = file.floats(file.get(prefix + ".absmax" + digit));
    if (table.size() != 256) file.reject("tensor ", shown(prefix + ".qmap" + digit), ": expected 256 values");
    // Blocks of 256, or of 2048 as before version 0.44. The slow moment's scales follow those of whole blocks before it.
    const bool three = tensor.elements >= 2 * count;
    uint64_t block = 0;
    for (uint64_t size : {256, 2048})
        if (absmax.size() == blocks_of(count, size) * (three ? 2 : 1)) block = size;
    if (block == 0) file.reject("tensor ", shown(prefix + ".absmax" + digit), " has ", absmax.size(), " scales: neither of blocks of 256 nor of 2048");
    for (uint64_t k = 0; k < count; ++k) {
        values[k] = table[tensor.data[first + k]] * absmax[first / block + k / block];
        if (!std::isfinite(values[k])) file.reject("tensor ", shown(tensor.name), ": element ", k, " is not finite");
    }
    return values;
}

// As F32, or quantized anew by the library.
void Optimizer::store(size_t i, int state, const std::vector<float> &values) {
    const qlora_parameter &parameter = parameters_[i];
    const qlora_span spans[3] = {parameter.state1, parameter.state2, parameter.state3}, scales[3] = {parameter.absmax1, parameter.absmax2, parameter.absmax3};
    if (parameter.state_type == QLORA_FORMAT_F32) return device_.write(spans[state], values.data(), values.size() * 4);
    const qlora::Context &context = device_.context();
    const qlora::Weight weight(context, state == 1 ? QLORA_FORMAT_UDYN8 : QLORA_FORMAT_DYN8, 1, values.size(), 256);
    const qlora::Buffer src(context, values);
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, 1, values.size(), src.span());
    const qlora::Buffer scratch(context, std::max<uint64_t>(16, context.operation_scratch(QLORA_OP_QUANTIZE, args)));
    args.scratch = scratch.span();
    context.weight_quantize(args);
    const std::vector<uint8_t> codes = weight.read_plane(QLORA_PLANE_CODE), absmax = weight.read_plane(QLORA_PLANE_SCALE);
    device_.write(spans[state], codes.data(), codes.size());
    device_.write(scales[state], absmax.data(), absmax.size());
}

uint64_t Optimizer::import_bitsandbytes(const std::string &path) {
    const SafeTensors file(path);
    uint64_t step = 0;
    for (size_t i = 0; i < parameters_.size(); ++i) {
        const qlora_parameter &parameter = parameters_[i];
        std::string prefix;
        for (const std::string &name : {name_of(i), name_of(i, "default."), "state." + std::to_string(i), std::to_string(i)})
            if (prefix.empty() && file.find(name + ".state1") != nullptr) prefix = name;
        if (prefix.empty()) file.reject("no state of ", shown(name_of(i)), ": expected a tensor ", shown(name_of(i) + ".state1"), " or ", shown("state." + std::to_string(i) + ".state1"));
        if (const SafeTensor *steps = file.find(prefix + ".step")) {
            const double value = steps->dtype[0] == 'I' ? double(file.integers(*steps).at(0)) : double(file.floats(*steps).at(0));
            if (!(value >= 0 && value < 1e15)) file.reject("tensor ", shown(steps->name), " is no step");
            step = std::max(step, uint64_t(value));
        }
        const AdapterShape &shape = adapter_.shape();
        const bool turned = i % 2 == 1 && shape.turns(i / 2, true); // rows of B
        for (int state = 0; state < 3; ++state) {
            const qlora_span &span = state == 0 ? parameter.state1 : state == 1 ? parameter.state2 : parameter.state3;
            const qlora_span &scales = state == 0 ? parameter.absmax1 : state == 1 ? parameter.absmax2 : parameter.absmax3;
            if (span.size == 0) continue;
            const SafeTensor &tensor = file.get(prefix + (state == 1 ? ".state2" : ".state1"));
            const SafeTensor *table = file.find(prefix + (state == 1 ? ".qmap2" : ".qmap1")), *absmax = file.find(prefix + (state == 1 ? ".absmax2" : ".absmax1"));
            std::vector<float> values = decode(file, prefix, state, i); // checks sizes, too
            // Where tables and blocks are ours the bytes are as well.
            const std::vector<float> &own = state == 1 ? unsigned_table_ : signed_table_;
            if (!turned && state != 2 && parameter.state_type == QLORA_FORMAT_DYN8 && tensor.dtype == "U8" && table != nullptr && file.floats(*table) == own &&
                absmax->elements >= blocks_of(parameter.count, 256)) {
                device_.write(span, tensor.data, parameter.count);
                device_.write(scales, absmax->data, scales.size);
                continue;
            }
            if (turned) shape.to_base(values, i / 2, adapter_.rank(), true);
            store(i, state, values);
        }
    }
    return step;
}

} // namespace finetune
