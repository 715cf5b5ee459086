// Compares a fine-tune with the same one as PyTorch, PEFT and bitsandbytes made it (golden/reference_runs.json).
//
//   reference_run [--device cpu] [--run ft_nf4dq] [--compute f32] [--steps 2] [--optimizer adamw] [--optimizer-memory BYTES] [--eval] [--perplexity]
//                 [--software-steps N]
//   reference_run --quant q4_k [--steps 128 --eval]   the f32 recipe on a base in this format, GPTQ and SpQR calibrated on the
//   reference_run --quant-all [...]                   training rows: after all steps the eval loss is within 1.5 % of f32's
//   reference_run --check METRICS.json [--run ft_nf4dq]     judges a file that qlora-finetune --metrics wrote
//
// The long form is --steps 128 --eval --perplexity. A Vulkan device that is software takes minutes a step: there
// --software-steps takes the place of --steps, unless QLORA_TEST_ALL is set. Exit code 0: agrees; 1: does not;
// 77 (SKIPPED): golden files or the device are absent, or no step is left.
#include "json.h"
#include "session.h"
#include "tests/support/targets.h"

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

#ifndef QLORA_SHARED_DIR
#define QLORA_SHARED_DIR "../shared"
#endif

using namespace finetune;

namespace {

struct Request {
    std::string device = "cpu", run = "ft_nf4dq", compute = "f32", check, quant, optimizer = "adamw";
    bool quant_all = false;
    uint64_t steps = 2, software_steps = UINT64_MAX, optimizer_bytes = 0;
    bool eval = false, perplexity = false;
};

struct Judge {
    int failures = 0;

