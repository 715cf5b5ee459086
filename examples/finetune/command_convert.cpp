// qlora-finetune convert
#include "adapter_file.h"
#include "commands.h"

#include <cstdio>

namespace finetune {
namespace {

const char *const about = "Converts a LoRA adapter: GGUF, for llama.cpp, to the directory that PEFT loads, or back. The base "
                          "tells the names of layers and the order of the rows of q and k.\n";

const char *const examples =
    "  qlora-finetune convert --model base.gguf --adapter adapter.gguf --out adapter-peft --base-name meta-llama/Llama-2-7b-hf\n"
    "  qlora-finetune convert --model base.gguf --adapter adapter-peft --out adapter.gguf\n";

} // namespace

int command_convert(int argc, char **argv) {
    std::string model, adapter_path, out, base_name, to;
    double alpha = -1;
    CommandApp app("convert", about, examples);
    app.add_option("--model", model, "base model: a GGUF file, or a Hugging Face directory")->required();
    app.add_option("--adapter", adapter_path, "adapter: a GGUF file, PEFT's directory or its safetensors file")->required();
    app.add_option("--out", out, "what to write: a GGUF file, or PEFT's directory")->required();
    app.add_option("--to", to, "gguf or peft; default gguf for a name that ends so, else the other kind");
    app.add_option("--base-name", base_name, "base_model_name_or_path in adapter_config.json; default the path of the base");
    app.add_option("--alpha", alpha, "LoRA alpha of a safetensors adapter without adapter_config.json");
    if (!app.read(argc, argv)) return exit_success;
    if (!to.empty() && to != "gguf" && to != "peft") fail("--to ", shown(to), ": expected gguf or peft");

    const BaseModel base(model);
    AdapterFile adapter = read_adapter_file(adapter_path, alpha);
    const bool to_gguf = to.empty() ? adapter.kind == AdapterKind::peft || names_gguf(out) : to == "gguf";
    if (to_gguf && is_directory(out)) fail("--out ", shown(out), " is a directory; a GGUF adapter is a file");
    if (!to_gguf && exists(out) && !is_directory(out))
        fail("--out ", shown(out), " is a file; PEFT's adapter is a directory");
    const size_t pairs = adapter.pairs.size();
    convert_adapter(adapter, to_gguf ? AdapterKind::gguf : AdapterKind::peft, base);
    write_adapter_file(out, adapter, base_name.empty() ? model : base_name);
    printf("%s: %s adapter of %zu linear layers, rank %llu, scale %g\n", out.c_str(), to_gguf ? "GGUF" : "PEFT", pairs,
           static_cast<unsigned long long>(adapter.most_rank()), adapter.pairs[0].scale);
    return exit_success;
}

} // namespace finetune
