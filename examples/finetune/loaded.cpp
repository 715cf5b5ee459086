#include "loaded.h"

namespace finetune {
namespace {

std::pair<AdapterShape, Adapter> make(const LoadedFiles &files, bool with_adapters) {
    AdapterShape shape;
    Adapter values = with_adapters ? device_adapter(files.adapters, files.weights, files.base, &shape)
                                   : device_adapter({}, {}, files.base, &shape);
    return {shape, std::move(values)};
}

} // namespace

LoadedFiles::LoadedFiles(const CommonOptions &options, const AdapterOptions &given, bool needs_text)
    : base(options.model), tokenizer(base.tokenizer(needs_text)), adapters(given.read(&weights)) {
    for (AdapterFile &adapter : adapters) convert_adapter(adapter, adapter.kind, base); // or a message
}

LoadedAdapter::LoadedAdapter(Device &device, const LoadedFiles &files, bool with_adapters)
    : LoadedAdapter(device, make(files, with_adapters)) {}

LoadedAdapter::LoadedAdapter(Device &device, std::pair<AdapterShape, Adapter> made)
    : shape(made.first), values(std::move(made.second)), trainable(device, shape, values) {}

Model load_model(Device &device, const CommonOptions &options, const BaseModel &base) {
    const FormatChoice choice = options.format();
    if (is_calibrated(choice.format) && !choice.nearest)
        fail("--quant ", options.quant, " is fitted to a text, which only training does; take ", options.quant, "-rtn");
    Model model(device, base, choice.format, choice.block, nullptr, choice.scaled);
    if (choice.integers) model.compute_in_integers(device, usual_threshold);
    return model;
}

} // namespace finetune
