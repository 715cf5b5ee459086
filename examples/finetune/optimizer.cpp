#include "optimizer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace finetune {
namespace {

const struct {
    const char *name;
    int32_t algorithm;
} algorithms[] = {{"adamw", QLORA_OPTIMIZER_ADAMW},       {"adam", QLORA_OPTIMIZER_ADAM},       {"stable-adamw", QLORA_OPTIMIZER_STABLE_ADAMW}, {"lion", QLORA_OPTIMIZER_LION},
                  {"momentum", QLORA_OPTIMIZER_MOMENTUM}, {"rmsprop", QLORA_OPTIMIZER_RMSPROP}, {"adagrad", QLORA_OPTIMIZER_ADAGRAD},           {"lamb", QLORA_OPTIMIZER_LAMB},
                  {"lars", QLORA_OPTIMIZER_LARS},         {"ademamix", QLORA_OPTIMIZER_ADEMAMIX}};

const char *const piece_names[QLORA_STATE_COUNT] = {"state1", "state2", "state3", "absmax1", "absmax2", "absmax3"};
const char *const state_version = "1";

qlora_span &piece_span(qlora_parameter &parameter, int piece) {
    qlora_span *const spans[QLORA_STATE_COUNT] = {&parameter.state1,  &parameter.state2,  &parameter.state3,
                                                  &parameter.absmax1, &parameter.absmax2, &parameter.absmax3};
    return *spans[piece];
}

// FNV-1a, 64 bits.
uint64_t checksum(uint64_t sum, const void *data, size_t size) {
    for (size_t i = 0; i < size; ++i) sum = (sum ^ static_cast<const uint8_t *>(data)[i]) * 0x100000001b3u;
    return sum;
}
const uint64_t checksum_seed = 0xcbf29ce484222325u;

std::string hexadecimal(uint64_t value) {
    char text[17];
    snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
    return text;
}

// The 256 values of the library's own table.
std::vector<float> table_of(Device &device, int32_t format) {
    qlora::Weight codes(device.context(), format, 1, 256, 256);
    std::vector<uint8_t> all(256);
    for (size_t i = 0; i < 256; ++i) all[i] = uint8_t(i);
    const float one = 1;
    codes.write_plane(QLORA_PLANE_CODE, all.data());
    codes.write_plane(QLORA_PLANE_SCALE, &one);
    const qlora::Buffer values(device.context(), 256 * 4);
    auto args = qlora::make<qlora_dequantize_args>();
    args.weight = codes.get();
    args.dst = qlora::tensor(QLORA_FORMAT_F32, 1, 256, values.span());
    const qlora::Buffer scratch(device.context(), std::max<uint64_t>(16, device.context().operation_scratch(QLORA_OP_DEQUANTIZE, args)));
    args.scratch = scratch.span();
    device.context().weight_dequantize(args);
    return values.read<float>();
}

} // namespace

OptimizerChoice optimizer_by_name(const std::string &name) {
    const std::string ending = "8bit";
    const bool small = name.size() > ending.size() && name.compare(name.size() - ending.size(), ending.size(), ending) == 0;
    const std::string plain = small ? name.substr(0, name.size() - ending.size()) : name;
    for (const auto &known : algorithms)
        if (plain == known.name) return {known.algorithm, small, name, 0};
    fail("--optimizer ", shown(name), ": expected ", optimizer_names());
}

std::string optimizer_names() {
    std::string names;
    for (const auto &known : algorithms) names += std::string(known.name) + ", ";
    return names + "or one of them with 8bit behind, as adamw8bit";
}

Optimizer::Optimizer(Device &device, const Trainable &adapter, const OptimizerChoice &choice, uint64_t budget)
    : device_(device), adapter_(adapter), choice_(choice), parameters_(adapter.parameters()), pager_(qlora::make<qlora_pager>()) {
    for (qlora_parameter &parameter : parameters_) parameter.state_type = choice.small ? QLORA_FORMAT_DYN8 : QLORA_FORMAT_F32;
    for (size_t i = 1; i < parameters_.size(); i += 2) parameters_[i].learning_rate_scale = choice.b_rate;
    pager_.parameters = parameters_.data();
    pager_.parameter_count = static_cast<uint32_t>(parameters_.size());
    pager_.algorithm = choice.algorithm;
    pager_.budget_bytes = budget;
    const qlora::Context &context = device.context();
    context.pager_plan(pager_);
    const auto make = [&](uint64_t bytes, bool host, qlora_span &span) {
        const Device::Section section(device, "optimizer state");
        Memory memory = device.take(bytes, host);
        device.fill_zero(memory.span(), bytes);
        span = memory.span();
        return memory;
    };
    resident_ = make(pager_.resident_bytes, false, pager_.resident);
    window_ = make(pager_.window_bytes, false, pager_.window);
    arena_ = make(pager_.arena_bytes, true, pager_.arena);
    context.pager_place(pager_);
    if (!choice.small || device.planning()) return;
    signed_table_ = table_of(device, QLORA_FORMAT_DYN8);
    unsigned_table_ = table_of(device, QLORA_FORMAT_UDYN8);
}

