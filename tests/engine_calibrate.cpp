// Calibrated quantization of the bundled model, and GPTQ checkpoints from files to files: nothing lost on the way, and
// input that must end in an Error.
#include "engine_support.h"

#include "calibrate.h"
#include "format_choice.h"
#include "packed_gptq.h"
#include "perplexity_table.h"
#include "program.h"
#include "rng.h"

using namespace finetune;

namespace {

std::string bundled_rows() { return std::string(QLORA_SOURCE_DIR) + "/examples/data/dates_train.jsonl"; }

int quantize_with(std::vector<std::string> words, std::string *error = nullptr) {
    words.insert(words.begin(), "qlora-quantize");
    std::vector<const char *> argv;
    for (const std::string &word : words) argv.push_back(word.c_str());
    char *text = nullptr;
    size_t size = 0;
    FILE *err = open_memstream(&text, &size), *out = fopen("/dev/null", "w");
    const int code = quantize::run_program(int(argv.size()), argv.data(), out, err);
    fclose(out);
    fclose(err);
    if (error != nullptr) *error = text;
    else CHECK_MESSAGE(size == 0, text);
    free(text);
    return code;
}

// What work() prints.
template <class Work> std::string printed(Work &&work) {
    const Scratch file;
    fflush(stdout);
    const int before = dup(STDOUT_FILENO);
    FILE *const to = fopen(file.path.c_str(), "w");
    dup2(fileno(to), STDOUT_FILENO);
    work();
    fflush(stdout);
    dup2(before, STDOUT_FILENO);
    close(before);
    fclose(to);
    return std::string(MappedFile(file.path).text());
}

const char *const layer_names[] = {"model.layers.0.mlp.up_proj", "model.layers.0.mlp.down_proj"};
const uint64_t rows[] = {32, 64}, cols[] = {160, 96}; // 160: a short last group of 64

void save_model(const std::string &path) {
    std::vector<float> values[2];
    SafeTensorsWriter writer;
    Random random(7, 1);
    for (int i = 0; i < 2; ++i) {
        values[i].resize(rows[i] * cols[i]);
        for (float &value : values[i]) value = 0.2f * (random.next_uniform() + random.next_uniform() - 0.9f);
        writer.add_f32(std::string(layer_names[i]) + ".weight", {rows[i], cols[i]}, values[i].data());
    }
    writer.save(path);
}

std::string bytes_of(const SafeTensors &file, const std::string &name) {
    const SafeTensor &tensor = file.get(name);
    return {reinterpret_cast<const char *>(tensor.data), static_cast<size_t>(tensor.bytes)};
}

// A checkpoint's tensors, to be spoiled before they are written.
struct Checkpoint {
    struct Part {
        std::string name, dtype;
        std::vector<uint64_t> shape;
        std::string bytes;
    };
    std::vector<Part> parts;
    std::string version = "gptq";

    explicit Checkpoint(const std::string &path) {
        const SafeTensors file(path);
        for (const SafeTensor &tensor : file.tensors())
            if (tensor.name.rfind(layer_names[0], 0) == 0)
                parts.push_back({tensor.name, tensor.dtype, tensor.shape, bytes_of(file, tensor.name)});
    }
    Part &part(const char *ending) {
        for (Part &part : parts)
            if (part.name == std::string(layer_names[0]) + ending) return part;
        FAIL("no part");
        return parts[0];
    }
    void remove(const char *ending) { parts.erase(parts.begin() + (&part(ending) - parts.data())); }
    std::string error() const {
        const Scratch file("", ".safetensors");
        SafeTensorsWriter writer;
        if (!version.empty()) writer.add_metadata("checkpoint_format", version);
        for (const Part &part : parts) writer.add(part.name, part.dtype, part.shape, part.bytes.data());
        writer.save(file.path);
        return error_of([&] { read_packed(SafeTensors(file.path)); });
    }
};

} // namespace

