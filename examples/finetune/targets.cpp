#include "targets.h"

#include "error.h"

#include <algorithm>

namespace finetune {
namespace {

const char *const short_names[linear_count] = {"q", "k", "v", "qkv", "o", "gate", "up", "gate_up", "down"};

// Hugging Face's, without its path: "q_proj".
std::string module_name(const AdapterShape &shape, Linear linear) {
    const char *module = shape.traits->module(linear);
    const std::string path = module != nullptr ? module : "";
    return path.substr(path.rfind('.') == std::string::npos ? 0 : path.rfind('.') + 1);
}

bool is_named(const AdapterShape &shape, Linear linear, const std::string &name) {
    return name == "all" || (name == "attention" && linear <= linear_output) || (name == "feed-forward" && linear > linear_output) ||
           name == short_names[linear] || name == module_name(shape, linear);
}

} // namespace

void choose_targets(AdapterShape &shape, const std::string &names) {
    std::vector<bool> chosen(shape.linears.size());
    std::istringstream list(names);
    for (std::string name; std::getline(list, name, ',');) {
        bool found = false;
        std::string known;
        for (size_t i = 0; i < shape.linears.size(); ++i) {
            const Linear linear = shape.linears[i].use;
            known += std::string(", ") + short_names[linear];
            if (!is_named(shape, linear, name)) continue;
            found = chosen[i] = true;
        }
        if (!found) fail("--targets ", shown(name), ": this model's linear layers are all, attention, feed-forward", known);
    }
    std::vector<AdapterLinear> kept;
    for (size_t i = 0; i < chosen.size(); ++i)
        if (chosen[i]) kept.push_back(shape.linears[i]);
    if (kept.empty()) fail("--targets ", shown(names), ": names no linear layer; give all, attention, or q,v and so on");
    shape.linears = kept;
}

} // namespace finetune
