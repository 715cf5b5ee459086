// The same bits for any number of threads, whoever runs them; and no thread of the library's own when the host brings a runner.
#include "tests/support/inputs.h"
#include "tests/support/stage.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <thread>

using namespace test;

namespace {

// Runners of a host: one backwards on the caller's thread, one on five threads at once.
void backwards(void *user, uint32_t count, void (*task)(void *, uint32_t), void *task_user) {
    ++*static_cast<uint64_t *>(user);
    for (uint32_t i = count; i-- > 0;) task(task_user, i);
}
void five_threads(void *user, uint32_t count, void (*task)(void *, uint32_t), void *task_user) {
    ++*static_cast<uint64_t *>(user);
    std::vector<std::thread> threads;
    for (uint32_t t = 0; t < 5; t++)
        threads.emplace_back([=] {
            for (uint32_t i = t; i < count; i += 5) task(task_user, i);
        });
    for (std::thread &thread : threads) thread.join();
}

// Threads of this process, 0 where that cannot be asked.
int thread_count() {
    std::ifstream status("/proc/self/status");
    for (std::string word; status >> word;)
        if (word == "Threads:") {
            int count = 0;
            status >> count;
            return count;
        }
    return 0;
}

std::vector<Output> outputs_of(const Case &one, const qlora::Context &context) {
    Stage stage(context);
    one.act(stage);
    CHECK_MESSAGE(stage.status() == QLORA_OK, text(one.name, ": ", stage.last_message()));
    return stage.outputs();
}

} // namespace

TEST_SUITE_BEGIN("threads");

TEST_CASE("cpu results do not depend on the number of threads or on who runs them") {
    for (const Target &target : targets()) {
        if (target.backend != QLORA_BACKEND_CPU) continue;
        uint64_t backwards_calls = 0, five_calls = 0;
        std::vector<qlora::Context> contexts;
        const int before = thread_count();
        for (auto *runner : {backwards, five_threads}) {
            auto args = qlora::make<qlora_context_args>();
            args.parallel_for = runner;
            args.parallel_user = runner == backwards ? &backwards_calls : &five_calls;
            contexts.push_back(open(target, &args));
        }
        CHECK_MESSAGE(thread_count() == before, text(target.name, " starts threads although the host runs them"));
        for (uint32_t threads : {1u, 2u, 3u, 7u}) {
            auto args = qlora::make<qlora_context_args>();
            args.threads = threads;
            contexts.push_back(open(target, &args));
            CHECK(contexts.back().query().threads == threads);
        }
        for (const Operation &operation : all_operations())
            for (size_t c = 0; c < operation.cases.size(); c++) {
                if (mix(operation.number, c) % std::max<size_t>(3, operation.cases.size() / 24) != 0) continue; // some 24 of them, the large ones among it
                const Case &one = operation.cases[c];
                if (!contexts[0].operation_supports(operation.number, one.format, one.type)) continue;
                const std::vector<Output> expected = outputs_of(one, contexts[2]); // one thread
                for (size_t i = 0; i < contexts.size(); i++) {
                    const std::vector<Output> found = outputs_of(one, contexts[i]);
                    REQUIRE(found.size() == expected.size());
                    for (size_t o = 0; o < found.size(); o++)
                        CHECK_MESSAGE(found[o].bytes == expected[o].bytes, text(target.name, " ", operation.name, " ", one.name, " context ", i, " ", found[o].name));
                }
            }
        CHECK_MESSAGE(five_calls > 0, text(target.name, " never asked the host's runner"));
        CHECK(backwards_calls > 0);
    }
}

TEST_CASE("several contexts run in several threads at once") {
    for (const Target &target : targets()) {
        std::vector<Operation> operations = all_operations();
        std::vector<std::vector<Output>> expected;
        for (const Operation &operation : operations) {
            const qlora::Context &context = shared_context(target);
            const Case &one = operation.cases[0];
            expected.push_back(context.operation_supports(operation.number, one.format, one.type) ? outputs_of(one, context) : std::vector<Output>());
        }
        std::vector<std::string> complaints(3);
        std::vector<std::thread> threads;
        for (size_t t = 0; t < complaints.size(); t++)
            threads.emplace_back([&, t] {
                try {
                    const qlora::Context context = open(target);
                    for (int round = 0; round < 3; round++)
                        for (size_t o = 0; o < operations.size(); o++) {
                            const Case &one = operations[o].cases[0];
                            if (!context.operation_supports(operations[o].number, one.format, one.type)) continue;
                            Stage stage(context);
                            one.act(stage);
                            const std::vector<Output> found = stage.outputs();
                            for (size_t i = 0; i < found.size(); i++)
                                if (found[i].bytes != expected[o][i].bytes) complaints[t] += text(operations[o].name, " ", one.name, "; ");
                        }
                } catch (const std::exception &error) {
                    complaints[t] += error.what();
                }
            });
        for (std::thread &thread : threads) thread.join();
        for (const std::string &complaint : complaints) CHECK_MESSAGE(complaint.empty(), text(target.name, ": ", complaint));
    }
}

TEST_SUITE_END();
