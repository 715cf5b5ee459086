// Failure paths: the N-th driver call or allocation fails, for every N until none is left. Each time the caller gets a typed
// error with a sentence, nothing leaks, and the context works again when the call is repeated.
#include "tests/support/accounting.h"
#include "tests/support/inputs.h"
#include "tests/support/stage.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <stdexcept>

using namespace test;

namespace {

bool is_typed_error(int32_t status) { return status < 0 && std::string(qlora_status_name(status)) != "unknown"; }

// The failure, as the statuses of qlora.h would have it: no memory, no device, or a device that failed.
bool is_failure_of_the_machine(int32_t status) {
    return status == QLORA_ERROR_MEMORY || status == QLORA_ERROR_DEVICE || status == QLORA_ERROR_UNAVAILABLE;
}

constexpr uint64_t patience = 20000; // more calls than any operation makes

// Fails call after call of action, by injection and then by the allocator. Returns how many there were.
template <class Action> uint64_t fail_each(Accounting &host, const std::string &what, Action &&action) {
    uint64_t failures = 0;
    for (bool allocator : {false, true})
        for (uint64_t n = 1; n < patience; n++) {
            std::string message;
            const int32_t status = action([&] { host.arm(allocator ? 0 : n, allocator ? n : 0); }, message);
            const std::string failed = host.failed;
            host.disarm();
            if (failed.empty()) { // n passes the last call
                CHECK_MESSAGE(status == QLORA_OK, text(what, ": ", qlora_status_name(status), " ", message));
                break;
            }
            failures++;
            CHECK_MESSAGE(is_failure_of_the_machine(status), text(what, ": ", failed, " failed (call ", n, "), the answer was ", qlora_status_name(status)));
            CHECK_MESSAGE(!message.empty(), text(what, ": ", failed, " failed without a sentence"));
            if (!is_typed_error(status)) break;
        }
    return failures;
}

} // namespace

TEST_SUITE_BEGIN("fault");

TEST_CASE("creating a context fails cleanly wherever it fails") {
    for (const Target &target : targets()) {
        // Open throughout, so that the GPU's driver stays loaded: one that is loaded and unloaded a hundred times runs out of
        // thread-local storage, and the loader then finds no driver.
        shared_context(target);
        Accounting host;
        const uint64_t failures = fail_each(host, target.name + " create", [&](auto &&arm, std::string &message) {
            auto args = host.options();
            char line[512] = "";
            args.backend = target.backend;
            args.device = target.device;
            args.isa = target.isa;
            args.message = line;
            args.message_bytes = sizeof line;
            qlora_context *context = reinterpret_cast<qlora_context *>(uintptr_t(1));
            arm();
            const int32_t status = qlora_context_create(&args, &context);
            host.disarm(); // destroy makes driver calls as well, and has no status
            CHECK((context != nullptr) == (status == QLORA_OK));
            message = line;
            qlora_context_destroy(context);
            CHECK_MESSAGE(host.blocks == 0, text(target.name, ": ", host.blocks, " blocks, ", host.bytes, " bytes leak after ", host.failed));
            return status;
        });
        CHECK(failures > 0);
        CHECK(!host.wrong_release);
    }
}