TEST_CASE("calibrate: every layer of the bundled model loses less than by rounding to nearest") {
    const Gguf file(bundled_model());
    const std::vector<Batch> windows = calibration_windows(bundled_rows(), 1024, file);
    REQUIRE(windows.size() == 2);
    Device device("cpu", 0);
    for (int32_t format : {QLORA_FORMAT_GPTQ4, QLORA_FORMAT_GPTQ3, QLORA_FORMAT_SPQR4}) {
        size_t count = 0;
        const uint32_t block = is_spqr(format) ? 16 : 64;
        const HostWeights ready = calibrate(device, file, windows, {format, block}, [&](const CalibrationReport &report) {
            CAPTURE(calibration_line(report));
            CHECK(report.outcome.method == QLORA_GPTQ_DONE);
            CHECK(report.loss > 0);
            CHECK(report.loss < report.nearest_loss);
            ++count;
        });
        CHECK(count == ready.size());
        CHECK(count == read_model_shape(file).adapter_shape(1).pairs());
        const Model model(device, file, 0, 0, &ready);
        CHECK(model.linear_format() == format_name(format));
    }
}

TEST_CASE("spqr files: calibrated weights are there again, outliers and all") {
    const Gguf base(bundled_model());
    const std::vector<Batch> windows = calibration_windows(bundled_rows(), 256, base);
    Device device("cpu", 0);
    CalibrationPlan plan = {QLORA_FORMAT_SPQR3, 16};
    const HostWeights ready = calibrate(device, base, windows, plan, nullptr);
    const Scratch made("", ".safetensors"), back("", ".safetensors");
    std::string error;
    REQUIRE_MESSAGE(quantize_with({"--model", bundled_model(), "--type", "spqr3", "--calibrate", bundled_rows(),
                                   "--calibrate-tokens", "256", "--device", "cpu", "--out", made.path},
                                  &error) == 0,
                    error);
    uint64_t outliers = 0, found = 0;
    const SafeTensors file(made.path);
    for (const PackedTensor &tensor : read_packed(file)) {
        const auto host = ready.find(tensor.name);
        if (host == ready.end()) continue;
        ++found;
        CHECK(tensor.weight.format == QLORA_FORMAT_SPQR3);
        CHECK(tensor.weight.outliers == host->second.outliers);
        outliers += tensor.weight.outliers;
        const HostWeight again = download_weight(upload_weight(device.context(), tensor.weight));
        for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane) CHECK(again.planes[plane] == host->second.planes[plane]);
    }
    CHECK(found == ready.size());
    CHECK(outliers > 0);
    CHECK(quantize_with({"--model", made.path, "--type", "f16", "--out", back.path}, &error) == 0);

    // The same file with one outlier's column moved out of the matrix.
    const Scratch damaged("", ".safetensors");
    SafeTensorsWriter writer;
    std::vector<uint8_t> column;
    for (const SafeTensor &tensor : file.tensors()) {
        const uint8_t *data = tensor.data;
        const std::string name(tensor.name), ending = ".outlier_column";
        if (column.empty() && name.size() > ending.size() &&
            name.compare(name.size() - ending.size(), ending.size(), ending) == 0) {
            column.assign(data, data + tensor.bytes);
            column[3] = 0x7f;
            data = column.data();
        }
        writer.add(name, tensor.dtype, tensor.shape, data);
    }
    writer.save(damaged.path);
    CHECK(contains(error_of([&] { read_packed(SafeTensors(damaged.path)); }), "outlier_column element 0"));
}

