#include "program.h"

#include "convert.h"
#include "format_choice.h"
#include "output.h"
#include "report.h"

#include <chrono>
#include <cmath>
#include <new>
#include <unistd.h>

namespace quantize {
namespace {

// Rows above, and on a terminal a bar below them.
class Progress {
public:
    Progress(FILE *out, uint64_t values)
        : out_(out), values_(std::max<uint64_t>(1, values)), terminal_(isatty(fileno(out)) != 0) {}

    template <class... Parts> void row(uint64_t values, const char *form, Parts... parts) {
        if (terminal_) fputs("\r\x1b[K", out_);
        fprintf(out_, form, parts...);
        done_ += values;
        if (terminal_) show();
        fflush(out_);
    }
    void end() {
        if (terminal_) fputs("\r\x1b[K", out_);
    }

private:
    void show() {
        const int width = 40, full = static_cast<int>(double(done_) / double(values_) * width);
        fprintf(out_, "[%.*s%.*s] %3.0f %%", full, "########################################", width - full,
                "........................................", 100 * double(done_) / double(values_));
    }

    FILE *out_;
    uint64_t values_, done_ = 0;
    bool terminal_;
};

void print_row(Progress &progress, const Choice &choice, const Quality &quality) {
    const double bits = 8 * double(choice.bytes()) / double(std::max<uint64_t>(1, choice.tensor->elements));
    const std::string to = choice.format == 0 ? choice.tensor->type : format_name(choice.format);
    progress.row(choice.tensor->elements, "%-40s %-10s %-10s %8.4f %11.3e %8.2f %11.3e  %s\n",
                 choice.tensor->name.c_str(), choice.tensor->type.c_str(), to.c_str(), bits, quality.error,
                 quality.decibels(), quality.largest, choice.note.c_str());
}

// Linear weights fitted to the text of --calibrate; none without it.
HostWeights calibrated(const Source &source, const Command &command, Device &device, FILE *out) {
    if (command.calibrate.empty()) return {};
    if (source.gguf() == nullptr && !is_directory(source.path()))
        fail("--calibrate: calibration runs the model, which needs a GGUF file or a Hugging Face directory; ",
             source.path(), " is none");
    const BaseModel base(source.path());
    const std::vector<Batch> windows = calibration_windows(command.calibrate, command.calibrate_tokens, base);
    CalibrationDevice calibrating(device, command.threads);
    fprintf(out, "calibration with %zu windows of %llu tokens of %s on %s\n", windows.size(),
            static_cast<unsigned long long>(windows[0].tokens()), command.calibrate.c_str(),
            (*calibrating).name().c_str());
    HostWeights by_name, ready = calibrate(*calibrating, base, windows, {command.format, command.block},
                                           [out](const CalibrationReport &report) {
                                               fprintf(out, "  %s\n", calibration_line(report).c_str());
                                               fflush(out);
                                           });
    for (auto &[name, weight] : ready) by_name.emplace(base.tensor(name).own_name, std::move(weight));
    return by_name;
}

void convert_file(const Source &source, const Command &command, FILE *out) {
    const Importance importance = command.importance.empty() ? Importance() : Importance(command.importance);
    const bool to_gguf = command.out.size() > 5 && command.out.compare(command.out.size() - 5, 5, ".gguf") == 0;
    const Container container = to_gguf ? Container::gguf : Container::safetensors;
    const std::unique_ptr<Gguf> other = command.keys.empty() ? nullptr : std::make_unique<Gguf>(command.keys);
    const Gguf *keys = other ? other.get() : source.gguf();
    std::vector<Choice> choices = choose(source, container, command.format, command);
    Output(choices, container, keys, command.gptq_version); // says what does not go together before the work begins
    Converter converter(source, command, importance);
    check_writable(command.out);
    const HostWeights ready = calibrated(source, command, converter.own_device(), out);
    if (!ready.empty()) converter.take(&ready);
    for (Choice &choice : choices) {
        const auto found = ready.find(choice.tensor->name);
        if (found != ready.end() && found->second.format == choice.format) choice.outliers = found->second.outliers;
    }
    const Output output(std::move(choices), container, keys, command.gptq_version);

    uint64_t values = 0;
    for (const Choice &choice : output.choices()) values += choice.same() ? 0 : choice.tensor->elements;
    fprintf(out, "%s on %s\n%-40s %-10s %-10s %8s %11s %8s %11s\n", source.path().c_str(), converter.device().c_str(),
            "tensor", "from", "to", "bits", "MSE", "SQNR dB", "max error");
    const auto start = std::chrono::steady_clock::now();
    Progress progress(out, values);
    size_t current = output.choices().size();
    qlora::Weight weight;
    std::vector<uint8_t> bytes;
    output.save(command.out, [&](const Output::Slot &slot) -> const void * {
        const Choice &choice = output.choices()[slot.choice];
        if (slot.choice != current) {
            Quality quality;
            weight = converter.convert(choice, &quality);
            current = slot.choice;
            print_row(progress, choice, quality);
        }
        bytes = packed_bytes(slot.part, weight, choice.tensor->weight.dtype);
        return bytes.data();
    });
    progress.end();

    uint64_t kept = 0, weighed = 0, asked = 0;
    for (const Choice &choice : output.choices()) {
        kept += choice.same();
        if (choice.same() && !choice.note.empty())
            fprintf(out, "%s: %s\n", choice.tensor->name.c_str(), choice.note.c_str());
        if (choice.same() || choice.tensor->shape.size() < 2) continue;
        ++asked;
        weighed += importance.find(choice.tensor->name, choice.tensor->weight.cols) != nullptr;
    }
    fprintf(out, "%llu tensors as they are\n", static_cast<unsigned long long>(kept));
    if (!command.importance.empty())
        fprintf(out, "importance known for %llu of %llu quantized tensors\n", static_cast<unsigned long long>(weighed),
                static_cast<unsigned long long>(asked));
    if (!to_gguf && source.gguf() != nullptr)
        fprintf(out, "the keys of the GGUF file have no place in a safetensors file\n");
    if (to_gguf && keys == nullptr)
        fprintf(out,
                "tensors only: a safetensors file has no keys such as 'general.architecture'; --keys takes some\n");
    print_memory(source, output.choices(), out);
    fprintf(out, "%s: %s in %.1f s\n", command.out.c_str(), readable_bytes(output.file_bytes()).c_str(),
            std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
}

} // namespace

int run_program(int argc, const char *const *argv, FILE *out, FILE *err) {
    std::string message;
    try {
        Command command;
        if (!parse_command(argc, argv, out, &command)) return 0;
        const Source source(command.model);
        if (command.plan) print_plan(source, command, out);
        else convert_file(source, command, out);
        return 0;
    } catch (const Error &error) { message = error.what(); } catch (const qlora::Error &error) {
        message = std::string(error.what()) + " (" + qlora_status_name(error.status()) + ")";
    } catch (const std::bad_alloc &) {
        message = "out of memory: the largest tensor is held in f32 while it is converted";
    }
    fflush(out);
    fprintf(err, "qlora-quantize: error: %s\n", message.c_str());
    return 2;
}

} // namespace quantize
