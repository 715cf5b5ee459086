#include "gguf.h"

#include <cstring>

namespace finetune {
namespace {

const uint64_t alignment = 32;

template <class T> void append(std::string &out, T value) {
    out.append(reinterpret_cast<const char *>(&value), sizeof(T));
}

void append_string(std::string &out, std::string_view text) {
    append<uint64_t>(out, text.size());
    out.append(text);
}

uint64_t padded(uint64_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

} // namespace

void GgufWriter::add_key(std::string_view key, uint32_t type) {
    append_string(values_, key);
    append(values_, type);
    ++value_count_;
}

void GgufWriter::add_string(std::string_view key, std::string_view value) {
    add_key(key, 8);
    append_string(values_, value);
}

void GgufWriter::add_u32(std::string_view key, uint32_t value) {
    add_key(key, 4);
    append(values_, value);
}

void GgufWriter::add_f32(std::string_view key, float value) {
    add_key(key, 6);
    append(values_, value);
}

void GgufWriter::add_entry(std::string_view entry) {
    values_.append(entry);
    ++value_count_;
}

void GgufWriter::add_tensor(std::string_view name, uint32_t type, std::vector<uint64_t> ne, const void *data) {
    const TensorType *known = find_tensor_type(type);
    if (known == nullptr || name.empty() || name.size() > 63 || ne.empty() || ne.size() > 4)
        fail("tensor ", shown(name), " cannot be written: its type, name or number of dimensions is invalid");
    uint64_t elements = 1;
    for (uint64_t size : ne)
        if (size == 0 || !multiply(elements, size, &elements))
            fail("tensor ", shown(name), " cannot be written: invalid shape");
    if (ne[0] % known->block != 0) fail("tensor ", shown(name), " cannot be written: rows do not divide into blocks");
    tensors_.push_back({std::string(name), known, std::move(ne), data, elements / known->block * known->bytes});
}

std::string GgufWriter::head() const {
    std::string head = "GGUF";
    append<uint32_t>(head, 3);
    append<uint64_t>(head, tensors_.size());
    append<uint64_t>(head, value_count_);
    head += values_;
    uint64_t offset = 0;
    for (const Tensor &tensor : tensors_) {
        append_string(head, tensor.name);
        append<uint32_t>(head, static_cast<uint32_t>(tensor.ne.size()));
        for (uint64_t size : tensor.ne) append(head, size);
        append(head, tensor.type->id);
        append(head, offset);
        offset += padded(tensor.bytes);
    }
    head.resize(padded(head.size()));
    return head;
}

uint64_t GgufWriter::file_bytes() const {
    uint64_t bytes = head().size();
    for (const Tensor &tensor : tensors_) bytes += padded(tensor.bytes);
    return bytes;
}

void GgufWriter::save(const std::string &path) const {
    save(path, [this](size_t i) { return tensors_[i].data; });
}

void GgufWriter::save(const std::string &path, const std::function<const void *(size_t)> &produce) const {
    const std::string head = this->head();
    NewFile file(path);
    file.write(head.data(), head.size());
    const char zeros[alignment] = {};
    for (size_t i = 0; i < tensors_.size(); ++i) {
        const uint64_t bytes = tensors_[i].bytes;
        file.write(produce(i), bytes);
        file.write(zeros, padded(bytes) - bytes);
    }
    file.commit();
}

} // namespace finetune
