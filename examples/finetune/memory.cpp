#include "memory.h"

#include <cstdlib>
#include <numeric>

namespace finetune {
namespace {

const uint64_t alignment = 256;
// Stands for addresses while planning: not null, aligned, and nothing lies there.
const uint64_t planned_address = uint64_t(1) << 40;

} // namespace

void add_to(MemoryTally &tally, const std::string &name, uint64_t bytes) {
    for (auto &[known, sum] : tally)
        if (known == name) {
            sum += bytes;
            return;
        }
    tally.emplace_back(name, bytes);
}

void MemoryPool::plan(bool host, uint64_t largest) {
    *this = MemoryPool();
    active_ = true;
    host_ = host;
    largest_ = largest;
}

qlora_span MemoryPool::take(uint64_t bytes) {
    if (bytes == 0) return {};
    const uint64_t rounded = (bytes + alignment - 1) / alignment * alignment;
    if (at_.offset > 0 && largest_ != 0 && at_.offset + rounded > largest_) at_ = {at_.block + 1, 0};
    std::vector<uint64_t> &reached = committed_ ? reached_ : sizes_;
    if (reached.size() <= at_.block) reached.resize(at_.block + 1);
    const uint64_t offset = at_.offset;
    at_.offset += rounded;
    reached[at_.block] = std::max(reached[at_.block], at_.offset);
    if (!committed_) return {planned_address, at_.block * (uint64_t(1) << 44) + offset, bytes};
    if (at_.block >= blocks_.size() || at_.offset > blocks_[at_.block].size())
        fail("internal: ", bytes, " bytes of memory were not planned for");
    return blocks_[at_.block].span(offset, bytes);
}

uint8_t *MemoryPool::host_address(const qlora_span &part) const {
    for (const qlora::Buffer &block : blocks_)
        if (host_ && block.span().handle == part.handle && part.offset >= block.span().offset && part.offset - block.span().offset < block.size())
            return static_cast<uint8_t *>(block.host()) + (part.offset - block.span().offset);
    return nullptr;
}

void MemoryPool::commit(const qlora::Context &context) {
    for (uint64_t size : sizes_)
        blocks_.push_back(host_ ? qlora::Buffer::on_host(context, size) : qlora::Buffer(context, size));
    at_ = {0, 0};
    committed_ = true;
}

uint64_t MemoryPool::planned() const { return std::accumulate(sizes_.begin(), sizes_.end(), uint64_t(0)); }
uint64_t MemoryPool::used() const { return std::accumulate(reached_.begin(), reached_.end(), uint64_t(0)); }

uint64_t parse_bytes(const std::string &option, const std::string &text) {
    static const std::pair<const char *, double> units[] = {
        {"", 1},     {"B", 1},       {"K", 0x1p10}, {"KiB", 0x1p10}, {"KB", 1e3},     {"M", 0x1p20}, {"MiB", 0x1p20},
        {"MB", 1e6}, {"G", 0x1p30}, {"GiB", 0x1p30}, {"GB", 1e9},     {"T", 0x1p40}, {"TiB", 0x1p40}, {"TB", 1e12}};
    const size_t digits = std::min(text.find_first_not_of("0123456789."), text.size());
    char *end = nullptr;
    const std::string number = text.substr(0, digits);
    const double value = strtod(number.c_str(), &end);
    if (digits > 0 && *end == '\0')
        for (const auto &[unit, factor] : units)
            if (text.substr(digits) == unit && value * factor < 0x1p62) return static_cast<uint64_t>(value * factor);
    fail(option, " ", shown(text), ": expected a number of bytes such as 6G, 5.7GB or 4500M");
}

} // namespace finetune
