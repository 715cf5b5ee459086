// qlora-finetune eval
#include "chat.h"
#include "commands.h"
#include "evaluate.h"
#include "json.h"
#include "loaded.h"
#include "options_memory.h"
#include "report.h"
#include "run_folder.h"

#include <cmath>
#include <cstdio>
#include <optional>

namespace finetune {
namespace {

const char *const about =
    "Measures a base, and the base with adapters: perplexity of a text, loss and exact matches of the answers of data.\n";

const char *const examples =
    "  qlora-finetune eval --model base.gguf --adapter adapter.gguf --data test.jsonl --exact-match 100\n"
    "  qlora-finetune eval --model base.gguf --quant nf4-dq --perplexity-text book.txt\n"
    "  qlora-finetune eval --model 33b.gguf --adapter adapter.gguf --data test.jsonl --memory 7.4GB --compute bf16\n";

struct EvalOptions : CommonOptions {
    AdapterOptions adapters;
    MemoryOptions memory;
    std::string data, ids, text, token_ids, chat_template = "auto", json;
    uint64_t rows = 0, sequence = 0, perplexity_tokens = 0;
    uint32_t window = 512, exact_match = 0;
    bool each = false, strict = false;
};

struct Measured {
    std::string name;
    std::optional<double> perplexity, loss, exact_match;
};

// What is computed, once the files are read; batches of it once the plan says how large they are.
struct Work {
    std::vector<int32_t> text;
    uint32_t window = 0;
    std::vector<Row> rows;
    uint32_t asked = 0; // rows to answer
    int32_t end_token = -1;
    const Tokenizer *tokenizer = nullptr;
    std::vector<Batch> windows, answers;

