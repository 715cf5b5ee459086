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
}

void Device::quantize(qlora_quantize_args &args) {
    const qlora::Buffer found(context_, sizeof(uint64_t));
    args.not_finite = found.span();
    measure([&] { run(QLORA_OP_QUANTIZE, qlora_weight_quantize, args); });
    run(QLORA_OP_QUANTIZE, qlora_weight_quantize, args);
    args.not_finite = {};
    uint64_t first = 0;
    found.read(&first, sizeof(first));
    if (first != UINT64_MAX)
        fail("element ", first, " (row ", first / args.src.cols, ", column ", first % args.src.cols,
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
    if (needed_ > scratch_.size()) {
        scratch_ = qlora::Buffer();
        scratch_ = qlora::Buffer(context_, needed_);
    }
}

void Device::copy(qlora_span dst, qlora_span src, uint64_t bytes) {
    if (measuring_ || bytes == 0) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.dst = dst;
    args.src = src;
    args.bytes = bytes;
    context_.buffer_copy(args);
}

void Device::fill_zero(qlora_span dst, uint64_t bytes) {
    if (measuring_ || bytes == 0) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.dst = dst;
    args.bytes = bytes;
    context_.buffer_fill(args);
}

void Device::write(qlora_span dst, const void *host, uint64_t bytes) {
    if (measuring_ || bytes == 0) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.dst = dst;
    args.host = const_cast<void *>(host);
    args.bytes = bytes;
    context_.buffer_write(args);
}

void Device::read(qlora_span src, void *host, uint64_t bytes) {
    if (measuring_ || bytes == 0) return;
    auto args = qlora::make<qlora_buffer_args>();
    args.src = src;
    args.host = host;
    args.bytes = bytes;
    context_.buffer_read(args);
}

qlora_span Arena::take(uint64_t bytes) {
    const uint64_t offset = next_;
    next_ += (bytes + 255) / 256 * 256;
    return committed_ ? memory_.span(offset, bytes) : qlora_span{};
}

void Arena::commit(const Device &device) {
    total_ = next_;
    memory_ = qlora::Buffer(device.context(), total_);
    next_ = 0;
    committed_ = true;
}

} // namespace finetune
