#include "plan.h"

#include "format_choice.h"
#include "output.h"
#include "packed_gptq.h"
#include "report.h"

#include <fnmatch.h>
#include <map>

namespace quantize {
namespace {

uint32_t block_of(int32_t format, uint32_t block) { return block == 0 ? qlora::format_query(format).block : block; }

// The block that was asked for, where the format leaves a choice.
uint32_t chosen_block(int32_t format, uint32_t block) {
    const qlora_format_info info = qlora::format_query(format);
    return info.block_min == info.block_max ? 0 : block;
}

std::string columns_note(uint64_t cols, int32_t wanted, int32_t fitting) {
    return std::to_string(cols) + " columns do not divide into " + format_name(wanted) + " blocks of " +
           std::to_string(qlora::format_query(wanted).block) + ": " + format_name(fitting) + " instead";
}

} // namespace

bool Choice::same() const {
    const StoredWeight &weight = tensor->weight;
    return format == 0 || (!scaled && format == weight.format && block_of(format, block) == block_of(weight.format, weight.block));
}

uint64_t Choice::bytes() const {
    return format == 0 ? tensor->bytes() : weight_bytes(format, block, tensor->weight.rows, tensor->weight.cols, outliers);
}

std::vector<Choice> choose(const Source &source, Container container, int32_t format, const Command &command) {
    std::vector<Choice> choices;
    for (const SourceTensor &tensor : source.tensors()) {
        const StoredWeight &weight = tensor.weight;
        if (tensor.is_scale) continue; // goes with its weight
        Choice choice = {&tensor, tensor.is_linear(), weight.format, weight.block, false, false, "", weight.outliers};
        int32_t wanted = choice.linear ? format : 0;
        for (const Rule &rule : command.rules)
            if (fnmatch(rule.pattern.c_str(), tensor.name.c_str(), 0) == 0) wanted = rule.format;
        if (wanted != 0 && weight.format == 0) {
            choice.note = tensor.type + " values stay as they are";
        } else if (wanted != 0 && !tensor.is_matrix() && !is_float(wanted)) {
            choice.note = "a vector stays as it is";
        } else if (wanted != 0) {
            choice.asked = true;
            choice.outliers = wanted == weight.format ? weight.outliers : 0;
            choice.format = fitting_format(wanted, weight.cols);
            choice.block = choice.format == wanted ? chosen_block(wanted, command.block) : 0;
            if (container == Container::safetensors && is_gptq(wanted) &&
                !fits_gptq_words(wanted, weight.rows, weight.cols)) {
                choice.format = QLORA_FORMAT_F16;
                choice.block = 0;
                choice.note = std::to_string(weight.rows) + " x " + std::to_string(weight.cols) + " " +
                              format_name(wanted) + " codes do not fill 32-bit words both ways: f16 instead";
            } else if (choice.format != wanted) choice.note = columns_note(weight.cols, wanted, choice.format);
        }
        if (container == Container::gguf && choice.format != 0 && ggml_type(choice.format) == nullptr)
            fail(source.path(), ": tensor ", shown(tensor.name), ": GGUF has no type for ", format_name(choice.format),
                 "; write a .safetensors file, or choose another --type");
        const bool kept = weight.tensor_scale != 0 && choice.format == weight.format;
        if (choice.format == QLORA_FORMAT_NVFP4 && (kept || (choice.asked && command.tensor_scale))) {
            choice.scaled = !kept;
            if (container != Container::gguf)
                fail(source.path(), ": tensor ", shown(tensor.name),
                     ": a scale per tensor goes to GGUF files only; give --out FILE.gguf");
        }
        if (choice.format != 0) choice.bytes(); // says here what does not go together
        choices.push_back(std::move(choice));
    }
    return choices;
}

Cost linear_cost(const std::vector<Choice> &choices) {
    Cost cost;
    for (const Choice &choice : choices) {
        if (!choice.linear) continue;
        ++cost.tensors;
        cost.values += choice.tensor->elements;
        cost.bytes += choice.bytes();
    }
    return cost;
}

void print_plan(const Source &source, const Command &command, FILE *out) {
    const std::unique_ptr<Gguf> keys = command.keys.empty() ? nullptr : std::make_unique<Gguf>(command.keys);
    const Gguf *given = keys ? keys.get() : source.gguf();
    const Cost now = linear_cost(choose(source, Container::safetensors, 0, {}));
    fprintf(out, "%s: %zu tensors, %s; %llu linear weights with %llu values\n", source.path().c_str(),
            source.tensors().size(), readable_bytes(source.bytes()).c_str(),
            static_cast<unsigned long long>(now.tensors), static_cast<unsigned long long>(now.values));
    fprintf(out, "%-12s %12s %16s %16s %16s  %s\n", "type", "bits/weight", "linear bytes", "gguf bytes",
            "safetensors bytes", "notes");
    std::vector<int32_t> formats = {0};
    for (int32_t format : all_formats())
        if (command.format == 0 || format == command.format) formats.push_back(format);
    for (int32_t format : formats) {
        Command asked = command;
        const qlora_format_info info = qlora::format_query(format == 0 ? QLORA_FORMAT_F32 : format);
        if (asked.block < info.block_min || asked.block > info.block_max) asked.block = 0;
        const std::vector<Choice> choices = choose(source, Container::safetensors, format, asked);
        const Cost cost = linear_cost(choices);
        std::string gguf = "-", safetensors = "-";
        try {
            gguf = std::to_string(
                Output(choose(source, Container::gguf, format, asked), Container::gguf, given).file_bytes());
        } catch (const Error &) {
            // no such type there
        }
        try {
            safetensors = std::to_string(Output(choices, Container::safetensors, nullptr).file_bytes());
        } catch (const Error &) {
            // it holds a type that only GGUF has
        }
        std::map<std::string, int> notes;
        for (const Choice &choice : choices)
            if (!choice.note.empty()) ++notes[choice.note];
        std::string text;
        for (const auto &[note, count] : notes)
            text += (text.empty() ? "" : "; ") + std::to_string(count) + " x " + note;
        fprintf(out, "%-12s %12.4f %16llu %16s %16s  %s\n", format == 0 ? "as it is" : info.name, cost.bits(),
                static_cast<unsigned long long>(cost.bytes), gguf.c_str(), safetensors.c_str(), text.c_str());
    }
}

void print_memory(const Source &source, const std::vector<Choice> &choices, FILE *out) {
    std::map<std::string, Cost> costs;
    Cost all;
    for (const Choice &choice : choices) {
        Cost &cost = costs[choice.format == 0 ? choice.tensor->type : format_name(choice.format)];
        for (Cost *sum : {&cost, &all}) {
            ++sum->tensors;
            sum->values += choice.tensor->elements;
            sum->bytes += choice.bytes();
        }
    }
    costs["total"] = all;
    fprintf(out, "%-12s %8s %16s %16s %12s\n", "memory", "tensors", "values", "bytes", "bits/value");
    for (const std::string last : {"", "total"})
        for (const auto &[name, cost] : costs)
            if ((name == "total") == (last == "total"))
                fprintf(out, "%-12s %8llu %16llu %16llu %12.4f\n", name.c_str(),
                        static_cast<unsigned long long>(cost.tensors), static_cast<unsigned long long>(cost.values),
                        static_cast<unsigned long long>(cost.bytes), cost.bits());
    const Cost linear = linear_cost(choices);
    fprintf(out, "linear weights %.4f bits each; all tensors %s, before %s\n", linear.bits(),
            readable_bytes(all.bytes).c_str(), readable_bytes(source.bytes()).c_str());
}

} // namespace quantize
