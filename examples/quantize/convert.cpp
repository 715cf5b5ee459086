#include "convert.h"

#include "format_choice.h"

#include <cmath>

namespace quantize {

double Quality::decibels() const { return error == 0 ? INFINITY : 10 * std::log10(signal / error); }

Converter::Converter(const Source &source, const Command &command, const Importance &importance)
    : source_(source), command_(command), importance_(importance), device_(command.device, command.threads) {}

qlora::Weight Converter::convert(const Choice &choice, Quality *quality) {
    const StoredWeight &stored = choice.tensor->weight;
    try {
        qlora::Weight given = upload_weight(device_.context(), stored);
        *quality = {};
        if (choice.same()) return given;
        const std::vector<float> before = decode(given);
        given = qlora::Weight();
        qlora::Weight weight(device_.context(), choice.format, stored.rows, stored.cols, choice.block);
        if (choice.scaled) weight.set_tensor_scale(recipe_tensor_scale(before));
        const auto ready = ready_ == nullptr ? HostWeights::const_iterator() : ready_->find(choice.tensor->name);
        if (ready_ != nullptr && ready != ready_->end() && ready->second.format == choice.format)
            weight = upload_weight(device_.context(), ready->second);
        else quantize(choice, before, weight);
        *quality = compare(choice, before, decode(weight));
        return weight;
    } catch (const qlora::Error &error) {
        fail(source_.path(), ": tensor ", shown(choice.tensor->name), " cannot become ", format_name(choice.format),
             ": ", error.what());
    }
}

std::vector<float> Converter::decode(const qlora::Weight &weight) {
    const qlora_weight &about = *weight.get();
    const qlora::Buffer values(device_.context(), about.rows * about.cols * sizeof(float));
    auto args = qlora::make<qlora_dequantize_args>();
    args.weight = weight.get();
    args.dst = qlora::tensor(QLORA_FORMAT_F32, about.rows, about.cols, values.span());
    device_.measure([&] { device_.run(QLORA_OP_DEQUANTIZE, qlora_weight_dequantize, args); });
    device_.run(QLORA_OP_DEQUANTIZE, qlora_weight_dequantize, args);
    return values.read<float>();
}

void Converter::quantize(const Choice &choice, const std::vector<float> &values, const qlora::Weight &weight) {
    const qlora_weight &about = *weight.get();
    const qlora::Buffer source(device_.context(), values);
    qlora::Buffer importance;
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, about.rows, about.cols, source.span());
    if (const std::vector<float> *columns = importance_.find(choice.tensor->name, about.cols)) {
        importance = qlora::Buffer(device_.context(), *columns);
        args.importance = importance.span();
    }
    const bool random = choice.format == QLORA_FORMAT_NVFP4 || choice.format == QLORA_FORMAT_MXFP4 ||
                        (choice.format >= QLORA_FORMAT_FP8_E4M3 && choice.format <= QLORA_FORMAT_MXFP6_E3M2);
    if (command_.stochastic && random) args.flags = QLORA_FLAG_STOCHASTIC;
    args.seed = command_.seed;
    args.power = command_.power;
    try {
        device_.quantize(args);
    } catch (const Error &error) { // of values; what the library itself refuses is named by convert()
        fail(source_.path(), ": tensor ", shown(choice.tensor->name), " cannot become ", format_name(choice.format),
             ": ", error.what());
    }
}

Quality Converter::compare(const Choice &choice, const std::vector<float> &before,
                           const std::vector<float> &after) const {
    Quality quality;
    for (size_t i = 0; i < before.size(); ++i) {
        const double value = double(before[i]), error = double(after[i]) - value;
        if (!std::isfinite(after[i]) || (choice.format == QLORA_FORMAT_UDYN8 && before[i] < 0))
            fail(source_.path(), ": tensor ", shown(choice.tensor->name), ": element ", i, " is ", before[i],
                 ", which is beyond the range of ", format_name(choice.format), "; choose another --type for it");
        quality.error += error * error;
        quality.signal += value * value;
        quality.largest = std::max(quality.largest, std::fabs(error));
    }
    quality.error /= double(before.size());
    quality.signal /= double(before.size());
    return quality;
}

} // namespace quantize
