#include "command.h"

#include "format_choice.h"

#include <CLI/CLI.hpp>

namespace quantize {
namespace {

const char *const description =
    "Converts a model, a GGUF or safetensors file or a Hugging Face directory, into a file with its linear weights in a\n"
    "chosen storage format. Embeddings, norms and the head stay as they are unless --type-for names them.\n";

const char *const examples =
    "\nExamples:\n"
    "  qlora-quantize --model base-f16.gguf --type q4_k --out base-q4_k.gguf\n"
    "  qlora-quantize --model base-f16.gguf --type q4_k --type-for 'output.weight=q6_k' --out base-q4_k.gguf\n"
    "  qlora-quantize --model model.safetensors --type nf4-dq --out model-nf4.safetensors\n"
    "  qlora-quantize --model Llama-3.2-1B/ --type gptq4 --calibrate text.txt --out Llama-3.2-1B-gptq/model.safetensors\n"
    "  qlora-quantize --model model-nf4.safetensors --type f16 --out model.safetensors\n"
    "  qlora-quantize --model weights-nf4.safetensors --type f16 --keys base-f16.gguf --out base-nf4-f16.gguf\n"
    "  qlora-quantize --model base-f16.gguf --plan\n";

const char *const powers[] = {"floor", "ceil", "even", "rceil"};

int32_t format_or_keep(const std::string &name, const std::string &option) {
    return name.empty() || name == "keep" ? 0 : named_format(name, option);
}

bool ends_with(const std::string &text, const std::string &ending) {
    return text.size() > ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

void check(Command &command, const std::string &type, const std::vector<std::string> &rules, const std::string &power) {
    command.format = format_or_keep(type, "--type");
    for (const std::string &rule : rules) {
        const size_t mark = rule.rfind('=');
        if (mark == std::string::npos || mark == 0) fail("--type-for ", shown(rule), ": expected PATTERN=TYPE");
        command.rules.push_back({rule.substr(0, mark), format_or_keep(rule.substr(mark + 1), "--type-for")});
    }
    command.power = -1;
    for (int32_t i = 0; i < 4; ++i)
        if (power == powers[i]) command.power = i;
    if (command.power < 0) fail("--power ", shown(power), ": expected floor, ceil, even or rceil");
    if (command.threads > 1024) fail("--threads ", command.threads, ": expected 0 to 1024");
    if (command.gptq_version > 2) fail("--gptq-version ", command.gptq_version, ": expected 0, 1 or 2");
    if (command.calibrate_tokens < 2) fail("--calibrate-tokens ", command.calibrate_tokens, ": expected 2 or more");
    if (!command.calibrate.empty() && !is_calibrated(command.format))
        fail("--calibrate: only gptq2, gptq3, gptq4, gptq8, spqr3 and spqr4 are calibrated; give --type one of them");
    if (command.plan) return;
    if (!command.keys.empty() && !ends_with(command.out, ".gguf"))
        fail("--keys: only a GGUF file has keys; give --out FILE.gguf");
    if (command.out.empty()) fail("no place for the result: give --out FILE.gguf or FILE.safetensors, or --plan");
    if (!ends_with(command.out, ".gguf") && !ends_with(command.out, ".safetensors"))
        fail("--out ", shown(command.out), ": expected a name that ends in .gguf or .safetensors");
    if (type.empty() && rules.empty())
        fail("no format: give --type NAME (or --type keep to change the container only); one of ", format_names());
}

} // namespace

bool parse_command(int argc, const char *const *argv, FILE *out, Command *command) {
    CLI::App app(description, "qlora-quantize");
    std::string type, power = "floor";
    std::vector<std::string> rules;
    app.add_option("--model", command->model, "what to convert: a GGUF or safetensors file, or a Hugging Face directory")->required();
    app.add_option("--out", command->out, "what to write: a name that ends in .gguf or .safetensors");
    app.add_option("--keys", command->keys,
                   "GGUF file whose keys (architecture, tokenizer, ...) a GGUF made from safetensors receives");
    app.add_option(
        "--type", type,
        "format of the linear weights: keep, or " + format_names() +
            ". GGUF takes the ggml formats; safetensors takes all, nf4 and fp4 as bitsandbytes lays them out");
    app.add_option(
        "--type-for", rules,
        "PATTERN=TYPE: format of the tensors whose name matches, * and ? allowed; the last that matches counts");
    app.add_option("--block", command->block,
                   "values that share a scale, for formats with a choice; 0 is their default")
        ->capture_default_str();
    app.add_flag("--plan", command->plan, "print what each format would cost for this model, and write nothing");
    app.add_option(
        "--importance", command->importance,
        "importance of columns: safetensors with an f32 vector by each tensor's name, or llama.cpp's GGUF imatrix");
    app.add_option(
        "--calibrate", command->calibrate,
        "fit gptq2 to gptq8, spqr3 or spqr4 weights of a llama model to this text: a text file, JSON lines, or token ids "
        "FILE.safetensors:NAME or FILE.json:KEY");
    app.add_option("--calibrate-tokens", command->calibrate_tokens, "most tokens of that text")->capture_default_str();
    app.add_option("--gptq-version", command->gptq_version,
                   "how a GPTQ checkpoint stores zeros: 1 (gptq: zero - 1) or 2 (gptq_v2); 0 as the source, else 1")
        ->capture_default_str();
    app.add_flag("--stochastic", command->stochastic,
                 "FP8, MX and NVFP4 round up or down at random, the nearer more likely");
    app.add_flag("--tensor-scale", command->tensor_scale,
                 "NVFP4 with a scale per tensor, as NVIDIA's recipe has it; without, blocks are ggml's");
    app.add_option("--seed", command->seed, "seed of --stochastic")->capture_default_str();
    app.add_option("--power", power, "how MXFP8 and MXFP6 choose a block's power of two: floor, ceil, even or rceil")
        ->capture_default_str();
    app.add_option("--device", command->device, "cpu, cuda[:N], vulkan[:N], auto, or ref (slow, exact)")
        ->capture_default_str();
    app.add_option("--threads", command->threads, "threads of the cpu device; 0 is one per core")
        ->capture_default_str();
    app.footer(examples);
    try {
        app.parse(argc, argv);
    } catch (const CLI::CallForHelp &) {
        fputs(app.help().c_str(), out);
        return false;
    } catch (const CLI::ParseError &error) {
        std::string message = error.what();
        for (char &c : message)
            if (c == '\n' || c == '\r') c = ' ';
        fail(message, "; see --help");
    }
    check(*command, type, rules, power);
    return true;
}

} // namespace quantize
