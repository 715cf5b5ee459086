#include "device.h"

#include <cstdlib>
#include <cstring>

namespace finetune {
namespace {

struct Choice {
    int32_t backend, device;
};

const struct {
    const char *name;
    int32_t backend;
} backends[] = {{"ref", QLORA_BACKEND_REF},
                {"cpu", QLORA_BACKEND_CPU},
                {"cuda", QLORA_BACKEND_CUDA},
                {"vulkan", QLORA_BACKEND_VULKAN}};

Choice parse(const std::string &name) {
    const size_t colon = name.find(':');
    const std::string family = name.substr(0, colon);
    for (const auto &known : backends) {
        if (family != known.name) continue;
        if (colon == std::string::npos) return {known.backend, 0};
        const std::string index = name.substr(colon + 1);
        if (index.empty() || index.size() > 3 || index.find_first_not_of("0123456789") != std::string::npos) break;
        return {known.backend, atoi(index.c_str())};
    }
    fail("--device ", shown(name), ": expected auto, ref, cpu, cuda[:N] or vulkan[:N]");
}

qlora::Context open(Choice choice, uint32_t threads) {
    auto args = qlora::make<qlora_context_args>();
    args.backend = choice.backend;
    args.device = choice.device;
    args.threads = threads;
    args.flags = QLORA_CONTEXT_LEAN;
    return qlora::Context(args);
}

qlora::Context open_named(const std::string &name, uint32_t threads) {
    if (name != "auto") return open(parse(name), threads);
    for (int32_t backend : {QLORA_BACKEND_CUDA, QLORA_BACKEND_VULKAN}) {
        for (uint32_t i = 0; i < qlora::device_count(backend); ++i) {
            try {
                qlora::Context context = open({backend, int32_t(i)}, threads);
                // A Vulkan driver that computes on the CPU is no GPU: the cpu backend is faster.
                if (strstr(context.query().name, "llvmpipe") == nullptr) return context;
            } catch (const qlora::Error &) {
                // this device does not work here; the next may
            }
        }
    }
    return open({QLORA_BACKEND_CPU, 0}, threads);
}

} // namespace

Device::Device(const std::string &name, uint32_t threads) : context_(open_named(name, threads)) {
    name_ = context_.query().name;
    const int32_t backend = context_.query().backend;
    is_host_ = backend == QLORA_BACKEND_CPU || backend == QLORA_BACKEND_REF;
    try {
        const qlora::Recording nothing(context_);
        records_ = true;
    } catch (const qlora::Error &) {
        // work is enqueued call by call
    }
}

void Device::plan() {
    // A buffer of Vulkan is bounded by the size of an allocation, of which a device promises 1 GiB.
    const uint64_t largest = context_.query().backend == QLORA_BACKEND_VULKAN ? uint64_t(1) << 30 : 0;
    release();
    pool_.plan(false, largest);
    host_pool_.plan(true, largest);
    planning_ = true;
    found_ = take(sizeof(uint64_t));
}

void Device::commit() {
    pool_.commit(context_);
    host_pool_.commit(context_);
    planning_ = false;
    tally_.clear();
    grow_scratch();
    found_ = take(sizeof(uint64_t));
}

void Device::release() {
    for (MemoryPool *pool : {&pool_, &host_pool_}) *pool = MemoryPool();
    tally_.clear();
    scratch_ = Memory();
    found_ = Memory();
    needed_ = aside_ = beside_ = 0;
    planning_ = false;
}

void Device::Turns::note() {
    if (!(end_ < device_.pool_.mark())) return;
    end_ = device_.pool_.mark();
    most_ = device_.tally_;
}

void Device::Turns::next() {
    note();
    device_.pool_.rewind(begin_);
    device_.tally_ = before_;
}

void Device::Turns::end() {
    note();
    device_.pool_.rewind(end_);
    device_.tally_ = most_;
}

Memory Device::take(uint64_t bytes, bool host) {
    if (bytes == 0) return Memory();
    MemoryPool &pool = host ? host_pool_ : pool_;
    if (!pool.active()) return Memory(host ? qlora::Buffer::on_host(context_, bytes) : qlora::Buffer(context_, bytes));
    if (!host && !section_.empty()) add_to(tally_, section_, aligned(bytes));
    const qlora_span place = pool.take(bytes);
    return Memory(place, pool.host_address(place));
}

void Device::count_as(const std::string &name, uint64_t bytes) {
    if (!section_.empty()) add_to(tally_, section_, 0 - bytes);
    add_to(tally_, name, bytes);
}

void Device::set_aside(const std::string &name, uint64_t bytes) {
    if (planning_) aside_ += bytes;
    if (bytes > 0) add_to(tally_, name, bytes);
}

qlora::Graph Device::record(const std::function<void()> &work) const {
    qlora::Recording recording(context_);
    work();
    return recording.end();
}

void Device::quantize(qlora_quantize_args &args, uint64_t first_row) {
    if (found_.size() == 0) found_ = take(sizeof(uint64_t));
    args.not_finite = found_.span();
    measure([&] { run(QLORA_OP_QUANTIZE, qlora_weight_quantize, args); });
    run(QLORA_OP_QUANTIZE, qlora_weight_quantize, args);
    args.not_finite = {};
    if (idle()) return;
    uint64_t first = 0;
    read(found_.span(), &first, sizeof(first));
    if (first != UINT64_MAX)
        fail("element ", first + first_row * args.src.cols, " (row ", first_row + first / args.src.cols, ", column ", first % args.src.cols,
             ") is NaN or infinite; clean the tensor first");
}

void Device::measure(const std::function<void()> &work) {
    measuring_ = true;
    try {
        work();
    } catch (...) {
        measuring_ = false;
        throw;
    }
    measuring_ = false;
    grow_scratch();
}

void Device::grow_scratch() {
    if (planning_ || needed_ <= scratch_.size()) return;
    scratch_ = Memory();
    scratch_ = Memory(qlora::Buffer(context_, needed_));
}

void Device::copy(qlora_span dst, qlora_span src, uint64_t bytes) {
    if (idle() || bytes == 0) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.dst = dst;
    args.src = src;
    args.bytes = bytes;
    context_.buffer_copy(args);
}

void Device::fill_zero(qlora_span dst, uint64_t bytes) {
    if (idle() || bytes == 0) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.dst = dst;
    args.bytes = bytes;
    context_.buffer_fill(args);
}

void Device::write(qlora_span dst, const void *host, uint64_t bytes) {
    if (idle() || bytes == 0) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.dst = dst;
    args.host = const_cast<void *>(host);
    args.bytes = bytes;
    context_.buffer_write(args);
}

void Device::read(qlora_span src, void *host, uint64_t bytes) {
    if (idle() || bytes == 0) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.src = src;
    args.host = host;
    args.bytes = bytes;
    context_.buffer_read(args);
}

void Device::copy_beside(qlora_span dst, qlora_span src, uint64_t bytes, bool to_host) {
    if (idle() || bytes == 0) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.flags = QLORA_BUFFER_BESIDE | (to_host ? QLORA_BUFFER_HOST : 0);
    args.dst = dst;
    args.src = src;
    args.bytes = bytes;
    context_.buffer_copy(args);
}

void Device::join(bool to_host) {
    if (idle()) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.flags = to_host ? QLORA_BUFFER_HOST : 0;
    context_.buffer_join(args);
}

qlora_span Arena::take(uint64_t bytes) {
    const uint64_t offset = next_, rounded = (bytes + 255) / 256 * 256;
    next_ += rounded;
    total_ = std::max(total_, next_);
    if (!committed_ && !section_.empty()) add_to(tally_, section_, rounded);
    return committed_ ? memory_.span(offset, bytes) : qlora_span{};
}

void Arena::commit(Device &device) {
    memory_ = device.take(total_);
    for (const auto &[name, bytes] : tally_) device.count_as(name, bytes);
    next_ = 0;
    committed_ = true;
}

} // namespace finetune
