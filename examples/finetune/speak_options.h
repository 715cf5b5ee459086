// What generate and chat have in common: options, the model with its speaker, Ctrl-C.
#pragma once

#include "chat.h"
#include "loaded.h"
#include "speaker.h"

namespace finetune {

struct SpeakingOptions : CommonOptions {
    AdapterOptions adapters;
    SamplingOptions sampling;
    MemoryOptions memory;
    std::string chat_template = "auto", system;
    std::vector<std::string> stops;
    uint64_t most_tokens = 0;
    uint32_t context = 0; // 0: the model's, at most usual_context
    bool no_template = false;
};

void add_speaking_options(CLI::App &app, SpeakingOptions &options);
void check_speaking_options(const SpeakingOptions &options);

// The files of a model, then the model on its device.
class Speaking {
public:
    explicit Speaking(const SpeakingOptions &options); // which outlive it

    uint32_t most_context() const; // as the options or the model have it
    // Takes memory for `context` tokens or, where it is short and the options name none, fewer, but not less than least_context.
    void load(uint32_t context, uint32_t least_context);
    uint32_t context() const { return machine_->decoder->context(); }

    LoadedFiles files;
    std::unique_ptr<ChatTemplate> chat; // null: text as it is
    SpeakOptions speak;
    // From load() on.
    std::unique_ptr<Device> device;
    MemoryPlan plan;

private:
    const SpeakingOptions &options_;
    std::vector<TunedAdapter> adapters_;
    std::unique_ptr<Machine> machine_;

public:
    std::unique_ptr<Speaker> speaker;
};

// Between begin_answer() and end_answer(), Ctrl-C ends the answer instead of the program.
void begin_answer();
void end_answer();
bool answer_interrupted();

} // namespace finetune
