// A host captures a training step on its own stream into a CUDA graph and replays it: three replays give the bits of three steps. The
// driver is opened at run time, so that this compiles without the CUDA toolkit.
#include "tests/support/step.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstring>

namespace {

void *driver = nullptr;

// Calls a function of the driver by its name; arguments have their exact types.
template <class... Arguments> int call(const char *name, Arguments... arguments) {
    const auto function = reinterpret_cast<int (*)(Arguments...)>(dlsym(driver, name));
    const int result = function ? function(arguments...) : -1;
    if (result != 0) std::printf("%s answers %d\n", name, result);
    return result;
}

} // namespace

int main() {
    driver = dlopen("libcuda.so.1", RTLD_NOW);
    uint32_t devices = 0;
    const int32_t status = qlora_device_count(QLORA_BACKEND_CUDA, &devices);
    if (!driver || status != QLORA_OK || devices == 0) return std::printf("SKIPPED: no CUDA device, driver or backend here\n"), 77;
    int device = 0;
    void *primary = nullptr, *stream = nullptr, *graph = nullptr, *executable = nullptr;
    int failed = call("cuInit", 0u) | call("cuDeviceGet", &device, 0) | call("cuDevicePrimaryCtxRetain", &primary, device) | call("cuCtxSetCurrent", primary);
    if (failed || call("cuStreamCreate", &stream, 1u)) return 1; // 1: does not wait for the default stream
    try {
        auto args = qlora::make<qlora_context_args>();
        args.backend = QLORA_BACKEND_CUDA;
        args.stream = reinterpret_cast<uint64_t>(stream);
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
        if (call("cuStreamBeginCapture_v2", stream, 1)) return 1; // 1: only this thread's unsafe calls are errors
        step.enqueue(reinterpret_cast<uint64_t>(stream));
        if (call("cuStreamEndCapture", stream, &graph) || call("cuGraphInstantiateWithFlags", &executable, graph, 0ull)) return 1;
        size_t nodes = 0;
        if (call("cuGraphGetNodes", graph, static_cast<void *>(nullptr), &nodes)) return 1;
        if (step.results() == expected) return std::printf("FAILED  capturing computed at once\n"), 1;
        for (int i = 0; i < steps; i++)
            if (call("cuGraphLaunch", executable, stream)) return 1;
        if (call("cuStreamSynchronize", stream)) return 1;
        const auto found = step.results();
        for (size_t i = 0; i < found.size(); i++)
            if (std::memcmp(found[i].data(), expected[i].data(), found[i].size() * 4) != 0) return std::printf("FAILED  result %zu of the replayed graph differs\n", i), 1;
        std::printf("%s: a step captured as %zu nodes and replayed %d times has the bits of %d steps\n", context.query().name, nodes, steps, steps);
        call("cuGraphExecDestroy", executable);
        call("cuGraphDestroy", graph);
    } catch (const qlora::Error &error) {
        return std::printf("FAILED  %s\n", error.what()), 1;
    }
    call("cuStreamDestroy_v2", stream);
    return 0;
}
