// qlora-finetune doctor
#include "commands.h"
#include "format_choice.h"
#include "network.h"
#include "report.h"
#include "rng.h"
#include "tiny_model.h"

#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>

namespace finetune {
namespace {

const char *const about =
    "Looks at every device: memory, what it computes with, how fast it copies, and whether a training step of a small model "
    "gives what the CPU gives. Exit code 0 when all that are here are well.\n";

const char *const examples = "  qlora-finetune doctor\n  qlora-finetune doctor --device cuda:1\n";

struct StepResult {
    double loss = 0, milliseconds = 0;
    std::vector<float> gradients;
};

// One forward and backward pass over two rows, the base in nf4-dq.
StepResult one_step(Device &device, const BaseModel &base) {
    const AdapterShape shape = base.shape().adapter_shape(8);
    Adapter adapter = initial_adapter(shape, 16, 1);
    Random random(2, 0);
    for (AdapterPair &pair : adapter.pairs)
        for (float &value : pair.b) value = 0.05f * (2 * random.next_uniform() - 1); // so that A has a gradient
    const Model model(device, base, QLORA_FORMAT_NF4_DQ, 0);
    const Trainable trainable(device, shape, adapter);
    Batch batch;
    for (int row = 0; row < 2; ++row) {
        std::vector<int32_t> ids;
        for (int i = 0; i < 48 + 9 * row; ++i) ids.push_back(int32_t(random.next_below(base.shape().vocabulary)));
        batch.add(ids.data(), ids.size(), 5);
    }
    BatchBounds bounds;
    bounds.include(batch);
    Network network(device, model, trainable, {}, bounds);
    const float scale = 1.0f / float(batch.losses());
    network.train(batch, scale, false); // drivers compile on first use
    network.read_loss();
    const auto start = std::chrono::steady_clock::now();
    network.train(batch, scale, false);
    StepResult result;
    result.loss = network.read_loss() / double(batch.losses());
    result.milliseconds = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start).count();
    for (const qlora_parameter &parameter : trainable.parameters()) {
        const size_t at = result.gradients.size();
        result.gradients.resize(at + parameter.count);
        device.read(parameter.gradient, &result.gradients[at], parameter.count * 4);
    }
    return result;
}

double relative_error(const std::vector<float> &values, const std::vector<float> &expected) {
    double error = 0, size = 0;
    for (size_t i = 0; i < values.size(); ++i) {
        const double difference = double(values[i]) - double(expected[i]);
        error += difference * difference;
        size += double(expected[i]) * double(expected[i]);
    }
    return std::sqrt(error / size);
}

// Bytes a second of a transfer, the best of a few.
template <class Transfer> double bandwidth(Device &device, uint64_t bytes, const Transfer &transfer) {
    double best = 0;
    for (int i = 0; i < 4; ++i) {
        const auto start = std::chrono::steady_clock::now();
        transfer();
        device.context().synchronize();
        const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
        best = std::max(best, double(bytes) / seconds);
    }
    return best;
}

void print_bandwidths(Device &device) {
    const uint64_t bytes = 64 << 20;
    std::vector<uint8_t> host(bytes, 1);
    const qlora::Buffer a(device.context(), bytes), b(device.context(), bytes);
    const double giga = 1e9;
    const double up = bandwidth(device, bytes, [&] { device.write(a.span(), host.data(), bytes); });
    const double down = bandwidth(device, bytes, [&] { device.read(a.span(), host.data(), bytes); });
    const double inside = bandwidth(device, 2 * bytes, [&] { device.copy(b.span(), a.span(), bytes); });
    printf("  copies       to the device %.1f GB/s, back %.1f GB/s, inside %.1f GB/s (read and written)\n", up / giga, down / giga,
           inside / giga);
}

void print_capabilities(const Device &device) {
    const qlora_context_info info = device.context().query();
    if (info.driver[0] != 0) printf("  driver       %s\n", info.driver);
    if (info.memory_bytes > 0)
        printf("  memory       %s, free %s\n", readable_bytes(info.memory_bytes).c_str(),
               info.memory_free_bytes > 0 ? readable_bytes(info.memory_free_bytes).c_str() : "not known");
    if (info.threads > 0) printf("  threads      %u\n", info.threads);
    std::string types, formats;
    uint32_t count = 0;
    for (int32_t format : all_formats()) {
        if (is_float(format)) {
            if (device.context().operation_supports(QLORA_OP_ATTENTION, 0, format))
                types += (types.empty() ? "" : ", ") + format_name(format);
        } else if (device.context().operation_supports(QLORA_OP_LINEAR_GRAD, format, QLORA_FORMAT_F32)) {
            ++count;
        } else {
            formats += (formats.empty() ? "" : ", ") + format_name(format);
        }
    }
    printf("  activations  %s\n  trains on    %u quantized formats%s\n", types.c_str(), count,
           formats.empty() ? "" : (", not on " + formats).c_str());
    printf("  products     %s\n",
           device.context().operation_supports(QLORA_OP_INT8_MATMUL, QLORA_FORMAT_INT8, QLORA_FORMAT_F32)
               ? "in floats, and in integers (--quant llm-int8)"
               : "in floats");
}

// Whether the device is well.
bool examine(const std::string &name, const BaseModel &base, const StepResult &expected) {
    printf("%s\n", name.c_str());
    try {
        Device device(name, 0);
        printf("  name         %s\n", device.name().c_str());
        print_capabilities(device);
        print_bandwidths(device);
        const StepResult step = one_step(device, base);
        const double loss = std::abs(step.loss - expected.loss) / expected.loss,
                     gradients = relative_error(step.gradients, expected.gradients);
        const double most_loss = 1e-3, most_gradients = 1e-2;
        const bool well = loss <= most_loss && gradients <= most_gradients; // false for NaN
        printf("  one step     %.1f ms, loss %.5f; off the exact reference by %.1e, gradients by %.1e\n", step.milliseconds, step.loss,
               loss, gradients);
        printf("  verdict      %s\n", well ? "well" : "WRONG RESULTS: do not train on it; update the driver, or choose another --device");
        return well;
    } catch (const std::exception &error) { // of the library, of the program, of memory: the next device may work
        printf("  verdict      DOES NOT WORK: %s\n", error.what());
        return false;
    }
}

struct TemporaryFile {
    std::string path;
    explicit TemporaryFile(const std::string &name) : path((std::filesystem::temp_directory_path() / name).string()) {}
    ~TemporaryFile() {
        std::error_code ignored;
        std::filesystem::remove(path, ignored);
    }
};

} // namespace

