// Two contexts in two threads, on one weight and each on its own layer, and the same bits in both. Compiled together with the library
// under ThreadSanitizer by tests/package.sh.
#include "tests/support/step.h"

#include <cstdio>
#include <cstring>
#include <thread>

namespace {

using namespace test;

struct Found {
    std::vector<std::vector<float>> step;
    std::vector<float> product;
    std::string complaint;
};

void work(int32_t backend, const qlora_weight &shared, Found &found) {
    try {
        auto args = qlora::make<qlora_context_args>();
        args.backend = backend;
        args.threads = 3;
        const qlora::Context context(args);
        std::vector<qlora::Buffer> buffers;
        Step step(
            context, [&](uint64_t bytes) { buffers.emplace_back(context, bytes); return buffers.back().span(); },
            [](qlora_span span, const void *data) { std::memcpy(reinterpret_cast<void *>(span.handle + span.offset), data, span.size); },
            [](qlora_span span, void *data) { std::memcpy(data, reinterpret_cast<const void *>(span.handle + span.offset), span.size); });
        const qlora::Buffer x(context, random_values(64 * Step::cols, 9)), y(context, 64 * Step::rows * 4);
        auto matmul = qlora::make<qlora_matmul_args>();
        matmul.weight = &shared;
        matmul.x = qlora::tensor(QLORA_FORMAT_F32, 64, Step::cols, x.span());
        matmul.y = qlora::tensor(QLORA_FORMAT_F32, 64, Step::rows, y.span());
        const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_MATMUL, matmul));
        matmul.scratch = scratch.span();
        for (int i = 0; i < 20; i++) {
            step.enqueue(0);
            context.weight_matmul(matmul);
        }
        found.step = step.results();
        found.product = y.read<float>();
    } catch (const std::exception &error) {
        found.complaint = error.what();
    }
}

} // namespace

int main() {
    const qlora::Context owner(QLORA_BACKEND_CPU);
    const qlora::Weight weight(owner, QLORA_FORMAT_NF4, Step::rows, Step::cols);
    const qlora::Buffer values(owner, random_values(Step::rows * Step::cols, 5));
    auto quantize = qlora::make<qlora_quantize_args>();
    quantize.weight = weight.get();
    quantize.src = qlora::tensor(QLORA_FORMAT_F32, Step::rows, Step::cols, values.span());
    const qlora::Buffer scratch(owner, owner.operation_scratch(QLORA_OP_QUANTIZE, quantize));
    quantize.scratch = scratch.span();
    owner.weight_quantize(quantize);
    for (int32_t backend : {QLORA_BACKEND_REF, QLORA_BACKEND_CPU}) {
        Found found[2];
        std::thread other([&] { work(backend, *weight.get(), found[1]); });
        work(backend, *weight.get(), found[0]);
        other.join();
        for (const Found &one : found)
            if (!one.complaint.empty()) return std::printf("FAILED  %s\n", one.complaint.c_str()), 1;
        if (found[0].step != found[1].step || found[0].product != found[1].product) return std::printf("FAILED  two contexts of backend %d differ\n", int(backend)), 1;
    }
    std::printf("two contexts in two threads: the same bits\n");
    return 0;
}
