#include "loaded.h"

#include "data_values.h"
#include "evaluate.h"

namespace finetune {
namespace {

std::pair<AdapterShape, Adapter> make(const LoadedFiles &files, const std::vector<size_t> &which) {
    std::vector<AdapterFile> adapters;
    std::vector<double> weights;
    for (size_t i : which) {
        adapters.push_back(files.adapters[i]);
        weights.push_back(files.weights[i]);
    }
    AdapterShape shape;
    Adapter values = device_adapter(adapters, weights, files.base, &shape);
    return {shape, std::move(values)};
}

} // namespace

LoadedFiles::LoadedFiles(const CommonOptions &options, const AdapterOptions &given, bool needs_text)
    : base(options.model), tokenizer(base.tokenizer(needs_text)), adapters(given.read(&weights)) {
    for (AdapterFile &adapter : adapters) convert_adapter(adapter, adapter.kind, base); // or a message
}

std::vector<size_t> LoadedFiles::all() const {
    std::vector<size_t> numbers;
    for (size_t i = 0; i < adapters.size(); ++i) numbers.push_back(i);
    return numbers;
}

LoadedAdapter::LoadedAdapter(Device &device, const LoadedFiles &files, const std::vector<size_t> &which)
    : LoadedAdapter(device, make(files, which)) {}

LoadedAdapter::LoadedAdapter(Device &device, std::pair<AdapterShape, Adapter> made)
    : shape(made.first), values(std::move(made.second)), trainable(device, shape, values) {}

std::vector<Batch> perplexity_windows(const LoadedFiles &files, const std::string &text, const std::string &token_ids,
                                      uint32_t window, uint64_t most, uint64_t tokens_at_once) {
    if (text.empty() && token_ids.empty()) return {};
    const ModelShape &shape = files.base.shape();
    const std::string &source = text.empty() ? token_ids : text;
    std::vector<int32_t> ids;
    if (text.empty()) {
        ids = read_token_sequence(token_ids, shape.vocabulary);
    } else {
        const MappedFile file(text);
        check_text(file.text(), file.path());
        ids = files.tokenizer->encode(file.text());
    }
    if (most > 0 && most < ids.size()) ids.resize(most);
    if (window > shape.context) fail("--window ", window, ": more than the model's context length ", shape.context);
    if (ids.size() < window) fail(source, ": ", ids.size(), " tokens, fewer than one window of ", window, "; lower --window");
    return pack_windows(ids, window, tokens_at_once);
}

Model load_model(Device &device, const CommonOptions &options, const BaseModel &base) {
    const FormatChoice choice = options.format();
    if (is_calibrated(choice.format) && !choice.nearest)
        fail("--quant ", options.quant, " is fitted to a text, which only training does; take ", options.quant, "-rtn");
    Model model(device, base, choice.format, choice.block, nullptr, choice.scaled);
    if (choice.integers) model.compute_in_integers(device, usual_threshold);
    return model;
}

} // namespace finetune