    void compare(const std::string &what, double ours, double theirs, double tolerance, bool relative) {
        const double difference = std::fabs(ours - theirs) / (relative ? std::max(std::fabs(theirs), 1e-30) : 1);
        const bool good = difference <= tolerance; // false for NaN
        failures += !good;
        printf("%s %-28s ours %.6f  reference %.6f  off by %.3g%s (limit %.3g%s)\n", good ? "ok    " : "FAILED",
               what.c_str(), ours, theirs, relative ? 100 * difference : difference, relative ? " %" : "",
               relative ? 100 * tolerance : tolerance, relative ? " %" : "");
    }
};

std::string shared_folder() {
    const char *folder = getenv("QLORA_SHARED");
    return folder != nullptr ? folder : QLORA_SHARED_DIR;
}

Json load(const std::string &path) {
    const MappedFile file(path);
    return parse_json(file.text(), path, 8);
}

std::string run(const Request &request, const std::string &shared) {
    Options options;
    options.model = shared + "/models/tinylm-f16.gguf";
    options.train_ids = shared + "/golden/gsm8k_ids.json:train";
    options.adapter_init = shared + "/golden/lora_init.safetensors";
    if (request.eval) options.eval_ids = shared + "/golden/gsm8k_ids.json:test";
    if (request.perplexity) options.perplexity_ids = shared + "/golden/tinylm_token_ids.safetensors:wikitext2_test";
    options.device = request.device;
    options.compute = request.compute;
    options.quant = !request.quant.empty() ? request.quant : request.run == "ft_nf4dq" ? "nf4-dq" : "none";
    if (options.format().format != 0 && is_calibrated(options.format().format)) options.calibrate = options.train_ids;
    options.steps_given = true;
    options.train.steps = request.steps;
    options.train.shuffle = false;
    options.train.schedule = Schedule::constant;
    options.train.learning_rate = 5e-4f;
    options.train.optimizer = optimizer_by_name(request.optimizer);
    options.train.optimizer_bytes = request.optimizer_bytes;
    const char *folder = getenv("TMPDIR");
    options.metrics =
        std::string(folder != nullptr ? folder : P_tmpdir) + "/reference_run_" + std::to_string(getpid()) + ".json";
    run_session(options);
    return options.metrics;
}

void judge_norms(Judge &judge, const Json &ours, const Json &theirs) {
    double worst = 0;
    std::string where = "none";
    for (const auto &[name, value] : theirs.items()) {
        if (!ours.contains(name)) {
            printf("FAILED the norm of %s is missing\n", name.c_str());
            ++judge.failures;
            continue;
        }
        // A's gradient is zero while B is zero.
        const double expected = value.get<double>(), found = ours[name].get<double>();
        const double off = expected == 0 ? std::fabs(found) * 1e6 : std::fabs(found - expected) / expected;
        if (!(off <= worst)) {
            worst = off;
            where = name;
        }
    }
    const bool good = worst <= 0.02;
    judge.failures += !good;
    printf("%s %zu gradient norms of step 0: worst off by %.3g %% (limit 2 %%) at %s\n", good ? "ok    " : "FAILED",
           theirs.size(), 100 * worst, where.c_str());
}

int judge_metrics(const Json &ours, const Json &all, const Request &request) {
    const Json &theirs = all.at(request.run);
    const bool exact = request.compute == "f32";
    Judge judge;
    if (ours.contains("eval_before"))
        judge.compare("eval loss before", ours["eval_before"], theirs["eval_before"], exact ? 0.002 : 0.02, false);
    if (!ours["train"].empty()) {
        judge.compare("step 0 loss", ours["train"][0][0], theirs["train"][0][0], 0.005, true);
        judge.compare("step 0 gradient norm", ours["train"][0][1], theirs["train"][0][1], exact ? 0.005 : 0.02, true);
        judge_norms(judge, ours["grad_norms_step0"], theirs["grad_norms_step0"]);
        double worst = 0;
        for (size_t i = 0; i < std::min(ours["train"].size(), theirs["train"].size()); ++i)
            worst =
                std::max(worst, std::fabs(ours["train"][i][0].get<double>() / theirs["train"][i][0].get<double>() - 1));
        printf("       worst loss of all %zu steps is off by %.3g %%\n", ours["train"].size(), 100 * worst);
        if (ours["train"].size() == theirs["train"].size() && ours.contains("eval_after"))
            judge.compare("eval loss after", ours["eval_after"], theirs["eval_after"], exact ? 0.01 : 0.02, false);
    }
    if (ours.contains("perplexity"))
        judge.compare("WikiText-2 perplexity", ours["perplexity"],
                      all["wikitext2_ppl"][request.run == "ft_nf4dq" ? "nf4dq" : "f32"], exact ? 0.02 : 0.2, false);
    printf("%s\n", judge.failures == 0 ? "agrees with the reference" : "DIFFERS from the reference");
    return judge.failures == 0 ? 0 : 1;
}

// How far a base in this format comes, against the f32 base.
int judge_quant(const Json &ours, const Json &all, const Request &request) {
    const Json &theirs = all.at("ft_f32");
    const double limit = 1.5;
    const std::string layers = ours.at("quant").get<std::string>();
    const size_t steps = ours["train"].size();
    if (steps != theirs["train"].size() || !ours.contains("eval_after")) {
        printf("not judged %-8s %zu steps, last loss %.4f; --steps %zu --eval judges; linear layers %s\n",
               request.quant.c_str(), steps, steps == 0 ? NAN : ours["train"][steps - 1][0].get<double>(),
               theirs["train"].size(), layers.c_str());
        return 0;
    }
    const double loss = ours["eval_after"].get<double>(), expected = theirs["eval_after"].get<double>();
    const double off = 100 * (loss / expected - 1);
    const bool good = std::fabs(off) <= limit; // false for NaN
    printf("%s %-8s eval loss %.4f after %zu steps, f32 %.4f: %+.2f %% (limit %.1f %%); linear layers %s\n",
           good ? "ok    " : "FAILED", request.quant.c_str(), loss, steps, expected, off, limit, layers.c_str());
    return good ? 0 : 1;
}

// False when this machine has no such device.
bool find_device(Request &request) {
    const int32_t backend = test::backend_by_name(request.device.substr(0, request.device.find(':')));
    if (backend == 0) return true; // "auto", or nothing that the run itself would not refuse
    try {
        const qlora::Context context(backend);
        const bool software = std::string(context.query().name).find("llvmpipe") != std::string::npos;
        if (software && getenv("QLORA_TEST_ALL") == nullptr) request.steps = std::min(request.steps, request.software_steps);
    } catch (const qlora::Error &error) {
        if (error.status() != QLORA_ERROR_UNAVAILABLE) throw;
        printf("SKIPPED: %s\n", error.what());
        return false;
    }
    if (request.steps == 0) printf("SKIPPED: %s is software here; QLORA_TEST_ALL=1 runs it\n", request.device.c_str());
    return request.steps != 0;
}

Request parse(int argc, char **argv) {
    Request request;
    for (int i = 1; i < argc; ++i) {
        const std::string option = argv[i];
        if (option == "--eval") request.eval = true;
        else if (option == "--perplexity") request.perplexity = true;
        else if (option == "--quant-all") request.quant_all = true;
        else if (i + 1 == argc) fail(option, ": unknown, or without its value");
        else if (option == "--quant") request.quant = argv[++i];
        else if (option == "--device") request.device = argv[++i];
        else if (option == "--run") request.run = argv[++i];
        else if (option == "--optimizer") request.optimizer = argv[++i];
        else if (option == "--optimizer-memory") request.optimizer_bytes = strtoull(argv[++i], nullptr, 10);
        else if (option == "--compute") request.compute = argv[++i];
        else if (option == "--check") request.check = argv[++i];
        else if (option == "--software-steps") request.software_steps = strtoull(argv[++i], nullptr, 10);
        else if (option == "--steps") request.steps = strtoull(argv[++i], nullptr, 10);
        else fail(option, ": unknown option");
    }
    if (request.run != "ft_nf4dq" && request.run != "ft_f32")
        fail("--run ", request.run, ": expected ft_nf4dq or ft_f32");
    return request;
}

} // namespace

