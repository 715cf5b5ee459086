// Recorded graphs: a backend that records none says so and goes on; on the others a replay has the bits of the same calls and reads
// buffers anew, and whatever fails while recording leaves the context as it was.
#include "tests/support/accounting.h"
#include "tests/support/step.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

using namespace test;

namespace {

// A training step in buffers of a context.
struct Steps {
    std::vector<qlora::Buffer> buffers;
    Step step;

    explicit Steps(const qlora::Context &context)
        : step(
              context, [&](uint64_t bytes) { buffers.emplace_back(context, bytes); return buffers.back().span(); },
              [&](qlora_span span, const void *data) { context.buffer_write(moving(span, const_cast<void *>(data))); },
              [&](qlora_span span, void *data) { context.buffer_read(moving(span, data)); }) {}

    static qlora_buffer_args moving(qlora_span span, void *data) {
        auto args = qlora::make<qlora_buffer_args>();
        args.dst = args.src = span;
        args.host = data;
        args.bytes = span.size;
        return args;
    }
    // Results of so many steps from the start.
    std::vector<std::vector<float>> after(int steps) {
        step.reset();
        for (int i = 0; i < steps; i++) step.enqueue(0);
        return step.results();
    }
};

bool records(const qlora::Context &context) { return context.query().backend == QLORA_BACKEND_CUDA; }

std::string message_of(const qlora::Context &context) { return qlora_context_message(context.get()); }

qlora_buffer_args copying(qlora_span dst, qlora_span src, uint32_t flags = 0) {
    auto args = qlora::make<qlora_buffer_args>();
    args.flags = flags;
    args.dst = dst;
    args.src = src;
    args.bytes = src.size;
    return args;
}

} // namespace

TEST_SUITE_BEGIN("host");

TEST_CASE("where no graphs are recorded begin says so and nothing changes") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        if (records(context)) continue;
        CAPTURE(target.name);
        Steps steps(context);
        const auto expected = steps.after(1);
        auto args = qlora::make<qlora_graph_args>();
        CHECK(qlora_graph_begin(context.get(), &args) == QLORA_ERROR_UNSUPPORTED);
        CHECK(message_of(context).find("records no graphs") != std::string::npos);
        CHECK(qlora_graph_end(context.get(), &args) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_graph_launch(context.get(), &args) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_graph_destroy(context.get(), &args) == QLORA_OK);
        args.graph = 1;
        CHECK(qlora_graph_launch(context.get(), &args) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_graph_destroy(context.get(), &args) == QLORA_ERROR_ARGUMENT);
        args.flags = 1;
        CHECK(qlora_graph_begin(context.get(), &args) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_graph_begin(context.get(), nullptr) == QLORA_ERROR_ARGUMENT);
        CHECK(steps.after(1) == expected);
    }
}

TEST_CASE("a replayed graph does what the calls do") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        if (!records(context)) continue;
        CAPTURE(target.name);
        Steps steps(context);
        const auto start = steps.after(0), expected = steps.after(3);
        steps.step.reset();
        qlora::Recording recording(context);
        steps.step.enqueue(0);
        qlora::Graph graph = recording.end();
        CHECK(graph.nodes() > 4);
        CHECK(steps.step.results() == start);
        for (int i = 0; i < 3; i++) graph.launch();
        CHECK(steps.step.results() == expected);
        // What is written later is read, and one by one the calls go on as before.
        steps.step.reset();
        graph.launch();
        steps.step.enqueue(0);
        graph.launch();
        CHECK(steps.step.results() == expected);
        qlora::Graph moved = std::move(graph);
        graph.launch(); // of nothing
        steps.step.reset();
        moved.launch();
        CHECK(steps.step.results() == steps.after(1));
    }
}

TEST_CASE("what a recording cannot hold is refused and is not part of it") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        if (!records(context)) continue;
        CAPTURE(target.name);
        Steps steps(context);
        const auto expected = steps.after(1);
        const qlora::Buffer other(context, 256);
        float word = 0;
        auto graph_args = qlora::make<qlora_graph_args>();
        steps.step.reset();
        qlora::Recording first(context);
        qlora::Graph empty = first.end();
        CHECK(empty.nodes() == 0);
        qlora::Recording recording(context);
        const auto refuse = [&](int32_t status) {
            CHECK(status == QLORA_ERROR_UNSUPPORTED);
            CHECK(message_of(context).find("a graph is being recorded") != std::string::npos);
        };
        auto move = Steps::moving(other.span(), &word);
        move.bytes = 4;
        refuse(qlora_buffer_write(context.get(), &move));
        refuse(qlora_buffer_read(context.get(), &move));
        refuse(qlora_buffer_destroy(context.get(), &move));
        auto made = qlora::make<qlora_buffer_args>();
        made.bytes = 16;
        refuse(qlora_buffer_create(context.get(), &made));
        refuse(qlora_context_synchronize(context.get()));
        refuse(qlora_graph_begin(context.get(), &graph_args));
        graph_args.graph = 1;
        refuse(qlora_graph_launch(context.get(), &graph_args));
        refuse(qlora_graph_destroy(context.get(), &graph_args));
        move.dst.handle = 0; // refused by its arguments, before anything is enqueued
        CHECK(qlora_buffer_fill(context.get(), &move) == QLORA_ERROR_ARGUMENT);
        steps.step.enqueue(0);
        const qlora::Graph graph = recording.end();
        graph.launch();
        CHECK(steps.step.results() == expected);
        // Thrown away, and a context that goes while it records.
        { const qlora::Recording unfinished(context); steps.step.enqueue(0); }
        CHECK(steps.step.results() == expected);
        qlora::Context last = open(target);
        const qlora_graph_args begin = qlora::make<qlora_graph_args>();
        last.graph_begin(begin);
    }
}

