#include "generate.h"

#include <numeric>

namespace finetune {

// Prompts end at the same row of their parts of the cache and begin where their length says. So the keys and values of
// a new token lie at the same row for all prompts, and one strided matrix takes them without any copy.

Generator::Generator(Device &device, const Model &model, const Trainable &adapter, const Precision &precision, uint32_t count,
                     uint32_t longest_prompt, uint32_t most_new)
    : device_(device), model_(model), adapter_(adapter), precision_(precision), count_(count),
      longest_prompt_(longest_prompt), most_new_(most_new) {
    take_spans();
    arena_.commit(device_);
    take_spans();
    host_logits_.resize(uint64_t(count_) * model_.shape().vocabulary);
    device_.measure([&] {
        Pass prompt = make_pass(uint64_t(count_) * longest_prompt_, count_, longest_prompt_, longest_prompt_);
        prefill(prompt, {}, count_);
        Pass next = make_pass(count_, count_, 1, longest_prompt_ + most_new_);
        decode(next, most_new_ - 1, count_);
    });
}

void Generator::take_spans() {
    arena_.section("answers");
    const ModelShape &shape = model_.shape();
    const uint64_t tokens = uint64_t(count_) * longest_prompt_, bytes = type_bytes(precision_.activations);
    const uint64_t width = shape.embedding * bytes, cached = uint64_t(count_) * (longest_prompt_ + most_new_) * bytes;
    space_ = take_block_space(arena_, shape, adapter_.rank(), precision_.activations, tokens);
    for (qlora_span &hidden : hidden_) hidden = arena_.take(tokens * width);
    ids_ = arena_.take(tokens * 4);
    positions_ = arena_.take(tokens * 4);
    sequences_ = arena_.take(uint64_t(count_) * 16);
    rows_ = arena_.take(uint64_t(count_) * 4);
    last_rows_ = arena_.take(uint64_t(count_) * 4);
    logits_ = take_logits_space(arena_, shape, count_);
    arena_.section("keys and values");
    keys_.clear();
    values_.clear();
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
        keys_.push_back(arena_.take(cached * key_width(shape)));
        values_.push_back(arena_.take(cached * value_width(shape)));
    }
}

Pass Generator::make_pass(uint64_t tokens, uint32_t count, uint32_t most_q_rows, uint32_t most_k_rows) {
    Pass pass = {device_, model_, adapter_, precision_, tokens, positions_, sequences_, count, most_q_rows, most_k_rows};
    pass.reach = longest_prompt_ + most_new_;
    return pass;
}

qlora_tensor Generator::cache_rows(qlora_span cache, uint64_t width, uint32_t step, uint32_t count) const {
    if (width == 0) return {};
    const uint64_t rows = longest_prompt_ + most_new_;
    const uint64_t offset = (longest_prompt_ + step) * width * type_bytes(precision_.activations);
    return qlora::tensor(precision_.activations, count, width, part(cache, offset, cache.size - offset), rows * width);
}

qlora_tensor Generator::whole_cache(qlora_span cache, uint64_t width) const {
    if (width == 0) return {};
    return qlora::tensor(precision_.activations, uint64_t(count_) * (longest_prompt_ + most_new_), width, cache);
}

// The last rows of each sequence go to the end of the prompts' part of the cache.
void Generator::keep(qlora_span cache, qlora_span made, uint64_t width, const std::vector<int32_t> &sequences) {
    const uint64_t row_bytes = width * type_bytes(precision_.activations), rows = longest_prompt_ + most_new_;
    for (size_t s = 0; s < sequences.size() / 4; ++s) {
        const uint64_t first = uint64_t(sequences[4 * s]) * row_bytes, bytes = uint64_t(sequences[4 * s + 1]) * row_bytes;
        const uint64_t place = (s * rows + longest_prompt_) * row_bytes - bytes;
        device_.copy(part(cache, place, bytes), part(made, first, bytes), bytes);
    }
}

void Generator::prefill(Pass &pass, const std::vector<int32_t> &sequences, uint32_t count) {
    const ModelShape &shape = model_.shape();
    embed(pass, ids_, hidden_[0]);
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
        model_.bring(device_, layer, true);
        forward_block(pass, layer, space_, hidden_[layer % 2], hidden_[(layer + 1) % 2]);
        keep(keys_[layer], value_width(shape) == 0 ? space_.q : space_.k, key_width(shape), sequences);
        if (value_width(shape) != 0) keep(values_[layer], space_.v, value_width(shape), sequences);
    }
    forward_logits(pass, hidden_[shape.layers % 2], pass.tokens, last_rows_, count, logits_);
}