TEST_CASE("calibrate: what cannot be calibrated says so") {
    const Gguf file(bundled_model());
    Device device("cpu", 0);
    const Scratch empty("", ".txt");
    CHECK(contains(error_of([&] { calibration_windows(empty.path, 1024, file); }), "tokens for calibration"));
    CHECK(contains(error_of([&] { calibration_windows("/nowhere.txt", 1024, file); }), "/nowhere.txt"));
    const std::vector<Batch> windows = calibration_windows(bundled_rows(), 64, file);
    CHECK(contains(error_of([&] {
                       calibrate(device, file, windows, {QLORA_FORMAT_NF4, 0}, nullptr);
                   }),
                   "nf4 has no calibration"));
    CHECK(contains(error_of([&] { calibrate(device, file, {}, {QLORA_FORMAT_GPTQ4, 0}, nullptr); }), "one window"));
    CHECK(contains(error_of([] { named_choice("gptq4:0", "--quant"); }), "0 values"));
    CHECK(contains(error_of([] { named_choice("gptq4:many", "--quant"); }), "after the colon"));
    CHECK(contains(error_of([] { named_choice("nf4-rtn", "--quant"); }), "no such format"));
    CHECK(named_choice("gptq4-rtn:32", "--quant").name() == "gptq4-rtn:32");
    std::string error;
    CHECK(quantize_with({"--model", bundled_model(), "--type", "nf4", "--calibrate", bundled_rows(), "--plan"},
                        &error) == 2);
    CHECK(contains(error, "--calibrate: only gptq2"));
}

TEST_CASE("gptq files: there and back without loss, both versions of zeros") {
    const Scratch base("", ".safetensors"), made("", ".safetensors"), again("", ".safetensors"),
        back("", ".safetensors"), other("", ".safetensors");
    save_model(base.path);
    for (int32_t format : {QLORA_FORMAT_GPTQ2, QLORA_FORMAT_GPTQ3, QLORA_FORMAT_GPTQ4, QLORA_FORMAT_GPTQ8}) {
        const std::string name = format_name(format);
        CAPTURE(name);
        const std::vector<std::string> ref = {"--device", "ref", "--block", "64"};
        const auto convert = [&](const std::string &from, const std::string &to, std::vector<std::string> more) {
            more.insert(more.end(), ref.begin(), ref.end());
            more.insert(more.end(), {"--model", from, "--out", to});
            REQUIRE(quantize_with(more) == 0);
        };
        convert(base.path, made.path, {"--type", name});
        convert(base.path, other.path, {"--type", name, "--gptq-version", "2"});
        {
            const SafeTensors first(made.path), second(other.path);
            CHECK(*first.metadata("checkpoint_format") == "gptq");
            CHECK(*second.metadata("checkpoint_format") == "gptq_v2");
            for (const char *layer : layer_names) {
                CHECK(bytes_of(first, std::string(layer) + ".qweight") ==
                      bytes_of(second, std::string(layer) + ".qweight"));
                CHECK(bytes_of(first, std::string(layer) + ".qzeros") !=
                      bytes_of(second, std::string(layer) + ".qzeros"));
            }
        }
        // Kept: every byte of every tensor.
        convert(made.path, again.path, {"--type", "keep"});
        {
            const SafeTensors before(made.path), after(again.path);
            CHECK(after.tensors().size() == before.tensors().size());
            for (const SafeTensor &tensor : before.tensors())
                CHECK(bytes_of(after, tensor.name) == bytes_of(before, tensor.name));
            for (const char *key : {"bits", "group_size", "checkpoint_format"})
                CHECK(*after.metadata(key) == *before.metadata(key));
        }
        // Both versions stand for the same values, and these are what the library makes of the base.
        convert(made.path, back.path, {"--type", "f32"});
        const std::string values = back.read();
        convert(other.path, back.path, {"--type", "f32"});
        CHECK(back.read() == values);
        qlora::Context context(QLORA_BACKEND_REF);
        const SafeTensors source(base.path), result(back.path);
        for (const PackedTensor &packed : read_packed(source)) {
            const qlora::Buffer from(context, source.floats(*packed.parts[0]));
            qlora::Weight weight(context, format, packed.weight.rows, packed.weight.cols, 64);
            auto args = qlora::make<qlora_quantize_args>();
            args.weight = weight.get();
            args.src = qlora::tensor(QLORA_FORMAT_F32, packed.weight.rows, packed.weight.cols, from.span());
            const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
            args.scratch = scratch.span();
            context.weight_quantize(args);
            const SafeTensors file(made.path);
            for (const PackedTensor &stored : read_packed(file)) {
                if (stored.name != packed.name) continue;
                const qlora::Weight read = upload_weight(context, stored.weight);
                CHECK(read.get()->block == 64);
                for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane)
                    CHECK(read.read_plane(plane) == weight.read_plane(plane));
            }
        }
    }
}

