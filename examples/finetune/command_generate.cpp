// qlora-finetune generate
#include "commands.h"
#include "speak_options.h"

#include <chrono>
#include <cstdio>
#include <iostream>
#include <iterator>

namespace finetune {
namespace {

const char *const about =
    "Continues a prompt, from --prompt, --prompt-file or standard input. Where the model has a chat template, or one is named, "
    "the prompt is a user's message and the continuation its answer; --no-template takes it as it is.\n";

const char *const examples =
    "  qlora-finetune generate --model base.gguf --adapter adapter.gguf --prompt \"Date: 3 May 2021\"\n"
    "  qlora-finetune generate --model base.gguf --temperature 0.8 --seed 7 --tokens 200 < story.txt\n"
    "  qlora-finetune generate --model 33b.gguf --memory 7.4GB --compute bf16 --tokens 50 --prompt \"Once upon a time\"\n";

std::string read_all(std::istream &in) { return {std::istreambuf_iterator<char>(in), {}}; }

} // namespace

int command_generate(int argc, char **argv) {
    SpeakingOptions options;
    std::string prompt, prompt_file;
    bool quiet = false;
    CommandApp app("generate", about, examples);
    add_speaking_options(app, options);
    app.add_option("--prompt", prompt, "the prompt")->group("Files");
    app.add_option("--prompt-file", prompt_file, "a file that holds the prompt; - is standard input")->group("Files");
    app.add_flag("--quiet", quiet, "only the text, no line about speed")->group("Text");
    if (!app.read(argc, argv)) return exit_success;
    check_speaking_options(options);
    if (app.given("--prompt") && app.given("--prompt-file")) fail("--prompt and --prompt-file: give one of them");
    if (!prompt_file.empty() && prompt_file != "-") {
        const MappedFile file(prompt_file);
        prompt = std::string(file.text());
    } else if (!app.given("--prompt")) {
        prompt = read_all(std::cin);
    }

    Speaking speaking(options);
    const Tokenizer &tokenizer = *speaking.files.tokenizer;
    // A model without a template of its own continues text, unless one was named.
    const bool named = options.chat_template != "auto";
    const bool chats = speaking.chat && (named || !tokenizer.chat_template().empty());
    if (!options.system.empty() && !chats) fail("--system needs a chat template: name one with --chat-template");
    std::vector<int32_t> ids;
    if (chats) {
        std::vector<Message> messages;
        if (!options.system.empty()) messages.push_back({"system", options.system});
        messages.push_back({"user", prompt});
        ids = speaking.chat->prompt(messages);
    } else {
        ids = tokenizer.encode(prompt);
        if (tokenizer.adds_begin()) ids.insert(ids.begin(), tokenizer.begin_token());
    }
    if (ids.empty()) fail("the prompt is empty; give --prompt");
    const uint32_t most = speaking.most_context();
    if (ids.size() >= most)
        fail("the prompt has ", ids.size(), " tokens, the context ", most, "; shorten it, or raise --context up to the model's ",
             speaking.files.base.shape().context);
    // The answer's last token is read by none.
    const uint64_t whole = options.most_tokens == 0 ? most : std::min<uint64_t>(most, ids.size() + std::min<uint64_t>(options.most_tokens, most));
    speaking.load(uint32_t(whole), uint32_t(options.most_tokens == 0 ? ids.size() + 1 : whole));
    if (!quiet) fputs(brief_plan(speaking.plan).c_str(), stderr);

    begin_answer();
    const auto start = std::chrono::steady_clock::now();
    Ended ended = Ended::token;
    speaking.speaker->speak(
        ids, speaking.speak,
        [](const std::string &text) {
            fwrite(text.data(), 1, text.size(), stdout);
            fflush(stdout);
        },
        answer_interrupted, &ended);
    end_answer();
    const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    printf("\n");
    fflush(stdout);
    if (!quiet)
        fprintf(stderr, "%zu tokens of prompt, %llu of answer%s, %.1f tokens/s on %s\n", ids.size(),
                static_cast<unsigned long long>(speaking.speaker->spoken()),
                ended == Ended::context  ? " up to the end of the context"
                : ended == Ended::length ? " up to --tokens"
                                         : "",
                double(speaking.speaker->spoken() + ids.size()) / seconds, speaking.device->name().c_str());
    return ended == Ended::interrupted ? exit_interrupted : exit_success;
}

} // namespace finetune