TEST_CASE("whatever fails while recording leaves the context as it was") {
    for (const Target &target : targets()) {
        if (!records(shared_context(target))) continue;
        CAPTURE(target.name);
        Accounting host;
        const auto options = host.options();
        const qlora::Context context = open(target, &options);
        Steps steps(context);
        const auto expected = steps.after(1);
        const qlora::Buffer pinned = qlora::Buffer::on_host(context, 4096), device(context, 4096);
        const auto record = [&](qlora::Graph &graph) {
            qlora::Recording recording(context);
            context.buffer_copy(copying(device.span(), pinned.span(), QLORA_BUFFER_BESIDE));
            int32_t failed = QLORA_OK;
            try {
                steps.step.enqueue(0);
            } catch (const qlora::Error &error) { failed = error.status(); }
            try {
                graph = recording.end();
            } catch (const qlora::Error &error) {
                if (failed != QLORA_OK) CHECK(error.status() == failed); // a recording with a hole is no graph
                throw;
            }
            CHECK(failed == QLORA_OK);
        };
        uint64_t failures = 0;
        for (uint64_t n = 1; n < 1000; n++) {
            steps.step.reset();
            const auto before = steps.step.results();
            qlora::Graph graph;
            std::string message;
            host.arm(n);
            try {
                record(graph);
            } catch (const qlora::Error &error) {
                message = error.what();
                // Of the host's memory only the optimizer takes some, for its list.
                CHECK((error.status() == QLORA_ERROR_DEVICE || error.status() == QLORA_ERROR_MEMORY));
            }
            const std::string failed = host.failed;
            host.disarm();
            CHECK(failed.empty() == message.empty());
            CHECK_MESSAGE(steps.step.results() == before, text("after the failure of ", failed));
            CHECK_MESSAGE(steps.after(1) == expected, text("after the failure of ", failed));
            if (failed.empty()) break;
            failures++;
        }
        CHECK(failures > 10);
        qlora::Graph graph;
        record(graph);
        steps.step.reset();
        graph.launch();
        CHECK(steps.step.results() == expected);
    }
}

TEST_CASE("copies beside are branches of a graph") {
    const uint64_t bytes = 1 << 16, rounds = 4;
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        if (!records(context)) continue;
        CAPTURE(target.name);
        const qlora::Buffer host = qlora::Buffer::on_host(context, rounds * bytes), back = qlora::Buffer::on_host(context, rounds * bytes);
        const qlora::Buffer slots(context, 2 * bytes), work(context, bytes);
        auto join = qlora::make<qlora_buffer_args>();
        const auto round_trip = [&] {
            context.buffer_copy(copying(slots.span(0, bytes), host.span(0, bytes), QLORA_BUFFER_BESIDE));
            for (uint64_t i = 0; i < rounds; i++) {
                join.flags = 0;
                context.buffer_join(join);
                if (i + 1 < rounds) context.buffer_copy(copying(slots.span((i + 1) % 2 * bytes, bytes), host.span((i + 1) * bytes, bytes), QLORA_BUFFER_BESIDE));
                join.flags = QLORA_BUFFER_HOST;
                context.buffer_join(join);
                context.buffer_copy(copying(work.span(), slots.span(i % 2 * bytes, bytes)));
                context.buffer_copy(copying(back.span(i * bytes, bytes), work.span(), QLORA_BUFFER_BESIDE | QLORA_BUFFER_HOST));
            }
        };
        // Two copies are under way before it and two are not joined in it.
        context.buffer_copy(copying(slots.span(0, bytes), host.span(0, bytes), QLORA_BUFFER_BESIDE));
        context.buffer_copy(copying(back.span(0, bytes), work.span(), QLORA_BUFFER_BESIDE | QLORA_BUFFER_HOST));
        qlora::Recording recording(context);
        round_trip();
        const qlora::Graph graph = recording.end();
        CHECK(graph.nodes() >= 3 * rounds);
        for (uint32_t turn = 1; turn < 4; turn++) {
            uint32_t *const from = static_cast<uint32_t *>(host.host()), *const to = static_cast<uint32_t *>(back.host());
            const uint64_t words = rounds * bytes / 4;
            for (uint64_t i = 0; i < words; i++) from[i] = uint32_t(i) * turn + turn, to[i] = 0;
            graph.launch();
            context.synchronize();
            CHECK(std::memcmp(from, to, rounds * bytes) == 0);
            std::memset(to, 0, rounds * bytes);
            round_trip();
            context.synchronize();
            CHECK(std::memcmp(from, to, rounds * bytes) == 0);
        }
    }
}

TEST_SUITE_END();
