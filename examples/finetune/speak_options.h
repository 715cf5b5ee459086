// What generate and chat have in common: options, the model with its speaker, Ctrl-C.
#pragma once

#include "chat.h"
#include "loaded.h"
#include "speaker.h"

namespace finetune {

struct SpeakingOptions : CommonOptions {
    AdapterOptions adapters;
    SamplingOptions sampling;
    std::string chat_template = "auto", system;
    std::vector<std::string> stops;
    uint64_t most_tokens = 0;
    uint32_t context = 0; // 0: the model's, at most usual_context
    bool no_template = false;
};

const uint32_t usual_context = 4096, tokens_at_once = 256;

void add_speaking_options(CLI::App &app, SpeakingOptions &options);
void check_speaking_options(const SpeakingOptions &options);

// The model on its device.
class Speaking {
public:
    explicit Speaking(const SpeakingOptions &options);

    LoadedFiles files;
    std::unique_ptr<ChatTemplate> chat; // null: text as it is
    Device device;
    Model model;
    LoadedAdapter adapter;
    Decoder decoder;
    Speaker speaker;
    SpeakOptions speak;
};

// Between begin_answer() and end_answer(), Ctrl-C ends the answer instead of the program.
void begin_answer();
void end_answer();
bool answer_interrupted();

} // namespace finetune
