#include "tests/bench/bench.h"
#include "tests/support/comparison.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <fstream>

namespace bench {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

uint64_t last_cache_bytes(int32_t backend) {
    if (backend == QLORA_BACKEND_CUDA || backend == QLORA_BACKEND_VULKAN) return uint64_t(64) << 20;
    // The kernel's word, in KiB; sysconf adds up the caches of a socket that a virtual machine has no part in.
    std::ifstream size("/sys/devices/system/cpu/cpu0/cache/index3/size");
    uint64_t kibibytes = 0;
    return size >> kibibytes ? kibibytes << 10 : uint64_t(32) << 20;
}

Time percentiles(std::vector<double> &seconds) {
    std::sort(seconds.begin(), seconds.end());
    const size_t n = seconds.size();
    return {seconds[n / 2], seconds[n / 5], seconds[n - 1 - n / 5]};
}

} // namespace

Bench::Bench(const Settings &settings) : settings_(settings), context_(open(settings.target)), ref_(open(reference())), cache_bytes_(last_cache_bytes(settings.target.backend)) {}

bool Bench::wanted(const std::string &workload, const std::string &shape, const std::string &type) const {
    const std::string name = workload + " " + shape + " " + type, &only = settings_.only;
    for (size_t begin = 0; begin <= only.size();) {
        const size_t end = std::min(only.find(',', begin), only.size());
        if (name.find(only.substr(begin, end - begin)) != std::string::npos) return true;
        begin = end + 1;
    }
    return false;
}

size_t Bench::rotation(uint64_t footprint_bytes) const {
    if (quick()) return 2;
    const uint64_t copies = footprint_bytes ? 4 * cache_bytes_ / footprint_bytes + 1 : 1;
    return size_t(std::min<uint64_t>(std::max<uint64_t>(copies, 1), 512));
}

Time Bench::time(const std::function<void(uint64_t)> &call) const {
    uint64_t index = 0;
    call(index++);
    context_.synchronize();
    double start = now();
    call(index++);
    context_.synchronize();
    const double once = now() - start;
    const double budget = quick() ? 0.05 : on_gpu() ? 0.3 : 1.5;
    const uint64_t batch = on_gpu() ? uint64_t(std::min(2000.0, std::max(1.0, (quick() ? 2e-3 : 10e-3) / once))) : 1;
    const uint64_t samples = uint64_t(std::min(quick() ? 5.0 : 200.0, std::max(quick() ? 3.0 : 7.0, budget / (once * double(batch)))));
    std::vector<double> seconds;
    for (uint64_t s = 0; s < samples; s++) {
        start = now();
        for (uint64_t i = 0; i < batch; i++) call(index++);
        context_.synchronize();
        seconds.push_back((now() - start) / double(batch));
    }
    return percentiles(seconds);
}

qlora::Buffer Bench::repeated(int32_t type, const std::vector<float> &values, uint64_t count) const {
    const uint64_t bytes = count * element_bytes(type);
    qlora::Buffer buffer(context_, (bytes + 3) / 4 * 4); // Vulkan copies whole words
    const std::vector<uint8_t> packed = pack(type, values);
    uint64_t filled = std::min<uint64_t>(packed.size(), bytes);
    buffer.write(packed.data(), filled);
    auto copy = qlora::make<qlora_buffer_args>();
    for (; filled < bytes; filled += copy.bytes) { // doubled on the device
        copy.src = copy.dst = buffer.span();
        copy.dst.offset += filled;
        copy.bytes = std::min(filled, (bytes - filled + 3) / 4 * 4);
        context_.buffer_copy(copy);
    }
    return buffer;
}

qlora::Buffer Bench::random(int32_t type, uint64_t count, uint64_t seed, double deviation) const {
    return repeated(type, random_values(std::min<uint64_t>(count, 1000004), seed, deviation), count); // a million different values
}

