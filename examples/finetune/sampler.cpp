#include "sampler.h"

#include "error.h"

#include <algorithm>
#include <cmath>

namespace finetune {

int32_t Sampler::choose(const std::vector<float> &given, const std::vector<int32_t> &recent) {
    for (float logit : given)
        if (std::isnan(logit)) fail("the model computes values that are not numbers; choose --compute f32, or another --device");
    const std::vector<float> *logits = &given;
    if (options_.repetition_penalty != 1) {
        penalized_ = given;
        const size_t first = recent.size() - std::min<size_t>(recent.size(), options_.repetition_last);
        for (size_t i = first; i < recent.size(); ++i) {
            const size_t id = size_t(recent[i]);
            const float penalty = float(options_.repetition_penalty);
            penalized_[id] = given[id] > 0 ? given[id] / penalty : given[id] * penalty; // once, however often it occurs
        }
        logits = &penalized_;
    }
    if (options_.temperature <= 0)
        return static_cast<int32_t>(std::max_element(logits->begin(), logits->end()) - logits->begin());

    candidates_.clear();
    for (size_t i = 0; i < logits->size(); ++i) candidates_.emplace_back((*logits)[i], static_cast<int32_t>(i));
    const auto better = [](const std::pair<float, int32_t> &a, const std::pair<float, int32_t> &b) {
        return a.first != b.first ? a.first > b.first : a.second < b.second;
    };
    const size_t most = options_.top_k == 0 ? candidates_.size() : std::min<size_t>(options_.top_k, candidates_.size());
    std::partial_sort(candidates_.begin(), candidates_.begin() + long(most), candidates_.end(), better);
    candidates_.resize(most);

    const double top = double(candidates_[0].first);
    double sum = 0;
    for (const auto &[logit, id] : candidates_) sum += std::exp(double(logit) - top);
    size_t kept = 0;
    for (double before = 0; kept < candidates_.size(); ++kept) {
        const double weight = std::exp(double(candidates_[kept].first) - top);
        if (kept > 0 && (before >= options_.top_p * sum || weight < options_.min_p)) break;
        before += weight;
    }
    double total = 0;
    for (size_t i = 0; i < kept; ++i) total += std::exp((double(candidates_[i].first) - top) / options_.temperature);
    double left = double(random_.next_uniform()) * total;
    for (size_t i = 0; i < kept; ++i) {
        left -= std::exp((double(candidates_[i].first) - top) / options_.temperature);
        if (left < 0) return candidates_[i].second;
    }
    return candidates_[kept - 1].second;
}

} // namespace finetune
