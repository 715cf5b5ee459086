#include "evaluate.h"

#include <algorithm>

namespace finetune {
namespace {

const uint32_t most_at_once = 32;

} // namespace

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

BatchBounds bounds_of(const std::vector<Batch> &batches) {
    BatchBounds bounds;
    for (const Batch &batch : batches) bounds.include(batch);
    return bounds;
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

Generator answer_generator(Device &device, const Model &model, const Trainable &adapter, const Precision &precision,
                           const std::vector<Row> &rows, uint32_t count, uint64_t tokens) {
    uint32_t longest_prompt = 1, longest_answer = 1;
    for (uint32_t i = 0; i < count; ++i) {
        longest_prompt = std::max(longest_prompt, uint32_t(rows[i].prompt.size()));
        longest_answer = std::max(longest_answer, uint32_t(rows[i].first_answer().size()));
    }
    const uint64_t at_once = std::min({std::max<uint64_t>(1, tokens / longest_prompt), uint64_t(most_at_once), uint64_t(count)});
    return Generator(device, model, adapter, precision, uint32_t(at_once), longest_prompt, longest_answer + 1);
}

std::vector<std::vector<int32_t>> answer_rows(Generator &generator, const std::vector<Row> &rows, uint32_t count,
                                              int32_t end_token) {
    std::vector<std::vector<int32_t>> answers;
    for (uint32_t first = 0; first < count; first += generator.count()) {
        std::vector<std::vector<int32_t>> prompts;
        for (uint32_t i = first; i < std::min(first + generator.count(), count); ++i) prompts.push_back(rows[i].prompt);
        for (std::vector<int32_t> &answer : generator.generate(prompts, end_token)) answers.push_back(std::move(answer));
    }
    return answers;
}

bool is_right(const Row &row, const std::vector<int32_t> &answer, const Tokenizer *tokenizer, int32_t end_token) {
    std::vector<int32_t> expected = row.first_answer();
    if (!expected.empty() && expected.back() == end_token) expected.pop_back();
    return answer == expected || (tokenizer != nullptr && tokenizer->decode(answer) == tokenizer->decode(expected));
}

} // namespace finetune