void Bench::ceilings() {
    const qlora_context_info info = context_.query();
    std::printf("device   %s", info.name);
    if (info.threads) std::printf(", %u threads", info.threads);
    std::printf("\nlibrary  qlora %d.%d.%d", QLORA_VERSION_MAJOR, QLORA_VERSION_MINOR, QLORA_VERSION_PATCH);
#ifdef QLORA_COMMIT
    std::printf(" (%s)", QLORA_COMMIT);
#endif
    std::printf("\npeers    ");
    if (!on_gpu()) std::printf("%s, memcpy", openblas_here() ? openblas_version().c_str() : "SKIPPED: libopenblas.so.0 is not installed");
    else if (backend() == QLORA_BACKEND_CUDA) std::printf("%s", cublas_here() ? cublas_version().c_str() : "SKIPPED: libcublas is not installed");
    else std::printf("none here; ggml-vulkan is measured apart");

    const uint64_t bytes = quick() ? 1 << 22 : on_gpu() ? uint64_t(1) << 30 : uint64_t(1) << 28;
    const qlora::Buffer from = random(QLORA_FORMAT_F32, bytes / 4, 1), to(context_, bytes);
    auto copy = qlora::make<qlora_buffer_args>();
    copy.src = from.span();
    copy.dst = to.span();
    copy.bytes = bytes;
    const Time copying = time([&](uint64_t) { context_.buffer_copy(copy); });
    copy_bytes_per_second_ = 2 * double(bytes) / copying.median;

    const uint64_t n = quick() ? 256 : on_gpu() ? 8192 : 2048;
    const int32_t type = on_gpu() ? QLORA_FORMAT_BF16 : QLORA_FORMAT_F32;
    const qlora::Buffer a = random(type, n * n, 2), b = random(type, n * n, 3), c = random(type, n * n, 4);
    Time product = {};
    const char *who = "this library, plain weight";
    if (backend() == QLORA_BACKEND_CUDA && cublas_here()) {
        who = "cuBLAS";
        product = time([&](uint64_t i) {
            cublas_bf16(true, n, n, n, a.span().handle, b.span().handle, c.span().handle);
            if (i % 8 == 7) cublas_synchronize();
        });
    } else if (!on_gpu() && openblas_here()) {
        who = "OpenBLAS";
        auto host = [](const qlora::Buffer &buffer) { return reinterpret_cast<float *>(uintptr_t(buffer.span().handle + buffer.span().offset)); };
        product = time([&](uint64_t) { openblas_sgemm(true, n, n, n, host(a), host(b), host(c)); });
    } else {
        auto weight = qlora::make<qlora_weight>();
        weight.format = type;
        weight.rows = weight.cols = n;
        weight.planes[QLORA_PLANE_CODE] = b.span();
        auto args = qlora::make<qlora_matmul_args>();
        args.weight = &weight;
        args.x = qlora::tensor(type, n, n, a.span());
        args.y = qlora::tensor(type, n, n, c.span());
        const qlora::Buffer space = scratch(QLORA_OP_MATMUL, args);
        args.scratch = space.span();
        product = time([&](uint64_t) { context_.weight_matmul(args); });
    }
    flops_per_second_ = 2 * double(n) * double(n) * double(n) / product.median;
    std::printf("\ncopy     %.1f GB/s (read + write, %llu MB)\nGEMM     %.2f TFLOP/s (%s, %s, %llu^3)\n", copy_bytes_per_second_ / 1e9, (unsigned long long)(bytes >> 20),
                flops_per_second_ / 1e12, who, format_name(type).c_str(), (unsigned long long)n);
    std::printf("rotation %llu MB, four times the last cache\n\n", (unsigned long long)(4 * cache_bytes_ >> 20));
    std::printf("| workload | shape | dtype | M | ours us (p20-p80) | peer us | ratio | floor us | %% of floor | rate | max rel err |\n");
    std::printf("|---|---|---|---|---|---|---|---|---|---|---|\n");
    std::fflush(stdout);
}

void Bench::print(const Row &row) {
    const double by_memory = row.bytes / copy_bytes_per_second_, by_work = row.flops / flops_per_second_, floor = std::max(by_memory, by_work);
    char peer[48] = "- | -", tokens[24] = "-", rate[48];
    if (row.peer.median > 0) std::snprintf(peer, sizeof peer, "%.1f | %.2f", row.peer.median * 1e6, row.peer.median / row.ours.median);
    if (row.rows) std::snprintf(tokens, sizeof tokens, "%llu", (unsigned long long)row.rows);
    if (by_work > by_memory) std::snprintf(rate, sizeof rate, "%.3f TFLOP/s", row.flops / row.ours.median / 1e12);
    else std::snprintf(rate, sizeof rate, "%.1f GB/s", row.bytes / row.ours.median / 1e9);
    const bool good = row.error <= tolerance(row.operation, row.deciding);
    std::printf("| %s | %s | %s | %s | %.1f (%.1f-%.1f) | %s | %.1f | %.1f | %s | %.1e%s |\n", row.workload.c_str(), row.shape.c_str(), row.type.c_str(), tokens, row.ours.median * 1e6,
                row.ours.low * 1e6, row.ours.high * 1e6, peer, floor * 1e6, 100 * floor / row.ours.median, rate, row.error, good ? "" : " VOID");
    std::fflush(stdout);
    printed_++;
    if (!good) void_rows_++;
}

} // namespace bench