    void pack(uint64_t tokens) {
        windows = pack_windows(text, window, tokens);
        answers = pack_rows(rows, tokens);
    }
    BatchBounds bounds(uint64_t tokens) const {
        BatchBounds bounds = bounds_of(pack_windows(text, window, tokens));
        bounds.include(bounds_of(pack_rows(rows, tokens)));
        return bounds;
    }
};

Measured measure(Machine &machine, const Work &work, const std::string &name) {
    Measured out = {name, {}, {}, {}};
    if (!work.windows.empty()) out.perplexity = std::exp(mean_loss(*machine.network, work.windows));
    if (!work.answers.empty()) out.loss = mean_loss(*machine.network, work.answers);
    if (work.asked > 0) {
        const auto answers = answer_rows(*machine.generator, work.rows, work.asked, work.end_token);
        uint32_t right = 0;
        for (uint32_t i = 0; i < work.asked; ++i) right += is_right(work.rows[i], answers[i], work.tokenizer, work.end_token);
        out.exact_match = double(right) / double(work.asked);
    }
    return out;
}

void print(const std::vector<Measured> &all) {
    size_t width = 8;
    for (const Measured &one : all) width = std::max(width, one.name.size());
    const Measured &first = all[0];
    printf("%-*s%s%s%s\n", int(width), "", first.perplexity ? "  perplexity" : "", first.loss ? "  answer loss" : "",
           first.exact_match ? "  exact match" : "");
    for (const Measured &one : all) {
        printf("%-*s", int(width), one.name.c_str());
        if (one.perplexity) printf("  %10.4f", *one.perplexity);
        if (one.loss) printf("  %11.4f", *one.loss);
        if (one.exact_match) printf("  %9.1f %%", 100 * *one.exact_match);
        printf("\n");
    }
    fflush(stdout);
}

void save(const std::string &path, const std::vector<Measured> &all) {
    Json list = Json::array();
    for (const Measured &one : all) {
        Json entry = {{"name", one.name}};
        if (one.perplexity) entry["perplexity"] = *one.perplexity;
        if (one.loss) entry["answer_loss"] = *one.loss;
        if (one.exact_match) entry["exact_match"] = *one.exact_match;
        list.push_back(entry);
    }
    write_text(path, list.dump(2) + "\n");
}

void check(const EvalOptions &o) {
    check_range("--window", o.window, 2, 1 << 20);
    check_range("--eval-tokens", double(o.memory.eval_tokens.value_or(1)), 1, 1 << 24);
    check_range("--threads", o.threads, 0, 1024);
    o.precision();
    if (!o.data.empty() && !o.ids.empty()) fail("--data and --ids: give one of them");
    if (!o.text.empty() && !o.token_ids.empty()) fail("--perplexity-text and --perplexity-ids: give one of them");
    if (o.data.empty() && o.ids.empty() && o.text.empty() && o.token_ids.empty())
        fail("nothing to measure: give --data for answers, or --perplexity-text");
    if (o.exact_match > 0 && o.data.empty() && o.ids.empty()) fail("--exact-match needs rows: give --data");
    if (!o.json.empty()) check_writable(o.json);
}

} // namespace

int command_eval(int argc, char **argv) {
    EvalOptions o;
    CommandApp app("eval", about, examples);
    add_model_options(app, o);
    add_adapter_options(app, o.adapters, false);
    app.add_option("--data", o.data, "rows with answers, in any form that training takes")->group("Files");
    app.add_option("--ids", o.ids, "rows as token ids, FILE.json:KEY")->group("Files");
    app.add_option("--perplexity-text", o.text, "a text file")->group("Files");
    app.add_option("--perplexity-ids", o.token_ids, "token ids, FILE.safetensors:NAME")->group("Files");
    app.add_option("--json", o.json, "also write the numbers to this file")->group("Files");
    app.add_option("--chat-template", o.chat_template, "how conversations are written: auto, model, or " + chat_template_names())
        ->capture_default_str()
        ->group("Evaluation");
    app.add_flag("--each", o.each, "each adapter alone, too")->group("Evaluation");
    app.add_flag("--strict", o.strict, "a broken row is an error; without, it is dropped, and said so")->group("Evaluation");
    app.add_option("--rows", o.rows, "use only the first N rows; 0 is all")->capture_default_str()->group("Evaluation");
    app.add_option("--sequence", o.sequence, "longer rows are dropped; default the model's context length")->group("Evaluation");
    app.add_option("--exact-match", o.exact_match, "answer the first N rows and count the exact matches")
        ->capture_default_str()
        ->group("Evaluation");
    app.add_option("--window", o.window, "tokens of a perplexity window")->capture_default_str()->group("Evaluation");
    app.add_option("--perplexity-tokens", o.perplexity_tokens, "use only the first N of the text; 0 is all")
        ->capture_default_str()
        ->group("Evaluation");
    add_device_options(app, o);
    add_memory_options(app, o.memory, MemoryUse::evaluation);
    if (!app.read(argc, argv)) return exit_success;
    check(o);

    const LoadedFiles files(o, o.adapters, !o.data.empty() || !o.text.empty());
    const ModelShape &shape = files.base.shape();
    Work work;
    work.tokenizer = files.tokenizer.get();
    work.end_token = files.base.end_token();
    work.text = perplexity_tokens(files, o.text, o.token_ids, o.window, o.perplexity_tokens);
    work.window = o.window;
    const uint64_t sequence = o.sequence == 0 ? shape.context : o.sequence;
    if (sequence > shape.context) fail("--sequence ", sequence, ": more than the model's context length ", shape.context);
    const DataLimits limits = {sequence, shape.vocabulary, TooLong::drop, o.strict};
    if (!o.data.empty() || !o.ids.empty()) {
        Dataset data = o.ids.empty() ? read_data(o.data, *files.tokenizer, limits, o.chat_template) : read_token_ids(o.ids, limits);
        printf("%s\n", describe(data).c_str());
        if (o.rows > 0 && o.rows < data.rows.size()) data.rows.resize(o.rows);
        work.rows = std::move(data.rows);
        work.asked = uint32_t(std::min<uint64_t>(o.exact_match, work.rows.size()));
    }

    std::vector<std::string> names = {"base"};
    std::vector<TunedAdapter> adapters = {files.tuned({})};
    const auto add = [&](const std::vector<size_t> &which, const std::string &name) {
        names.push_back("base + " + name);
        adapters.push_back(files.tuned(which));
    };
    if (o.each && files.adapters.size() > 1)
        for (size_t i = 0; i < files.adapters.size(); ++i) add({i}, o.adapters.name(i));
    if (!files.adapters.empty()) add(files.all(), o.adapters.names());

    Device device(o.device, o.threads);
    const Budget budget = find_budget(device, o.memory);
    Task task = untrained_task(o, adapters);
    task.evaluation_bounds = [&](uint64_t tokens) { return work.bounds(tokens); };
    task.answer_rows = &work.rows;
    task.answers = work.asked;
    const MemoryPlan plan = make_plan(device, files.base, task, o.memory, budget);
    const auto machine = carry_out(device, files.base, task, o.memory, plan);
    printf("%s, linear layers %s, on %s\n%s", o.model.c_str(), machine->model.linear_format().c_str(), device.name().c_str(),
           brief_plan(plan).c_str());
    fflush(stdout);
    work.pack(plan.choice.eval_tokens);
    std::vector<Measured> all;
    for (size_t i = 0; i < adapters.size(); ++i) {
        if (i > 0) machine->take_up(i);
        all.push_back(measure(*machine, work, names[i]));
    }
    print(all);
    if (!o.json.empty()) save(o.json, all);
    return exit_success;
}

} // namespace finetune
