#include "evaluate.h"

namespace finetune {

std::vector<Batch> pack_rows(const std::vector<Row> &rows, uint64_t tokens) {
    std::vector<Batch> batches;
    for (const Row &row : rows) {
        if (batches.empty() || batches.back().tokens() + row.tokens() > tokens) batches.emplace_back();
        batches.back().add(row);
    }
    return batches;
}

std::vector<Batch> pack_windows(const std::vector<int32_t> &ids, uint32_t window, uint64_t tokens) {
    std::vector<Batch> batches;
    for (size_t start = 0; start + window <= ids.size(); start += window) {
        if (batches.empty() || batches.back().tokens() + window > tokens) batches.emplace_back();
        batches.back().add(&ids[start], window, 1);
    }
    return batches;
}

double mean_loss(Network &network, const std::vector<Batch> &batches) {
    double sum = 0;
    uint64_t count = 0;
    for (const Batch &batch : batches) {
        sum += network.evaluate(batch);
        count += batch.losses();
    }
    return count == 0 ? 0 : sum / double(count);
}

} // namespace finetune