TEST_CASE("buffer helpers fail cleanly wherever they fail") {
    for (const Target &target : targets()) {
        Accounting host;
        {
            const auto options = host.options();
            const qlora::Context context = open(target, &options);
            auto check = [&](const char *verb, auto &&call) {
                fail_each(host, target.name + " " + verb, [&](auto &&arm, std::string &message) {
                    std::vector<uint8_t> bytes(4096, 7);
                    const qlora::Buffer first(context, bytes), second(context, bytes);
                    auto args = qlora::make<qlora_buffer_args>();
                    args.dst = first.span();
                    args.src = second.span();
                    args.host = bytes.data();
                    args.bytes = bytes.size();
                    arm();
                    const int32_t status = call(args);
                    host.disarm();
                    message = status ? qlora_context_message(context.get()) : "";
                    return status;
                });
            };
            check("create", [&](qlora_buffer_args &args) {
                const int32_t status = qlora_buffer_create(context.get(), &args);
                host.disarm();
                if (status == QLORA_OK) CHECK(qlora_buffer_destroy(context.get(), &args) == QLORA_OK);
                return status;
            });
            check("write", [&](qlora_buffer_args &args) { return qlora_buffer_write(context.get(), &args); });
            check("read", [&](qlora_buffer_args &args) { return qlora_buffer_read(context.get(), &args); });
            check("copy", [&](qlora_buffer_args &args) { return qlora_buffer_copy(context.get(), &args); });
            check("copy beside", [&](qlora_buffer_args &args) {
                args.flags = QLORA_BUFFER_BESIDE;
                return qlora_buffer_copy(context.get(), &args);
            });
            check("join", [&](qlora_buffer_args &args) { return qlora_buffer_join(context.get(), &args); });
            check("fill", [&](qlora_buffer_args &args) { return qlora_buffer_fill(context.get(), &args); });
            check("query", [&](qlora_buffer_args &) {
                auto info = qlora::make<qlora_context_info>();
                return qlora_context_query(context.get(), &info);
            });
            check("synchronize", [&](qlora_buffer_args &) { return qlora_context_synchronize(context.get()); });
            context.synchronize();
        }
        CHECK_MESSAGE(host.blocks == 0, text(target.name, ": ", host.blocks, " blocks leak"));
        CHECK(!host.wrong_release);
    }
}

TEST_CASE("every operation fails cleanly wherever it fails, and works afterwards") {
    for (const Target &target : targets())
        for (const Operation &operation : all_operations()) {
            const Case &one = small_case(operation);
            Accounting host;
            const std::string what = target.name + " " + operation.name;
            {
                const auto options = host.options();
                // A new context, so that what operations make once and keep (pipelines, modules) is made under failure too.
                const qlora::Context context = open(target, &options);
                if (!context.operation_supports(operation.number, one.format, one.type)) continue;
                fail_each(host, what, [&](auto &&arm, std::string &message) {
                    Stage stage(context);
                    stage.before_call = arm;
                    stage.after_call = [&] { host.disarm(); };
                    one.act(stage);
                    message = stage.last_message();
                    // The same call at once again, without failure.
                    if (!host.failed.empty()) {
                        Stage again(context);
                        one.act(again);
                        CHECK_MESSAGE(again.status() == QLORA_OK, text(what, ": after the failure of ", host.failed, ": ", again.last_message()));
                    }
                    return stage.status();
                });
                CHECK(qlora_context_synchronize(context.get()) == QLORA_OK);
            }
            CHECK_MESSAGE(host.blocks == 0, text(what, ": ", host.blocks, " blocks, ", host.bytes, " bytes leak"));
            CHECK_MESSAGE(!host.wrong_release, text(what, ": release was told another size than allocate"));
        }
}

TEST_CASE("results after failures are the results without them") {
    for (const Target &target : targets())
        for (const Operation &operation : all_operations()) {
            const Case &one = small_case(operation);
            auto outputs = [&](uint64_t failing) {
                Accounting host;
                const auto options = host.options();
                const qlora::Context context = open(target, &options);
                if (!context.operation_supports(operation.number, one.format, one.type)) return std::vector<Output>();
                for (uint64_t n = 1; n <= failing; n++) {
                    Stage stage(context);
                    stage.before_call = [&] { host.arm(n); };
                    stage.after_call = [&] { host.disarm(); };
                    one.act(stage);
                }
                Stage stage(context);
                one.act(stage);
                return stage.outputs();
            };
            const std::vector<Output> clean = outputs(0), shaken = outputs(3);
            REQUIRE(clean.size() == shaken.size());
            for (size_t i = 0; i < clean.size(); i++) CHECK_MESSAGE(clean[i].bytes == shaken[i].bytes, text(target.name, " ", operation.name, " ", clean[i].name));
        }
}

TEST_SUITE_END();
