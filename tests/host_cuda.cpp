// A host captures a training step on its own stream into a CUDA graph and replays it: three replays give the bits of three steps.
#include "tests/support/cuda_graph.h"
#include "tests/support/step.h"

#include <cstdio>
#include <cstring>

int main() {
    uint32_t devices = 0;
    const int32_t status = qlora_device_count(QLORA_BACKEND_CUDA, &devices);
    if (!test::cuda_library() || status != QLORA_OK || devices == 0) return std::printf("SKIPPED: no CUDA device, driver or backend here\n"), 77;
    try {
        int device = 0;
        void *primary = nullptr;
        test::cuda_call("cuInit", 0u);
        test::cuda_call("cuDeviceGet", &device, 0);
        test::cuda_call("cuDevicePrimaryCtxRetain", &primary, device);
        test::cuda_call("cuCtxSetCurrent", primary);
        const test::CudaStream stream;
        auto args = qlora::make<qlora_context_args>();
        args.backend = QLORA_BACKEND_CUDA;
        args.stream = reinterpret_cast<uint64_t>(stream.get());
        const qlora::Context context(args);
        std::vector<qlora::Buffer> buffers;
        test::Step step(
            context, [&](uint64_t bytes) { buffers.emplace_back(context, bytes); return buffers.back().span(); },
            [&](qlora_span span, const void *data) {
                auto move = qlora::make<qlora_buffer_args>();
                move.dst = span, move.host = const_cast<void *>(data), move.bytes = span.size;
                context.buffer_write(move);
            },
            [&](qlora_span span, void *data) {
                auto move = qlora::make<qlora_buffer_args>();
                move.src = span, move.host = data, move.bytes = span.size;
                context.buffer_read(move);
            });
        constexpr int steps = 3;
        for (int i = 0; i < steps; i++) step.enqueue(0); // the context's stream is the host's
        context.synchronize();
        const auto expected = step.results();

        step.reset();
        context.synchronize();
        const test::CudaGraph graph(stream, [&] { step.enqueue(reinterpret_cast<uint64_t>(stream.get())); });
        if (step.results() == expected) return std::printf("FAILED  capturing computed at once\n"), 1;
        for (int i = 0; i < steps; i++) graph.launch();
        stream.synchronize();
        const auto found = step.results();
        for (size_t i = 0; i < found.size(); i++)
            if (std::memcmp(found[i].data(), expected[i].data(), found[i].size() * 4) != 0) return std::printf("FAILED  result %zu of the replayed graph differs\n", i), 1;
        std::printf("%s: a step captured as %zu nodes and replayed %d times has the bits of %d steps\n", context.query().name, graph.nodes(), steps, steps);
    } catch (const std::exception &error) {
        return std::printf("FAILED  %s\n", error.what()), 1;
    }
    return 0;
}
