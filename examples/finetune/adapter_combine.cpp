// Several adapters as one.
#include "adapter_file.h"
#include "low_rank.h"

#include <algorithm>
#include <cmath>

namespace finetune {
namespace {

// Modules that occur, in order of first appearance, each with its pair in every adapter, or null.
std::vector<std::vector<const LoraPair *>> side_by_side(const std::vector<AdapterFile> &adapters) {
    std::vector<std::vector<const LoraPair *>> rows;
    std::map<std::string, size_t> places;
    for (size_t i = 0; i < adapters.size(); ++i) {
        if (adapters[i].kind != adapters[0].kind) fail("internal: adapters of two kinds are combined");
        for (const LoraPair &pair : adapters[i].pairs) {
            const auto [found, added] = places.emplace(pair.module, rows.size());
            if (added) rows.emplace_back(adapters.size());
            std::vector<const LoraPair *> &row = rows[found->second];
            for (const LoraPair *other : row)
                if (other != nullptr && (other->inputs != pair.inputs || other->outputs != pair.outputs))
                    adapters[i].reject(shown(pair.module), " is ", pair.outputs, " x ", pair.inputs, ", in another adapter ",
                                       other->outputs, " x ", other->inputs, "; they are not of the same base");
            row[i] = &pair;
        }
    }
    return rows;
}

AdapterFile begin(const std::vector<AdapterFile> &adapters) {
    AdapterFile out;
    out.path = "combined adapter";
    out.kind = adapters[0].kind;
    out.architecture = adapters[0].architecture;
    for (const AdapterFile &adapter : adapters) {
        if (adapter.architecture != out.architecture)
            adapter.reject("the adapter is for architecture ", shown(adapter.architecture), ", another one for ",
                           shown(out.architecture));
        out.whole_layers = out.whole_layers || adapter.whole_layers;
    }
    return out;
}

// The scale that all pairs of a training adapter share: that of the first which counts.
double common_scale(const std::vector<LoraPair> &pairs) {
    double scale = pairs.empty() ? 1 : 0;
    for (const LoraPair &pair : pairs)
        if (scale == 0) scale = pair.scale;
    return scale;
}

// The first ranks of a wider pair become those of `pair`, B times a factor.
void put_ranks(AdapterPair &to, uint64_t rank, const LoraPair &pair, double factor) {
    std::copy(pair.a.begin(), pair.a.end(), to.a.begin());
    for (uint64_t o = 0; o < pair.outputs; ++o)
        for (uint64_t k = 0; k < pair.rank; ++k)
            to.b[o * rank + k] = float(factor * double(pair.b[o * pair.rank + k]));
}

} // namespace

AdapterFile concatenate(const std::vector<AdapterFile> &adapters, const std::vector<double> &weights) {
    AdapterFile out = begin(adapters);
    for (const std::vector<const LoraPair *> &row : side_by_side(adapters)) {
        LoraPair sum;
        bool first = true, equal = true; // one factor for all is kept beside; others go into B
        for (size_t i = 0; i < row.size(); ++i) {
            if (row[i] == nullptr) continue;
            const double factor = weights[i] * row[i]->scale;
            equal = equal && (first || factor == sum.scale);
            if (first) sum = LoraPair{row[i]->module, 0, row[i]->inputs, row[i]->outputs, factor, {}, {}, "F32", "F32"};
            first = false;
            sum.rank += row[i]->rank;
            sum.a.insert(sum.a.end(), row[i]->a.begin(), row[i]->a.end());
        }
        if (!equal) sum.scale = 1;
        sum.b.resize(sum.outputs * sum.rank);
        uint64_t start = 0; // column of B
        for (size_t i = 0; i < row.size(); ++i) {
            if (row[i] == nullptr) continue;
            const LoraPair &pair = *row[i];
            for (uint64_t o = 0; o < pair.outputs; ++o)
                for (uint64_t k = 0; k < pair.rank; ++k) {
                    const float value = pair.b[o * pair.rank + k];
                    sum.b[o * sum.rank + start + k] = equal ? value : float(weights[i] * pair.scale * double(value));
                }
            start += pair.rank;
        }
        out.pairs.push_back(std::move(sum));
    }
    return out;
}

AdapterFile combine_linear(const std::vector<AdapterFile> &adapters, const std::vector<double> &weights) {
    AdapterFile out = begin(adapters);
    for (const std::vector<const LoraPair *> &row : side_by_side(adapters)) {
        LoraPair sum;
        for (size_t i = 0; i < row.size(); ++i) {
            if (row[i] == nullptr) continue;
            const LoraPair &pair = *row[i];
            if (sum.rank == 0) {
                sum = {pair.module, pair.rank, pair.inputs, pair.outputs, 1, {}, {}, "F32", "F32"};
                sum.a.resize(pair.a.size());
                sum.b.resize(pair.b.size());
            }
            if (pair.rank != sum.rank)
                adapters[i].reject(shown(pair.module), " has rank ", pair.rank, ", in another adapter ", sum.rank,
                                   "; --type linear needs equal ranks, the default does not");
            const double factor = weights[i] * pair.scale, root = std::sqrt(std::abs(factor));
            for (size_t k = 0; k < pair.a.size(); ++k) sum.a[k] += float((factor < 0 ? -root : root) * double(pair.a[k]));
            for (size_t k = 0; k < pair.b.size(); ++k) sum.b[k] += float(root * double(pair.b[k]));
        }
        out.pairs.push_back(std::move(sum));
    }
    return out;
}

double compress(AdapterFile &adapter, uint64_t rank) {
    double lost = 0, all = 0;
    for (LoraPair &pair : adapter.pairs) {
        LowRank product = {pair.outputs, pair.inputs, pair.rank, {pair.b.begin(), pair.b.end()}, {pair.a.begin(), pair.a.end()}};
        for (double &value : product.b) value *= pair.scale;
        std::vector<double> singular;
        const LowRank nearest = nearest_of_rank(product, rank, &singular);
        for (size_t i = 0; i < singular.size(); ++i) {
            all += singular[i] * singular[i];
            if (i >= rank) lost += singular[i] * singular[i];
        }
        pair.b.assign(nearest.b.begin(), nearest.b.end());
        pair.a.assign(nearest.a.begin(), nearest.a.end());
        pair.rank = rank;
        pair.scale = 1;
        pair.dtype_a = pair.dtype_b = "F32";
    }
    return all == 0 ? 0 : std::sqrt(lost / all);
}

Adapter starting_adapter(AdapterFile file, const BaseModel &base, const AdapterShape &shape, Adapter fresh) {
    convert_adapter(file, AdapterKind::gguf, base);
    std::map<std::string, size_t> places;
    for (size_t i = 0; i < shape.pairs(); ++i) places.emplace(shape.gguf_name(i), i);
    const double scale = common_scale(file.pairs);
    fresh.alpha = float(scale * double(shape.rank));
    for (const LoraPair &pair : file.pairs) {
        const auto found = places.find(pair.module + ".weight");
        if (found == places.end())
            file.reject(shown(pair.module), " has a LoRA there, but --targets leaves that layer out");
        if (pair.rank > shape.rank)
            file.reject(shown(pair.module), " has rank ", pair.rank, "; give --rank ", pair.rank, " or more");
        AdapterPair &to = fresh.pairs[found->second];
        std::fill(to.b.begin(), to.b.end(), 0.0f);
        put_ranks(to, shape.rank, pair, pair.scale == scale ? 1 : pair.scale / scale);
        shape.to_base(to.b, found->second, shape.rank, false);
    }
    return fresh;
}

Adapter device_adapter(const std::vector<AdapterFile> &adapters, const std::vector<double> &weights,
                       const BaseModel &base, AdapterShape *shape) {
    std::vector<AdapterFile> converted = adapters;
    for (AdapterFile &one : converted) convert_adapter(one, AdapterKind::gguf, base);
    AdapterFile sum = converted.empty() ? AdapterFile() : concatenate(converted, weights);
    const uint64_t rank = std::max<uint64_t>(1, sum.most_rank());
    const double scale = common_scale(sum.pairs);
    *shape = base.shape().adapter_shape(uint32_t(rank));
    Adapter out;
    out.alpha = float(scale * double(rank));
    std::map<std::string, const LoraPair *> pairs;
    for (const LoraPair &pair : sum.pairs) pairs.emplace(pair.module, &pair);
    for (const Module &module : base_modules(base)) {
        AdapterPair one = {module.inputs, module.outputs, std::vector<float>(rank * module.inputs),
                           std::vector<float>(module.outputs * rank)};
        const auto found = pairs.find(module.gguf);
        if (found != pairs.end()) {
            const LoraPair &pair = *found->second;
            put_ranks(one, rank, pair, scale == 0 ? 0 : pair.scale / scale);
        }
        shape->to_base(one.b, out.pairs.size(), rank, false);
        out.pairs.push_back(std::move(one));
    }
    return out;
}

} // namespace finetune