void Optimizer::fill(qlora_optimizer_args &args) const {
    args.parameters = parameters_.data();
    args.parameter_count = static_cast<uint32_t>(parameters_.size());
    args.algorithm = choice_.algorithm;
    args.window = pager_.window;
    args.page_bytes = pager_.window_bytes ? pager_.page_bytes : 0;
}

std::string Optimizer::name_of(size_t i, const char *adapter) const {
    return adapter_.shape().peft_name(i / 2, i % 2 == 0 ? "lora_A" : "lora_B", adapter);
}

std::vector<uint8_t> Optimizer::read(const qlora_span &span) const {
    std::vector<uint8_t> bytes(span.size);
    device_.read(span, bytes.data(), bytes.size());
    return bytes;
}

void Optimizer::save(const std::string &path, uint64_t step, const std::map<std::string, std::string> &extra) const {
    std::vector<std::vector<uint8_t>> data;
    std::vector<std::pair<std::string, bool>> names; // and whether floats
    for (size_t i = 0; i < parameters_.size(); ++i) {
        qlora_parameter parameter = parameters_[i];
        data.push_back(read(parameter.value));
        names.emplace_back(name_of(i) + ".value", true);
        for (int piece = 0; piece < QLORA_STATE_COUNT; ++piece) {
            if (piece_span(parameter, piece).size == 0) continue;
            data.push_back(read(piece_span(parameter, piece)));
            names.emplace_back(name_of(i) + "." + piece_names[piece], piece >= QLORA_STATE_ABSMAX1 || parameter.state_type == QLORA_FORMAT_F32);
        }
    }
    uint64_t sum = checksum_seed;
    SafeTensorsWriter writer;
    for (size_t i = 0; i < data.size(); ++i) {
        sum = checksum(sum, names[i].first.data(), names[i].first.size());
        sum = checksum(sum, data[i].data(), data[i].size());
        writer.add(names[i].first, names[i].second ? "F32" : "U8", {names[i].second ? data[i].size() / 4 : data[i].size()}, data[i].data());
    }
    writer.add_metadata("format", "qlora-optimizer-state");
    writer.add_metadata("version", state_version);
    writer.add_metadata("optimizer", choice_.name);
    writer.add_metadata("step", std::to_string(step));
    sum = checksum(sum, &step, sizeof step);
    for (const auto &[key, text] : extra) {
        writer.add_metadata(key, text);
        sum = checksum(sum, text.data(), text.size());
    }
    writer.add_metadata("checksum", hexadecimal(sum));
    writer.save(path);
}

uint64_t Optimizer::load(const std::string &path, std::map<std::string, std::string> *extra) {
    const SafeTensors file(path);
    const auto metadata = [&](const char *key) {
        const std::string *value = file.metadata(key);
        return value ? *value : std::string();
    };
    if (metadata("format") != "qlora-optimizer-state") file.reject("no optimizer state: its metadata lacks format qlora-optimizer-state");
    if (metadata("version") != state_version) file.reject("version ", shown(metadata("version")), " of the state; this program reads version ", state_version);
    if (metadata("optimizer") != choice_.name) file.reject("state of the optimizer ", shown(metadata("optimizer")), "; give --optimizer ", metadata("optimizer"));
    const std::string digits = metadata("step");
    if (digits.empty() || digits.size() > 18 || digits.find_first_not_of("0123456789") != std::string::npos) file.reject("its step ", shown(digits), " is no number");
    const uint64_t step = strtoull(digits.c_str(), nullptr, 10);

    struct Piece {
        qlora_span span;
        const SafeTensor *tensor;
    };
    std::vector<Piece> pieces;
    uint64_t sum = checksum_seed;
    const auto expect = [&](const std::string &name, const qlora_span &span) {
        const SafeTensor &tensor = file.get(name);
        if (tensor.bytes != span.size) file.reject("tensor ", shown(name), " has ", tensor.bytes, " bytes, this adapter and optimizer need ", span.size, "; --rank or the base model differ");
        sum = checksum(checksum(sum, name.data(), name.size()), tensor.data, tensor.bytes);
        pieces.push_back({span, &tensor});
    };
    for (size_t i = 0; i < parameters_.size(); ++i) {
        expect(name_of(i) + ".value", parameters_[i].value);
        for (int piece = 0; piece < QLORA_STATE_COUNT; ++piece)
            if (piece_span(parameters_[i], piece).size != 0) expect(name_of(i) + "." + piece_names[piece], piece_span(parameters_[i], piece));
    }
    sum = checksum(sum, &step, sizeof step);
    for (const auto &[key, text] : file.all_metadata()) {
        if (key == "format" || key == "version" || key == "optimizer" || key == "step" || key == "checksum") continue;
        sum = checksum(sum, text.data(), text.size());
        if (extra != nullptr) (*extra)[key] = text;
    }
    if (hexadecimal(sum) != metadata("checksum")) file.reject("damaged: its checksum differs from what is written in it");
    for (const Piece &piece : pieces) device_.write(piece.span, piece.tensor->data, piece.tensor->bytes);
    return step;
}

} // namespace finetune
