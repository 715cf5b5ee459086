// qlora-finetune combine
#include "adapter_options.h"
#include "commands.h"

#include <cstdio>

namespace finetune {
namespace {

const char *const about = "Makes one adapter of several, each with a weight. By default exactly: ranks add up. --rank keeps the "
                          "nearest of that rank and says what is lost.\n";

const char *const examples =
    "  qlora-finetune combine --adapter style.gguf=0.7 --adapter facts.gguf --out both.gguf\n"
    "  qlora-finetune combine --adapter a.gguf --adapter b.gguf --rank 16 --out both.gguf\n"
    "  qlora-finetune combine --model base.gguf --adapter a.gguf --adapter peft-directory --out both.gguf\n";

} // namespace

int command_combine(int argc, char **argv) {
    AdapterOptions adapters;
    std::string model, out, to, type = "exact", base_name;
    uint64_t rank = 0;
    CommandApp app("combine", about, examples);
    add_adapter_options(app, adapters, true);
    app.add_option("--out", out, "what to write: a GGUF file, or PEFT's directory")->required();
    app.add_option("--rank", rank, "compress the sum to this rank; 0: exact")->capture_default_str();
    app.add_option("--type", type, "exact, or linear: as PEFT's add_weighted_adapter, which mixes A and B apart")
        ->capture_default_str();
    app.add_option("--to", to, "gguf or peft; default gguf for a name that ends so, else the kind of the first adapter");
    app.add_option("--model", model, "base model, needed where adapters of both kinds meet");
    app.add_option("--base-name", base_name, "base_model_name_or_path in adapter_config.json; default the path of the base");
    if (!app.read(argc, argv)) return exit_success;
    if (!to.empty() && to != "gguf" && to != "peft") fail("--to ", shown(to), ": expected gguf or peft");
    if (type != "exact" && type != "linear") fail("--type ", shown(type), ": expected exact or linear");
    if (rank > 1024) fail("--rank ", rank, ": expected 0 to 1024");

    std::vector<double> weights;
    std::vector<AdapterFile> files = adapters.read(&weights);
    const AdapterKind kind = to.empty() && !names_gguf(out) ? files[0].kind : to != "peft" ? AdapterKind::gguf : AdapterKind::peft;
    bool mixed = false;
    for (const AdapterFile &file : files) mixed = mixed || file.kind != kind;
    if (mixed && model.empty())
        fail("adapters of GGUF and of PEFT differ in names and in the order of rows: give the base, --model");
    if (!model.empty()) {
        const BaseModel base(model);
        for (AdapterFile &file : files) convert_adapter(file, kind, base);
    }
    AdapterFile sum = type == "linear" ? combine_linear(files, weights) : concatenate(files, weights);
    printf("%s: %zu linear layers, rank %llu", adapters.names().c_str(), sum.pairs.size(),
           static_cast<unsigned long long>(sum.most_rank()));
    if (rank > 0) {
        const double error = compress(sum, rank);
        printf(" compressed to %llu, relative error %.3g", static_cast<unsigned long long>(rank), error);
    }
    write_adapter_file(out, sum, base_name.empty() ? model : base_name);
    printf("\nwritten to %s\n", out.c_str());
    return exit_success;
}

} // namespace finetune
