// qlora-finetune chat
#include "commands.h"
#include "speak_options.h"

#include <cstdio>
#include <iostream>
#ifdef _WIN32
#include <io.h>
#define isatty _isatty
#define fileno _fileno
#else
#include <unistd.h>
#endif

namespace finetune {
namespace {

const char *const about = "Talks with a model and its adapters: a line is a message. In a terminal, /reset begins anew, /system "
                          "TEXT sets what the system says, /exit ends; Ctrl-C ends an answer. Lines may come from a pipe too: "
                          "then only the answers are written.\n";

const char *const examples =
    "  qlora-finetune chat --model base.gguf --adapter adapter.gguf\n"
    "  printf 'Hello!\\nWhat did I say?\\n' | qlora-finetune chat --model base.gguf --temperature 0\n";

const uint32_t least_context = 512; // of a conversation, where memory is short

class Conversation {
public:
    explicit Conversation(Speaking &speaking) : speaking_(speaking) {}

    void reset(const std::string &system) {
        messages_.clear();
        if (!system.empty()) messages_.push_back({"system", system});
        system_ = !system.empty();
    }

    void say(const std::string &text) {
        messages_.push_back({"user", text});
        const std::vector<int32_t> ids = fitting_prompt();
        begin_answer();
        Ended ended = Ended::token;
        const std::string answer = speaking_.speaker->speak(
            ids, speaking_.speak,
            [](const std::string &part) {
                fwrite(part.data(), 1, part.size(), stdout);
                fflush(stdout);
            },
            answer_interrupted, &ended);
        end_answer();
        printf("\n");
        fflush(stdout);
        if (ended == Ended::context) note("the context of " + std::to_string(speaking_.context()) + " tokens is full; the answer ends here");
        if (answer.empty()) messages_.pop_back(); // templates do not take a message without an answer
        else messages_.push_back({"assistant", answer});
    }

private:
    void note(const std::string &text) const { fprintf(stderr, "(%s)\n", text.c_str()); }

    // Leaves a quarter of the context to the answer: the oldest messages go first, a user's with its answer.
    std::vector<int32_t> fitting_prompt() {
        const size_t most = speaking_.context() - speaking_.context() / 4;
        size_t dropped = 0;
        for (;;) {
            std::vector<int32_t> ids = speaking_.chat->prompt(messages_);
            if (ids.size() <= most) {
                if (dropped > 0) note("the context is full: the oldest " + std::to_string(dropped) + " messages are forgotten");
                return ids;
            }
            const size_t first = system_ ? 1 : 0;
            if (messages_.size() - first < 3) {
                messages_.pop_back();
                fail("the message has ", ids.size(), " tokens with what the template adds, the context has room for ", most,
                     "; shorten it, or raise --context");
            }
            messages_.erase(messages_.begin() + long(first), messages_.begin() + long(first) + 2);
            dropped += 2;
        }
    }

    Speaking &speaking_;
    bool system_ = false;
    std::vector<Message> messages_;
};

} // namespace

int command_chat(int argc, char **argv) {
    SpeakingOptions options;
    options.sampling.temperature = 0.7;
    CommandApp app("chat", about, examples);
    add_speaking_options(app, options);
    if (!app.read(argc, argv)) return exit_success;
    check_speaking_options(options);
    if (options.no_template) fail("--no-template: a chat needs one; use generate for text as it is");

    Speaking speaking(options);
    speaking.speak.trim = true;
    const bool terminal = isatty(fileno(stdin)) != 0;
    speaking.load(speaking.most_context(), least_context);
    if (terminal || !speaking.plan.savings.empty()) fputs(brief_plan(speaking.plan).c_str(), stderr);
    if (terminal)
        fprintf(stderr, "%s on %s, template %s, context %u. /reset, /system TEXT, /exit\n", options.model.c_str(),
                speaking.device->name().c_str(), speaking.chat->name().c_str(), speaking.context());
    Conversation conversation(speaking);
    std::string system = options.system, line;
    conversation.reset(system);
    for (;;) {
        if (terminal) fputs("> ", stderr);
        if (!std::getline(std::cin, line)) break;
        if (!line.empty() && line.back() == '\r') line.pop_back();
        if (line.find_first_not_of(" \t") == std::string::npos) continue;
        if (terminal && line[0] == '/') {
            const std::string word = line.substr(0, line.find(' '));
            if (word == "/exit" || word == "/quit") break;
            if (word == "/reset" || word == "/system") {
                if (word == "/system") system = line.size() > word.size() ? line.substr(word.size() + 1) : "";
                conversation.reset(system);
                continue;
            }
            fprintf(stderr, "(%s is not known: /reset, /system TEXT, /exit)\n", word.c_str());
            continue;
        }
        try {
            conversation.say(line);
        } catch (const Error &error) {
            end_answer();
            if (!terminal) throw;
            fprintf(stderr, "(%s)\n", error.what());
        }
    }
    if (terminal) fputc('\n', stderr);
    return exit_success;
}

} // namespace finetune
