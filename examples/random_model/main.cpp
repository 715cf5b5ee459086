// qlora-random-model: exit code 0 after success, 2 after an error, which is one line on standard error.
#include "write.h"

#include "cpp/qlora.hpp"
#include "error.h"
#include "gguf.h"

#include <CLI/CLI.hpp>

#include <cstdio>

namespace {

void run(random_model::Job job, const std::string &shape) {
    job.shape = random_model::find_shape(shape);
    if (!job.tokenizer.empty()) {
        const auto tokens = finetune::Gguf(job.tokenizer).find_strings("tokenizer.ggml.tokens");
        if (!tokens) finetune::fail(job.tokenizer, ": holds no tokenizer (tokenizer.ggml.tokens)");
        job.shape.vocabulary = static_cast<uint32_t>(tokens->size());
    }
    const uint64_t bytes = random_model::write_model(job);
    printf("%s: %s, %s, %.2f GB\n", job.out.c_str(), job.shape.name, job.type.c_str(), double(bytes) / 1e9);
}

} // namespace

int main(int argc, char **argv) {
    random_model::Job job;
    std::string shape, message;
    CLI::App app("Writes a llama model with random weights, to measure memory and speed of a size without downloading one.");
    app.add_option("--shape", shape, "tiny, tinyllama-1.1b, llama-7b, llama3-8b, llama-13b, llama-33b, llama-65b")->required();
    app.add_option("--type", job.type, "of the linear layers: nf4-dq (default) and bitsandbytes' others for a directory, q4_k_m, q4_0, q8_0, f16... for GGUF")
        ->default_val("nf4-dq");
    app.add_option("--out", job.out, "a name that ends in .gguf, or a directory")->required();
    app.add_option("--tokenizer", job.tokenizer, "a GGUF file whose tokenizer (and vocabulary size) the model gets");
    app.add_option("--seed", job.seed);
    app.add_flag("--empty", job.empty, "a GGUF file of holes, which take no room on the disk: enough to plan with");
    app.add_option("--threads", job.threads, "0: as many as there are");
    try {
        app.parse(argc, argv);
        run(job, shape);
        return 0;
    } catch (const CLI::ParseError &error) {
        if (error.get_exit_code() == 0) return app.exit(error);
        message = error.what();
    } catch (const finetune::Error &error) { message = error.what(); } catch (const qlora::Error &error) {
        message = std::string(error.what()) + " (" + qlora_status_name(error.status()) + ")";
    } catch (const std::bad_alloc &) { message = "out of memory"; }
    fprintf(stderr, "qlora-random-model: error: %s\n", message.c_str());
    return 2;
}