int main(int argc, char **argv) {
    try {
        Request request = parse(argc, argv);
        const std::string shared = shared_folder(), reference = shared + "/golden/reference_runs.json";
        if (access(reference.c_str(), R_OK) != 0) {
            printf("SKIPPED: %s is not here; set QLORA_SHARED to the folder of golden files\n", reference.c_str());
            return 77;
        }
        if (request.check.empty() && !find_device(request)) return 77;
        if (request.quant_all || !request.quant.empty()) {
            std::vector<std::string> formats = {request.quant};
            if (request.quant_all) formats = {"q4_k", "q6_k", "iq4_xs", "mxfp4", "gptq4", "spqr4", "int8", "llm-int8"};
            const Json all = load(reference);
            int worst = 0;
            for (const std::string &format : formats) {
                request.quant = format;
                try {
                    const std::string metrics = run(request, shared);
                    const Json ours = load(metrics);
                    unlink(metrics.c_str());
                    worst = std::max(worst, judge_quant(ours, all, request));
                } catch (const Error &error) { // the next format may do better
                    printf("FAILED %-8s %s\n", format.c_str(), error.what());
                    worst = 1;
                }
                fflush(stdout);
            }
            return worst;
        }
        const std::string metrics = request.check.empty() ? run(request, shared) : request.check;
        const Json ours = load(metrics);
        if (request.check.empty()) unlink(metrics.c_str());
        return judge_metrics(ours, load(reference), request);
    } catch (const Error &error) {
        fprintf(stderr, "reference_run: error: %s\n", error.what());
    } catch (const qlora::Error &error) {
        fprintf(stderr, "reference_run: error: %s\n", error.what());
    } catch (const Json::exception &error) { fprintf(stderr, "reference_run: error: %s\n", error.what()); }
    return 2;
}
