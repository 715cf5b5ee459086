#include "loaded.h"

#include "data_values.h"
#include "evaluate.h"

namespace finetune {
LoadedFiles::LoadedFiles(const CommonOptions &options, const AdapterOptions &given, bool needs_text)
    : base(options.model), tokenizer(base.tokenizer(needs_text)), adapters(given.read(&weights)) {
    for (AdapterFile &adapter : adapters) convert_adapter(adapter, adapter.kind, base); // or a message
}

std::vector<size_t> LoadedFiles::all() const {
    std::vector<size_t> numbers;
    for (size_t i = 0; i < adapters.size(); ++i) numbers.push_back(i);
    return numbers;
}

TunedAdapter LoadedFiles::tuned(const std::vector<size_t> &which) const {
    std::vector<AdapterFile> some;
    std::vector<double> shares;
    for (size_t i : which) {
        some.push_back(adapters[i]);
        shares.push_back(weights[i]);
    }
    TunedAdapter tuned;
    tuned.values = device_adapter(some, shares, base, &tuned.shape);
    return tuned;
}

Task untrained_task(const CommonOptions &options, const std::vector<TunedAdapter> &adapters) {
    const FormatChoice choice = options.format();
    if (is_calibrated(choice.format) && !choice.nearest)
        fail("--quant ", options.quant, " is fitted to a text, which only training does; take ", options.quant, "-rtn");
    Task task;
    task.training = false;
    task.model.format = choice.format;
    task.model.block = choice.block;
    task.model.scaled = choice.scaled;
    task.integers = choice.integers;
    task.precision = options.precision();
    task.adapter_shape = adapters[0].shape;
    task.initial = &adapters[0].values;
    task.alpha = adapters[0].values.alpha;
    for (size_t i = 1; i < adapters.size(); ++i) task.others.push_back(&adapters[i]);
    return task;
}

std::vector<int32_t> perplexity_tokens(const LoadedFiles &files, const std::string &text, const std::string &token_ids, uint32_t window,
                                       uint64_t most) {
    if (text.empty() && token_ids.empty()) return {};
    const ModelShape &shape = files.base.shape();
    const std::string &source = text.empty() ? token_ids : text;
    if (window > shape.context) fail("--window ", window, ": more than the model's context length ", shape.context);
    std::vector<int32_t> ids;
    if (text.empty()) {
        ids = read_token_sequence(token_ids, shape.vocabulary);
    } else {
        const MappedFile file(text);
        check_text(file.text(), file.path());
        ids = files.tokenizer->encode(file.text());
    }
    if (most > 0 && most < ids.size()) ids.resize(most);
    if (ids.size() < window) fail(source, ": ", ids.size(), " tokens, fewer than one window of ", window, "; lower --window");
    return ids;
}

} // namespace finetune