void Generator::decode(Pass &pass, uint32_t step, uint32_t count) {
    const ModelShape &shape = model_.shape();
    embed(pass, ids_, hidden_[0]);
    for (uint32_t layer = 0; layer < shape.layers; ++layer) {
        model_.bring(device_, layer, true);
        const KeyValueCache cache = {cache_rows(keys_[layer], key_width(shape), step, count),
                                     cache_rows(values_[layer], value_width(shape), step, count),
                                     whole_cache(keys_[layer], key_width(shape)), whole_cache(values_[layer], value_width(shape)),
                                     rows_};
        forward_block(pass, layer, space_, hidden_[layer % 2], hidden_[(layer + 1) % 2], &cache);
    }
    forward_logits(pass, hidden_[shape.layers % 2], pass.tokens, rows_, count, logits_);
}

std::vector<int32_t> Generator::choose(uint32_t count) {
    const uint32_t vocabulary = model_.shape().vocabulary;
    device_.read(logits_.logits, host_logits_.data(), uint64_t(count) * vocabulary * 4);
    cap_logits(model_.shape(), host_logits_);
    std::vector<int32_t> best(count, 0);
    for (uint32_t s = 0; s < count; ++s) {
        const float *logits = &host_logits_[uint64_t(s) * vocabulary];
        for (uint32_t v = 1; v < vocabulary; ++v)
            if (logits[v] > logits[best[s]]) best[s] = static_cast<int32_t>(v);
    }
    return best;
}

std::vector<std::vector<int32_t>> Generator::generate(const std::vector<std::vector<int32_t>> &prompts,
                                                      int32_t end_token) {
    const uint32_t count = static_cast<uint32_t>(prompts.size());
    if (count == 0) return {};
    if (count > count_) fail("internal: ", count, " prompts, but memory for ", count_);
    std::vector<int32_t> ids, positions, sequences, last_rows, rows(count);
    std::iota(rows.begin(), rows.end(), 0);
    device_.write(rows_, rows.data(), rows.size() * 4);
    for (const std::vector<int32_t> &prompt : prompts) {
        if (prompt.empty() || prompt.size() > longest_prompt_)
            fail("internal: a prompt of ", prompt.size(), " tokens was not planned for");
        const int32_t first = static_cast<int32_t>(ids.size()), length = static_cast<int32_t>(prompt.size());
        sequences.insert(sequences.end(), {first, length, first, length});
        for (int32_t i = 0; i < length; ++i) {
            ids.push_back(prompt[i]);
            positions.push_back(i);
        }
        last_rows.push_back(first + length - 1);
    }
    device_.write(ids_, ids.data(), ids.size() * 4);
    device_.write(positions_, positions.data(), positions.size() * 4);
    device_.write(sequences_, sequences.data(), sequences.size() * 4);
    device_.write(last_rows_, last_rows.data(), last_rows.size() * 4);
    Pass prompt_pass = make_pass(ids.size(), count, longest_prompt_, longest_prompt_);
    prompt_pass.host_ids = ids.data();
    prefill(prompt_pass, sequences, count);

    std::vector<std::vector<int32_t>> answers(count);
    std::vector<bool> done(count, false);
    uint32_t open = count;
    Pass pass = make_pass(count, count, 1, longest_prompt_ + most_new_);
    for (uint32_t step = 0;; ++step) {
        const std::vector<int32_t> next = choose(count);
        for (uint32_t s = 0; s < count; ++s) {
            if (done[s]) continue;
            done[s] = next[s] == end_token;
            if (done[s]) --open;
            else answers[s].push_back(next[s]);
        }
        if (open == 0 || step + 1 >= most_new_) return answers;
        positions.clear();
        sequences.clear();
        for (uint32_t s = 0; s < count; ++s) {
            const int32_t length = static_cast<int32_t>(prompts[s].size());
            const int32_t first = static_cast<int32_t>(s * (longest_prompt_ + most_new_) + longest_prompt_) - length;
            positions.push_back(length + static_cast<int32_t>(step));
            sequences.insert(sequences.end(),
                             {static_cast<int32_t>(s), 1, first, length + static_cast<int32_t>(step) + 1});
        }
        device_.write(ids_, next.data(), next.size() * 4);
        device_.write(positions_, positions.data(), positions.size() * 4);
        device_.write(sequences_, sequences.data(), sequences.size() * 4);
        pass.host_ids = next.data();
        decode(pass, step, count);
    }
}

} // namespace finetune