int command_doctor(int argc, char **argv) {
    std::string only;
    CommandApp app("doctor", about, examples);
    app.add_option("--device", only, "look at this one only: cpu, cuda[:N], vulkan[:N] or ref");
    if (!app.read(argc, argv)) return exit_success;

    std::vector<std::string> names;
    if (!only.empty()) names.push_back(only);
    else {
        names.push_back("cpu");
        for (const auto &[name, backend] : {std::pair<const char *, int32_t>{"cuda", QLORA_BACKEND_CUDA}, {"vulkan", QLORA_BACKEND_VULKAN}}) {
            uint32_t count = 0;
            try {
                count = qlora::device_count(backend);
            } catch (const qlora::Error &error) { printf("%s\n  %s\n", name, error.what()); }
            if (count == 0) printf("%s: no device; this program was built without it, or there is no driver\n", name);
            for (uint32_t i = 0; i < count; ++i) names.push_back(std::string(name) + ":" + std::to_string(i));
        }
    }
    const auto now = std::chrono::system_clock::now().time_since_epoch().count();
    const TemporaryFile file("qlora-doctor-" + std::to_string(now) + ".gguf");
    write_tiny_model(file.path);
    const BaseModel base(file.path);
    Device reference("ref", 0);
    const StepResult expected = one_step(reference, base);
    bool well = true;
    for (const std::string &name : names) {
        well = examine(name, base, expected) && well;
        fflush(stdout);
    }
    if (only.empty()) printf("--device auto is %s\n", Device("auto", 0).name().c_str());
    printf("%s\n", well ? "all is well" : "not all is well: see the verdicts");
    return well ? exit_success : exit_error;
}

} // namespace finetune
