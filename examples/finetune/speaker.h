// A model that speaks: tokens one by one as text that is whole characters, up to a token that ends the answer.
#pragma once

#include "decoder.h"
#include "sampler.h"
#include "tokenizer.h"

namespace finetune {

// Text that becomes known piece by piece. What could still be the beginning of a character or of a stop text is held
// back.
class TextStream {
public:
    explicit TextStream(std::vector<std::string> stops) : stops_(std::move(stops)) {}

    std::string add(std::string_view piece); // what can be shown now
    std::string finish();                    // the rest; bytes that are no characters become U+FFFD
    bool stopped() const { return stopped_; } // at a stop text, which is not shown, nor is what follows it

private:
    std::vector<std::string> stops_;
    std::string held_;
    bool stopped_ = false;
};

enum class Ended { token, stop, length, context, interrupted };

struct SpeakOptions {
    uint64_t most_tokens = 0; // 0: as many as the context holds
    std::vector<std::string> stops;
    std::vector<int32_t> stop_tokens;
    bool trim = false; // the space that begins a text
};

class Speaker {
public:
    using Show = std::function<void(const std::string &)>;
    Speaker(Decoder &decoder, const Tokenizer &tokenizer, const SamplingOptions &sampling)
        : decoder_(decoder), tokenizer_(tokenizer), sampler_(sampling) {}

    // Continues `prompt`, shows text as it comes, and returns it as a whole. interrupted: asked after each token.
    std::string speak(const std::vector<int32_t> &prompt, const SpeakOptions &options, const Show &show,
                      const std::function<bool()> &interrupted, Ended *ended);
    uint64_t spoken() const { return spoken_; } // tokens of the last answer

private:
    Decoder &decoder_;
    const Tokenizer &tokenizer_;
    Sampler sampler_;
    uint64_t spoken_ = 0;
};

} // namespace finetune
