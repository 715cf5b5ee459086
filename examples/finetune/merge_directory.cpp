// Merging into a Hugging Face directory.
#include "format_choice.h"
#include "json.h"
#include "merge.h"
#include "packed.h"
#include "run_folder.h"

#include <cstdio>
#include <filesystem>
#include <map>
#include <unistd.h>

namespace finetune {
namespace {

namespace fs = std::filesystem;

struct Step {
    std::string name, dtype;
    std::vector<uint64_t> shape;
    const PackedTensor *tensor;
    const LoraPair *update;
    int32_t format; // 0: byte for byte
    uint64_t bytes;
};

const char *dtype_of(int32_t format) {
    return format == QLORA_FORMAT_F16 ? "F16" : format == QLORA_FORMAT_BF16 ? "BF16" : "F32";
}

// PEFT names modules as the model in memory does; files of some models leave out the first name.
const LoraPair *find_update(const AdapterFile &adapters, const std::string &tensor) {
    const std::string ending = ".weight";
    if (tensor.size() <= ending.size() || tensor.compare(tensor.size() - ending.size(), ending.size(), ending) != 0)
        return nullptr;
    const std::string module = name_in_text_part(tensor.substr(0, tensor.size() - ending.size()));
    for (const LoraPair &pair : adapters.pairs) {
        const std::string own = name_in_text_part(pair.module), with_first = "." + module;
        if (own == module) return &pair;
        if (own.size() > with_first.size() && own.find('.') == own.size() - with_first.size() &&
            own.compare(own.size() - with_first.size(), with_first.size(), with_first) == 0)
            return &pair;
    }
    return nullptr;
}

std::vector<Step> plan(const SafeTensors &file, const std::vector<PackedTensor> &tensors, const AdapterFile &adapters,
                       const MergeOptions &options, Merged *done) {
    std::vector<Step> steps;
    for (const PackedTensor &tensor : tensors) {
        Step step = {tensor.name, "", tensor.shape, &tensor, find_update(adapters, tensor.name), 0, 0};
        const int32_t format = tensor.weight.format;
        const bool matrix = tensor.shape.size() == 2 && format != 0;
        if (step.update != nullptr) {
            if (!matrix || tensor.weight.cols != step.update->inputs || tensor.weight.rows != step.update->outputs)
                file.reject("tensor ", shown(tensor.name), " is no weight that the adapter fits");
            step.format = options.format != 0 ? options.format : format;
            ++done->updated;
        } else if (options.format != 0 && is_float(format) ? options.format != format : format != 0 && !is_float(format)) {
            step.format = options.format;
            ++done->converted;
        } else {
            ++done->copied;
        }
        if (format != 0 && !is_float(format) && options.format == 0)
            file.reject("tensor ", shown(tensor.name), " is ", format_name(format),
                        "; a merged directory holds floats: give --type f16 or bf16");
        step.dtype = step.format == 0 ? tensor.parts[0]->dtype : dtype_of(step.format);
        step.bytes = step.format == 0 ? tensor.parts[0]->bytes : tensor.weight.rows * tensor.weight.cols * (step.format == QLORA_FORMAT_F32 ? 4 : 2);
        steps.push_back(std::move(step));
    }
    if (done->updated != adapters.pairs.size())
        file.reject("the adapter has ", adapters.pairs.size(), " layers, the files ", done->updated, " of them");
    return steps;
}

// Everything beside the weights; config.json says what the weights are now.
void copy_rest(const fs::path &from, const fs::path &to, const MergeOptions &options) {
    for (const fs::directory_entry &entry : fs::directory_iterator(from)) {
        const std::string name = entry.path().filename().string(), ending = entry.path().extension().string();
        const bool weights = ending == ".safetensors" || ending == ".bin" || ending == ".pth" || ending == ".pt" ||
                             ending == ".gguf" || ending == ".h5" || ending == ".msgpack" ||
                             name.find(".index.json") != std::string::npos;
        if (!entry.is_regular_file() || weights || name == "config.json") continue;
        write_text((to / name).string(), std::string(MappedFile(entry.path().string()).text()));
    }
    const std::string path = (from / "config.json").string();
    const MappedFile file(path);
    Json config = parse_json(file.text(), path, 16);
    config.erase("quantization_config");
    if (options.format != 0) {
        const char *dtype = options.format == QLORA_FORMAT_F16 ? "float16" : "bfloat16";
        if (config.contains("torch_dtype") || !config.contains("dtype")) config["torch_dtype"] = dtype;
        if (config.contains("dtype")) config["dtype"] = dtype;
    }
    write_text((to / "config.json").string(), config.dump(2) + "\n");
}

} // namespace

Merged merge_directory(Device &device, const std::string &base, const AdapterFile &adapters, const MergeOptions &options,
                       const std::string &given_out) {
    if (options.format != 0 && options.format != QLORA_FORMAT_F16 && options.format != QLORA_FORMAT_BF16)
        fail("--type: a Hugging Face directory holds floats; expected same, f16 or bf16");
    std::string out = given_out;
    while (out.size() > 1 && out.back() == '/') out.pop_back();
    const fs::path partial = out + ".partial-" + std::to_string(getpid());
    for (const std::string &path : {out, partial.string()})
        if (exists(path)) fail("--out: ", shown(path), " is there already; choose a new directory");
    const SafeTensors file(base);
    const std::vector<PackedTensor> tensors = read_packed(file);
    Merged done;
    const std::vector<Step> steps = plan(file, tensors, adapters, options, &done);

    std::vector<size_t> ends; // of each shard
    uint64_t bytes = 0;
    for (size_t i = 0; i < steps.size(); ++i) {
        if (bytes > 0 && bytes + steps[i].bytes > options.shard_bytes) {
            ends.push_back(i);
            bytes = 0;
        }
        bytes += steps[i].bytes;
        done.bytes += steps[i].bytes;
    }
    ends.push_back(steps.size());

    try {
        fs::create_directories(partial);
        Json map = Json::object();
        size_t first = 0;
        for (size_t shard = 0; shard < ends.size(); first = ends[shard++]) {
            char name[64] = "model.safetensors";
            if (ends.size() > 1) snprintf(name, sizeof(name), "model-%05zu-of-%05zu.safetensors", shard + 1, ends.size());
            SafeTensorsWriter writer;
            writer.add_metadata("format", "pt");
            for (size_t i = first; i < ends[shard]; ++i) {
                writer.add(steps[i].name, steps[i].dtype, steps[i].shape, nullptr);
                map[steps[i].name] = name;
            }
            std::vector<uint8_t> codes;
            writer.save((partial / name).string(), [&](size_t i) -> const void * {
                const Step &step = steps[first + i];
                if (step.format == 0) return step.tensor->parts[0]->data;
                codes = merged_codes(device, step.tensor->weight, step.update, step.format, step.name);
                return codes.data();
            });
        }
        if (ends.size() > 1)
            write_text((partial / "model.safetensors.index.json").string(),
                       Json{{"metadata", {{"total_size", done.bytes}}}, {"weight_map", map}}.dump(2) + "\n");
        copy_rest(file.folder(), partial, options);
        fs::rename(partial, out); // every file in it has been flushed with its name
        const fs::path parent = fs::path(out).parent_path();
        sync_folder(parent.empty() ? "." : parent.string());
    } catch (const fs::filesystem_error &error) {
        std::error_code ignored;
        fs::remove_all(partial, ignored);
        fail(out, ": cannot be written: ", error.code().message());
    } catch (...) {
        std::error_code ignored;
        fs::remove_all(partial, ignored);
        throw;
    }
    return done;
}

} // namespace finetune