TEST_CASE("gptq files: parts that are missing or contradict each other") {
    const Scratch base("", ".safetensors"), made("", ".safetensors");
    save_model(base.path);
    REQUIRE(quantize_with({"--model", base.path, "--out", made.path, "--type", "gptq4", "--block", "64"}) == 0);
    const Checkpoint whole(made.path);
    CHECK(whole.error() == "");
    for (const char *ending : {".qzeros", ".scales"}) {
        Checkpoint spoiled = whole;
        spoiled.remove(ending);
        CHECK(contains(spoiled.error(), "is missing"));
    }
    Checkpoint spoiled = whole;
    spoiled.remove(".qweight");
    CHECK(contains(spoiled.error(), "qweight is missing"));
    spoiled = whole;
    const int32_t beyond = 3;
    memcpy(&spoiled.part(".g_idx").bytes[20], &beyond, 4);
    CHECK(contains(spoiled.error(), "element 5 is 3, but there are 3 groups"));
    spoiled = whole;
    const uint16_t infinity = 0x7c00;
    memcpy(&spoiled.part(".scales").bytes[6], &infinity, 2);
    CHECK(contains(spoiled.error(), "element 3 is not finite"));
    spoiled = whole;
    spoiled.part(".scales").dtype = "BF16";
    CHECK(contains(spoiled.error(), "which F16 does not hold"));
    spoiled = whole;
    std::swap(spoiled.part(".qzeros").shape[0], spoiled.part(".qzeros").shape[1]);
    CHECK(contains(spoiled.error(), "no GPTQ weight"));
    spoiled = whole;
    spoiled.version = "gptq_v3";
    CHECK(contains(spoiled.error(), "expected gptq or gptq_v2"));
    spoiled = whole;
    spoiled.remove(".g_idx"); // 160 inputs in 3 groups may be groups of 54 to 79
    CHECK(contains(spoiled.error(), "need a g_idx or a group_size"));
    spoiled = whole;
    spoiled.parts.push_back({std::string(layer_names[0]) + ".weight", "F16", {1}, "ab"});
    CHECK(contains(spoiled.error(), "is there beside"));
}

TEST_CASE("calibrate: rows of a table of perplexities, calibrated or not, take turns on a device") {
    Random random(5, 0);
    std::vector<int32_t> ids;
    for (int i = 0; i < 128; ++i) ids.push_back(int32_t(random.next_below(2048)));
    const Scratch file("", ".safetensors");
    SafeTensorsWriter writer;
    writer.add("ids", "I32", {ids.size()}, ids.data());
    writer.save(file.path);
    Options options;
    options.model = bundled_model();
    options.device = "cpu";
    options.threads = 1;
    options.window = 32;
    options.perplexity_ids = file.path + ":ids";
    options.perplexity_table = "gptq4-rtn,gptq4,gptq3";
    options.calibrate = bundled_rows();
    options.calibrate_tokens = 64;
    const std::string table = printed([&] { print_perplexity_table(options); });
    CAPTURE(table);
    for (const char *row : {"\ngptq4-rtn ", "\ngptq4 ", "\ngptq3 "}) {
        const size_t at = table.find(row);
        REQUIRE(at != std::string::npos);
        CHECK(contains(table.substr(at + 1, table.find('\n', at + 1) - at - 1), "% ")); // perplexity to the first one's
    }
}
