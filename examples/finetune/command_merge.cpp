// qlora-finetune merge
#include "commands.h"
#include "evaluate.h"
#include "loaded.h"
#include "merge.h"
#include "options_memory.h"
#include "report.h"

#include <cmath>
#include <cstdio>

namespace finetune {
namespace {

const char *const about =
    "Writes a model file with adapters merged into its weights: from a GGUF file another one, from a Hugging Face directory "
    "another directory. Everything else, keys and tokenizer, is kept.\n";

const char *const examples =
    "  qlora-finetune merge --model base-f16.gguf --adapter adapter.gguf --type q8_0 --out merged-q8_0.gguf\n"
    "  qlora-finetune merge --model base-q4_k_m.gguf --adapter adapter.gguf --out merged.gguf --perplexity-text book.txt\n"
    "  qlora-finetune merge --model hugging-face-directory --adapter adapter-peft --type bf16 --out merged-directory\n";

struct Perplexities {
    std::string text, ids;
    uint32_t window = 512;
    uint64_t tokens = 0;
};

double perplexity(Device &device, const Budget &budget, const CommonOptions &options, const MemoryOptions &memory, const LoadedFiles &files,
                  const Perplexities &given) {
    const std::vector<int32_t> ids = perplexity_tokens(files, given.text, given.ids, given.window, given.tokens);
    const std::vector<TunedAdapter> adapters = {files.tuned(files.all())};
    Task task = untrained_task(options, adapters);
    task.evaluation_bounds = [&](uint64_t tokens) { return bounds_of(pack_windows(ids, given.window, tokens)); };
    const MemoryPlan plan = make_plan(device, files.base, task, memory, budget);
    const double loss = [&] {
        const auto machine = carry_out(device, files.base, task, memory, plan);
        printf("%s", brief_plan(plan).c_str());
        fflush(stdout);
        return mean_loss(*machine->network, pack_windows(ids, given.window, plan.choice.eval_tokens));
    }();
    device.release();
    return std::exp(loss);
}

} // namespace

int command_merge(int argc, char **argv) {
    CommonOptions o;
    AdapterOptions adapters;
    MemoryOptions memory;
    Perplexities measured;
    MergeOptions merging;
    std::string out, type = "same";
    CommandApp app("merge", about, examples);
    app.add_option("--model", o.model, "base model: a GGUF file, or a Hugging Face directory")->required()->group("Files");
    add_adapter_options(app, adapters, true);
    app.add_option("--out", out, "what to write: a GGUF file, or a directory")->required()->group("Files");
    app.add_option("--type", type,
                   "what matrices become: same (each as in the base, quantized again), f16, bf16, or any of ggml's types as "
                   "q8_0")
        ->capture_default_str()
        ->group("Files");
    app.add_option("--shard-bytes", merging.shard_bytes, "most bytes of a safetensors file")->capture_default_str()->group("Files");
    app.add_option("--perplexity-text", measured.text, "a text file: print the perplexity of base and adapters, and merged")
        ->group("Evaluation");
    app.add_option("--perplexity-ids", measured.ids, "the same over token ids FILE.safetensors:NAME")->group("Evaluation");
    app.add_option("--window", measured.window, "tokens of a perplexity window")->capture_default_str()->group("Evaluation");
    app.add_option("--perplexity-tokens", measured.tokens, "use only the first N of the text; 0 is all")
        ->capture_default_str()
        ->group("Evaluation");
    add_device_options(app, o);
    add_memory_options(app, memory, MemoryUse::evaluation);
    if (!app.read(argc, argv)) return exit_success;
    check_range("--window", measured.window, 2, 1 << 20);
    check_range("--eval-tokens", double(memory.eval_tokens.value_or(1)), 1, 1 << 24);
    check_range("--shard-bytes", double(merging.shard_bytes), 1, 1e15);
    if (!measured.text.empty() && !measured.ids.empty()) fail("--perplexity-text and --perplexity-ids: give one of them");
    if (type != "same") merging.format = named_format(type, "--type");
    if (merging.format != 0 && ggml_type(merging.format) == nullptr)
        fail("--type ", shown(type), ": GGUF has no such type; expected same, f16, bf16, q8_0 or another of ggml's");
    const bool directory = is_directory(o.model);
    if (!directory) check_writable(out, {o.model});

    const LoadedFiles files(o, adapters, !measured.text.empty());
    std::vector<AdapterFile> converted = files.adapters;
    for (AdapterFile &one : converted) convert_adapter(one, directory ? AdapterKind::peft : AdapterKind::gguf, files.base);
    const AdapterFile sum = concatenate(converted, files.weights);

    Device device(o.device, o.threads);
    const Budget budget = find_budget(device, memory);
    printf("merging %s into %s on %s\n", adapters.names().c_str(), o.model.c_str(), device.name().c_str());
    fflush(stdout);
    const bool measures = !measured.text.empty() || !measured.ids.empty();
    if (measures) printf("perplexity  base + adapter  %.4f\n", perplexity(device, budget, o, memory, files, measured));
    fflush(stdout);
    const Merged done = (directory ? merge_directory : merge_gguf)(device, o.model, sum, merging, out);
    CommonOptions merged_options = o;
    merged_options.model = out;
    if (measures)
        printf("perplexity  merged          %.4f\n",
               perplexity(device, budget, merged_options, memory, LoadedFiles(merged_options, {}, !measured.text.empty()), measured));
    printf("%s: %s; %llu weights with updates, %llu converted, %llu tensors as they were\n", out.c_str(),
           readable_bytes(done.bytes).c_str(), static_cast<unsigned long long>(done.updated),
           static_cast<unsigned long long>(done.converted), static_cast<unsigned long long>(done.copied));
    return exit_success;
}

} // namespace finetune
