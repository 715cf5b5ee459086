#include "options.h"
#include "options_memory.h"

#include "chat.h"
#include "commands.h"
#include "config_file.h"
#include "options_run.h"

#include <cmath>

namespace finetune {
namespace {

const char *const description =
    "Fine-tunes a decoder of one of thirteen architectures, a GGUF file or a Hugging Face directory, with LoRA on its linear\n"
    "layers, on the CPU or a GPU, and writes an adapter that llama.cpp loads with --lora.\n";

const char *const examples =
    "  a first adapter, with a tenth of the rows held out to judge it:\n"
    "    qlora-finetune train --model base.gguf --data rows.jsonl --eval-fraction 0.1 --out adapter.gguf\n"
    "  a longer run that can be stopped, killed and resumed, and is judged on the way:\n"
    "    qlora-finetune train --model base.gguf --data rows.jsonl --eval-fraction 0.1 --eval-every 50 --early-stop 4 \\\n"
    "      --epochs 3 --rank 16 --alpha 32 --lora-dropout 0.05 --run-dir run1\n"
    "    qlora-finetune train --resume run1\n"
    "  the same again with another learning rate:\n"
    "    qlora-finetune train --config run1/config.toml --learning-rate 2e-4 --run-dir run2\n"
    "  the base quantized another way, rows as token ids, an adapter to begin with:\n"
    "    qlora-finetune train --model base.gguf --quant nf4-dq --train-ids rows.json:train --eval-ids rows.json:test \\\n"
    "      --adapter-init initial.safetensors --order file --steps 128 --schedule constant --metrics run.json --out "
    "adapter.gguf\n";

const char *const plan_description =
    "Says what training with these options would take, and what fits, without training. Options are train's.\n";

const char *const plan_examples = "  qlora-finetune plan --model base.gguf --sequence 2048 --rank 16 --device cuda\n"
                                  "  qlora-finetune plan --model base.gguf --data rows.jsonl --batch 4\n";

void describe(CLI::App &app, Options &o, std::string &schedule, std::string &order, std::string &too_long,
              std::string &optimizer) {
    add_model_options(app, o);
    app.add_option("--data", o.data,
                   "training rows, in whichever form they are: JSON lines or an array, of OpenAI messages, ShareGPT "
                   "conversations, Alpaca's instruction and output, prompt and completion; or a plain text. The loss "
                   "counts answers only")
        ->group("Files");
    app.add_option("--eval-data", o.eval_data, "held-out rows, same form")->group("Files");
    app.add_option("--eval-fraction", o.eval_fraction, "hold out this share of the rows of --data instead, 0 to 0.9")
        ->group("Files");
    app.add_flag("--strict", o.strict, "a broken row is an error; without, it is dropped, and said so")->group("Files");
    app.add_option("--chat-template", o.chat_template,
                   "how conversations are written: auto (the model's own if it has one), model, or by name: " +
                       chat_template_names() + ". A name is also used for instructions and prompts")
        ->capture_default_str()
        ->group("Files");
    app.add_option("--out", o.out,
                   "adapter to write: a GGUF file for llama.cpp's --lora, or PEFT's when the name ends in .safetensors")
        ->group("Files");
    app.add_option("--adapter-init", o.adapter_init, "adapter to begin with: GGUF, PEFT's directory or safetensors; layers and ranks that it lacks begin anew")
        ->group("Files");
    app.add_option(
           "--train-ids", o.train_ids,
           "training rows as token ids, FILE.json:KEY, instead of --data: {KEY: [[[prompt ids], [answer ids]], ...]}")
        ->group("Files");
    app.add_option("--eval-ids", o.eval_ids, "held-out rows as token ids, FILE.json:KEY")->group("Files");
    app.add_option("--perplexity-ids", o.perplexity_ids,
                   "also measure perplexity, before training, over token ids FILE.safetensors:NAME")
        ->group("Files");
    app.add_option("--window", o.window, "tokens of a perplexity window")->capture_default_str()->group("Files");
    app.add_option("--perplexity-tokens", o.perplexity_tokens, "use only the first N of those tokens; 0 is all")
        ->capture_default_str()
        ->group("Files");
    app.add_option(
           "--perplexity-table", o.perplexity_table,
           "print bits per weight and perplexity for linear layers in these formats, NAME,NAME,... or all, and end")
        ->group("Files");
    app.add_option("--metrics", o.metrics, "JSON file for losses, gradient norms and evaluations")->group("Files");

    add_device_options(app, o);
    add_memory_options(app, o.memory, MemoryUse::training);
    app.add_option("--calibrate", o.calibrate,
                   "fit gptq2 to gptq8, spqr3 and spqr4 to this text, on the CPU: a text file, JSON lines as for --data, or token ids "
                   "FILE.safetensors:NAME or FILE.json:KEY. Without, or as gptq4-rtn, they round to nearest")
        ->group("Computation");
    app.add_option("--calibrate-tokens", o.calibrate_tokens, "most tokens of that text, in windows spread over it")
        ->capture_default_str()
        ->group("Computation");

    app.add_option("--rank", o.rank, "LoRA rank, 1 to 1024")->capture_default_str()->group("Training");
    app.add_option("--alpha", o.alpha,
                   "LoRA alpha; updates are scaled by alpha / rank. An initial GGUF adapter brings its own")
        ->capture_default_str()
        ->group("Training");
    app.add_option("--optimizer", optimizer, optimizer_names())->capture_default_str()->group("Training");
    app.add_option("--save-state", o.save_state,
                   "write adapter and optimizer state to this safetensors file at the end, for --resume")
        ->group("Training");
    app.add_option("--import-state", o.train.import_state,
                   "begin with the moments and the step of a bitsandbytes optimizer, saved as safetensors")
        ->group("Training");
    app.add_option("--learning-rate", o.train.learning_rate, "peak learning rate")
        ->capture_default_str()
        ->group("Training");
    app.add_option("--schedule", schedule, "constant, linear or cosine")->capture_default_str()->group("Training");
    app.add_option("--warmup", o.train.warmup, "steps over which the rate rises to its peak")
        ->capture_default_str()
        ->group("Training");
    app.add_option("--epochs", o.epochs, "passes over the training rows")->capture_default_str()->group("Training");
    app.add_option("--steps", o.train.steps, "optimizer steps, instead of --epochs; 0 only evaluates")
        ->group("Training");
    app.add_option("--batch", o.train.batch, "rows computed at a time")->capture_default_str()->group("Training");
    app.add_option("--accumulate", o.train.accumulate,
                   "batches added up before a step; every answer token weighs the same")
        ->capture_default_str()
        ->group("Training");
    app.add_option("--sequence", o.sequence, "most tokens of a row; default and limit is the model's context length")
        ->group("Training");
    app.add_option("--pack", o.pack,
                   "put short rows together, up to N tokens, and count --batch in those; they do not see each other. 0: "
                   "rows as they are")
        ->capture_default_str()
        ->group("Training");
    app.add_option("--too-long", too_long, "for rows longer than that: error, drop, or truncate (the answer's end)")
        ->capture_default_str()
        ->group("Training");
    app.add_option("--clip", o.train.clip, "largest gradient norm; 0 is no limit")
        ->capture_default_str()
        ->group("Training");
    app.add_option("--weight-decay", o.train.weight_decay, "weight decay")
        ->capture_default_str()
        ->group("Training");
    app.add_option("--order", order, "shuffled (anew each epoch) or file")->capture_default_str()->group("Training");
    app.add_option("--seed", o.train.seed, "seed of the adapter's initial values and of the order")
        ->capture_default_str()
        ->group("Training");

    app.add_option("--eval-rows", o.eval_rows, "use only the first N held-out rows; 0 is all")
        ->capture_default_str()
        ->group("Evaluation");
    app.add_option("--exact-match", o.exact_match,
                   "answer the first N held-out rows, before and after, and count the exact matches")
        ->capture_default_str()
        ->group("Evaluation");
    app.add_option("--samples", o.samples,
                   "print N answers to held-out rows, before and after; default 2 with --eval-data")
        ->capture_default_str()
        ->group("Evaluation");
}

void check(Options &o, const std::string &schedule, const std::string &order, const std::string &too_long,
           bool planning) {
    if (schedule == "constant") o.train.schedule = Schedule::constant;
    else if (schedule == "linear") o.train.schedule = Schedule::linear;
    else if (schedule == "cosine") o.train.schedule = Schedule::cosine;
    else fail("--schedule ", shown(schedule), ": expected constant, linear or cosine");
    if (order != "shuffled" && order != "file") fail("--order ", shown(order), ": expected shuffled or file");
    o.train.shuffle = order == "shuffled";
    if (too_long == "error") o.too_long = TooLong::error;
    else if (too_long == "drop") o.too_long = TooLong::drop;
    else if (too_long == "truncate") o.too_long = TooLong::truncate;
    else fail("--too-long ", shown(too_long), ": expected error, drop or truncate");

    check_range("--rank", o.rank, 1, 1024);
    check_range("--alpha", o.alpha, 1e-6, 1e6);
    check_range("--learning-rate", o.train.learning_rate, 0, 10);
    check_range("--weight-decay", o.train.weight_decay, 0, 10);
    check_range("--clip", o.train.clip, 0, 1e9);
    check_range("--batch", o.train.batch, 1, 65536);
    check_range("--accumulate", o.train.accumulate, 1, 65536);
    check_range("--epochs", o.epochs, 0, 1e6);
    check_range("--steps", double(o.train.steps), 0, 1e9);
    check_range("--window", o.window, 2, 1 << 20);
    check_range("--eval-tokens", double(o.memory.eval_tokens.value_or(1)), 1, 1 << 24);
    check_range("--eval-fraction", o.eval_fraction, 0, 0.9);
    check_range("--pack", double(o.pack), 0, 1 << 24);
    if (o.eval_fraction > 0 && (!o.eval_data.empty() || !o.eval_ids.empty()))
        fail("--eval-fraction and --eval-data: give one of them");
    if (o.eval_fraction > 0 && o.data.empty() && o.train_ids.empty())
        fail("--eval-fraction takes rows of the training data: give --data");
    check_range("--threads", o.threads, 0, 1024);
    check_range("--calibrate-tokens", double(o.calibrate_tokens), 2, 1 << 30);
    const FormatChoice choice = o.format();
    if (!o.calibrate.empty() && o.perplexity_table.empty() && !o.calibrates(choice))
        fail("--calibrate: only gptq2, gptq3, gptq4, gptq8, spqr3 and spqr4 are calibrated; give --quant one of them");
    o.precision();
    if (!o.data.empty() && !o.train_ids.empty()) fail("--data and --train-ids: give one of them");
    if (!o.eval_data.empty() && !o.eval_ids.empty()) fail("--eval-data and --eval-ids: give one of them");
    if (!o.perplexity_table.empty()) {
        if (o.perplexity_ids.empty()) fail("--perplexity-table needs token ids: give --perplexity-ids FILE:NAME");
        return;
    }
    if (planning) return;
    const bool trains = !o.steps_given || o.train.steps > 0;
    if (trains && o.data.empty() && o.train_ids.empty())
        fail("no training rows: give --data FILE.jsonl (or --steps 0 to evaluate only)");
    if (trains && o.out.empty()) fail("no place for the adapter: give --out FILE.gguf, or --run-dir FOLDER");
    if ((o.exact_match > 0 || o.samples > 0) && o.eval_data.empty() && o.eval_ids.empty() && o.eval_fraction == 0)
        fail("--exact-match and --samples need held-out rows: give --eval-data, --eval-ids or --eval-fraction");
}

} // namespace

bool parse_options(int argc, char **argv, Options *options, bool planning) {
    CommandApp app(planning ? "plan" : "train", planning ? plan_description : description,
                   planning ? plan_examples : examples);
    std::string schedule = "cosine", order = "shuffled", too_long = "error", optimizer = "adamw";
    describe(app, *options, schedule, order, too_long, optimizer);
    add_adapter_options(app, *options);
    add_run_options(app, *options);
    if (!app.read(argc, argv)) return false;
    options->alpha_given = app.count("--alpha") > 0;
    options->steps_given = app.count("--steps") > 0;
    if (app.count("--samples") == 0 && (!options->eval_data.empty() || options->eval_fraction > 0)) options->samples = 2;
    const float b_rate = options->train.optimizer.b_rate;
    options->train.optimizer = optimizer_by_name(optimizer);
    options->train.optimizer.b_rate = b_rate;
    check_run_options(*options);
    options->config_text = config_text(app);
    if (!options->train.resume.empty() && !options->train.import_state.empty())
        fail("--resume and --import-state: give one of them");
    check(*options, schedule, order, too_long, planning);
    return true;
}

} // namespace finetune
