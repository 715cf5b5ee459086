#include "speak_options.h"

#include "options_memory.h"

#include <CLI/CLI.hpp>
#include <algorithm>
#include <csignal>

namespace finetune {
namespace {

volatile std::sig_atomic_t interrupted = 0;
void note_interrupt(int) { interrupted = 1; }

// auto without a template of the model's own: chat takes the one that the vocabulary speaks for, generate none.
std::unique_ptr<ChatTemplate> template_of(const SpeakingOptions &options, const Tokenizer &tokenizer) {
    if (options.no_template) return nullptr;
    return std::make_unique<ChatTemplate>(options.chat_template, tokenizer);
}

} // namespace

void add_speaking_options(CLI::App &app, SpeakingOptions &o) {
    add_model_options(app, o);
    add_adapter_options(app, o.adapters, false);
    app.add_option("--chat-template", o.chat_template,
                   "how messages are written: auto (the model's own if it has one), model, or by name: " +
                       chat_template_names())
        ->capture_default_str()
        ->group("Text");
    app.add_flag("--no-template", o.no_template, "text as it is, without a chat template")->group("Text");
    app.add_option("--system", o.system, "what the system says before all messages")->group("Text");
    app.add_option("--stop", o.stops, "text that ends an answer and is not shown; may be given several times")
        ->multi_option_policy(CLI::MultiOptionPolicy::TakeAll)
        ->expected(1)
        ->group("Text");
    app.add_option("--tokens", o.most_tokens, "most tokens of an answer; 0: as many as the context holds")
        ->capture_default_str()
        ->group("Text");
    app.add_option("--context", o.context, "tokens of prompt and answers together; default the model's, at most 4096, fewer if memory is short; generate takes no more than "
                   "prompt and --tokens need")
        ->group("Text");
    SamplingOptions &s = o.sampling;
    app.add_option("--temperature", s.temperature, "0 takes the likeliest token; 1 the model's own distribution")
        ->capture_default_str()
        ->group("Sampling");
    app.add_option("--top-k", s.top_k, "of the likeliest K tokens; 0 is all")->capture_default_str()->group("Sampling");
    app.add_option("--top-p", s.top_p, "of the fewest tokens that together have this probability; 1 is all")
        ->capture_default_str()
        ->group("Sampling");
    app.add_option("--min-p", s.min_p, "of tokens with at least this share of the likeliest one's probability; 0 is all")
        ->capture_default_str()
        ->group("Sampling");
    app.add_option("--repetition-penalty", s.repetition_penalty, "above 1 recent tokens are less likely; 1 is off")
        ->capture_default_str()
        ->group("Sampling");
    app.add_option("--repetition-last", s.repetition_last, "how many tokens are recent")
        ->capture_default_str()
        ->group("Sampling");
    app.add_option("--seed", s.seed, "of random draws: the same seed gives the same text")
        ->capture_default_str()
        ->group("Sampling");
    add_device_options(app, o);
    add_memory_options(app, o.memory, MemoryUse::speech);
}

void check_speaking_options(const SpeakingOptions &o) {
    check_range("--temperature", o.sampling.temperature, 0, 100);
    check_range("--top-p", o.sampling.top_p, 0, 1);
    check_range("--min-p", o.sampling.min_p, 0, 1);
    check_range("--repetition-penalty", o.sampling.repetition_penalty, 0.01, 100);
    check_range("--threads", o.threads, 0, 1024);
    check_range("--context", o.context, 0, 1 << 24);
    check_range("--prompt-tokens", double(o.memory.prompt_tokens.value_or(1)), 1, 1 << 20);
    o.precision();
}

Speaking::Speaking(const SpeakingOptions &o)
    : files(o, o.adapters, true), chat(template_of(o, *files.tokenizer)), options_(o) {
    const uint32_t most = files.base.shape().context;
    if (o.context > most) fail("--context ", o.context, ": more than the model's context length ", most);
    speak.most_tokens = o.most_tokens;
    speak.stops = o.stops;
    if (chat) speak.stop_tokens = chat->turn_end_tokens();
    for (int32_t id : {files.base.end_token(), files.tokenizer->end_token(), files.tokenizer->turn_end_token()})
        if (id >= 0) speak.stop_tokens.push_back(id);
}

uint32_t Speaking::most_context() const {
    return options_.context > 0 ? options_.context : std::min(files.base.shape().context, usual_context);
}

void Speaking::load(uint32_t context, uint32_t least_context) {
    device = std::make_unique<Device>(options_.device, options_.threads);
    MemoryOptions memory = options_.memory;
    const Budget budget = find_budget(*device, memory);
    if (options_.context > 0) memory.context = context;
    adapters_.push_back(files.tuned(files.all()));
    Task task = untrained_task(options_, adapters_);
    task.context = context;
    task.least_context = least_context;
    plan = make_plan(*device, files.base, task, memory, budget);
    machine_ = carry_out(*device, files.base, task, memory, plan);
    speaker = std::make_unique<Speaker>(*machine_->decoder, *files.tokenizer, options_.sampling);
}

void begin_answer() {
    interrupted = 0;
    std::signal(SIGINT, note_interrupt);
}
void end_answer() { std::signal(SIGINT, SIG_DFL); }
bool answer_interrupted() { return interrupted != 0; }

} // namespace finetune
