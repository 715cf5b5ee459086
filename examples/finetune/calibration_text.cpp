#include "calibrate.h"
#include "data_values.h"

namespace finetune {
namespace {

const uint64_t most_text = 4 << 20;
const uint32_t usual_window = 512;

bool has(const std::string &text, const char *part) { return text.find(part) != std::string::npos; }

bool ends_with(const std::string &text, const std::string &ending) {
    return text.size() > ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

std::vector<int32_t> joined(const Dataset &data) {
    std::vector<int32_t> ids;
    for (const Row &row : data.rows) {
        ids.insert(ids.end(), row.prompt.begin(), row.prompt.end());
        ids.insert(ids.end(), row.answer.begin(), row.answer.end());
    }
    return ids;
}

std::vector<int32_t> read_ids(const std::string &source, const Tokenizer *tokenizer, uint64_t vocabulary) {
    if (has(source, ".safetensors:")) return read_token_sequence(source, vocabulary);
    const DataLimits limits = {UINT64_MAX, vocabulary, TooLong::truncate};
    if (has(source, ".json:")) return joined(read_token_ids(source, limits));
    if (tokenizer == nullptr)
        fail(source, ": the model's tokenizer is not one that this program knows; give token ids for calibration, "
                     "FILE.safetensors:NAME or FILE.json:KEY");
    if (ends_with(source, ".jsonl")) return joined(read_data(source, *tokenizer, limits));
    const MappedFile file(source);
    std::string_view text = file.text();
    check_text(text, source);
    if (text.size() > most_text) text = text.substr(0, text.find_last_of('\n', most_text - 1));
    return tokenizer->encode(text.substr(0, most_text));
}

} // namespace

std::vector<Batch> read_calibration(const std::string &source, const Tokenizer *tokenizer, uint64_t vocabulary,
                                    uint64_t tokens, uint32_t window) {
    const std::vector<int32_t> ids = read_ids(source, tokenizer, vocabulary);
    const uint64_t least = 2; // a loss needs a token to predict
    if (ids.size() < least) fail(source, ": ", ids.size(), " tokens for calibration; expected at least ", least);
    window = static_cast<uint32_t>(std::min<uint64_t>({window, ids.size(), std::max(tokens, least)}));
    const uint64_t have = ids.size() / window, count = std::max<uint64_t>(1, std::min(have, tokens / window));
    std::vector<Batch> windows(count);
    for (uint64_t i = 0; i < count; ++i) windows[i].add(&ids[i * have / count * window], window, 1);
    return windows;
}

std::vector<Batch> calibration_windows(const std::string &source, uint64_t tokens, const BaseModel &base) {
    const ModelShape &shape = base.shape();
    const std::unique_ptr<Tokenizer> tokenizer = base.tokenizer(false);
    const uint32_t window = std::min(usual_window, shape.context);
    return read_calibration(source, tokenizer.get(), shape.vocabulary, tokens, window);
}

} // namespace finetune
