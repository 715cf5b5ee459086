#include "speaker.h"

#include "utf8.h"

#include <algorithm>

namespace finetune {
namespace {

// Bytes at the end of a text that are the beginning of a character.
size_t cut_character(const std::string &text) {
    for (size_t back = 1; back <= std::min<size_t>(3, text.size()); ++back) {
        const auto byte = static_cast<unsigned char>(text[text.size() - back]);
        if ((byte & 0xc0) == 0x80) continue;
        const size_t whole = byte >= 0xf0 && byte <= 0xf4 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc2 ? 2 : 1;
        return byte <= 0xf4 && whole > back ? back : 0;
    }
    return 0;
}

std::string repaired(std::string_view text) {
    std::string out;
    for (size_t i = 0; i < text.size();) {
        uint32_t code = 0;
        const size_t bytes = read_character(text, i, &code);
        if (bytes == 0) out += "\xef\xbf\xbd";
        else out += text.substr(i, bytes);
        i += std::max<size_t>(bytes, 1);
    }
    return out;
}

} // namespace

std::string TextStream::add(std::string_view piece) {
    if (stopped_) return "";
    held_ += piece;
    size_t end = std::string::npos;
    for (const std::string &stop : stops_) end = std::min(end, stop.empty() ? std::string::npos : held_.find(stop));
    if (end != std::string::npos) {
        stopped_ = true;
        const std::string text = repaired(std::string_view(held_).substr(0, end));
        held_.clear();
        return text;
    }
    size_t back = cut_character(held_);
    for (const std::string &stop : stops_)
        for (size_t bytes = std::min(stop.size() - std::min<size_t>(1, stop.size()), held_.size()); bytes > back; --bytes)
            if (held_.compare(held_.size() - bytes, bytes, stop, 0, bytes) == 0) back = bytes;
    const std::string text = repaired(std::string_view(held_).substr(0, held_.size() - back));
    held_.erase(0, held_.size() - back);
    return text;
}

std::string TextStream::finish() {
    std::string text;
    text.swap(held_);
    return stopped_ ? "" : repaired(text);
}

std::string Speaker::speak(const std::vector<int32_t> &prompt, const SpeakOptions &options, const Show &show,
                           const std::function<bool()> &interrupted, Ended *ended) {
    TextStream stream(options.stops);
    std::string text;
    bool first = options.trim;
    const auto tell = [&](std::string part) {
        if (first && !part.empty()) {
            if (part[0] == ' ') part.erase(0, 1);
            first = false;
        }
        if (part.empty()) return;
        text += part;
        show(part);
    };
    spoken_ = 0;
    const std::vector<float> *logits = &decoder_.set(prompt);
    for (;;) {
        const int32_t token = sampler_.choose(*logits, decoder_.tokens());
        const bool ends = std::find(options.stop_tokens.begin(), options.stop_tokens.end(), token) != options.stop_tokens.end();
        if (!ends) {
            ++spoken_;
            tell(stream.add(tokenizer_.decode({token})));
        }
        if (ends) *ended = Ended::token;
        else if (stream.stopped()) *ended = Ended::stop;
        else if (interrupted()) *ended = Ended::interrupted;
        else if (options.most_tokens > 0 && spoken_ >= options.most_tokens) *ended = Ended::length;
        else if (decoder_.tokens().size() >= decoder_.context()) *ended = Ended::context;
        else {
            logits = &decoder_.append(token);
            continue;
        }
        tell(stream.finish());
        return text;
    }
}

} // namespace finetune
