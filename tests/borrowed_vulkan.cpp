// A context on a device that the caller made, with nothing switched on that Vulkan 1.2 does not promise: it gives the bits that
// the library's own device gives, where integer dot products may be in use.
#include "tests/support/stage.h"
#include "tests/support/targets.h"
#include "tests/support/vulkan_host.h"

#include <doctest/doctest.h>

using namespace test;

namespace {

std::vector<Output> outputs_of(const Case &one, const qlora::Context &context) {
    Stage stage(context);
    one.act(stage);
    CHECK_MESSAGE(stage.status() == QLORA_OK, text(one.name, ": ", stage.last_message()));
    return stage.outputs();
}

} // namespace

TEST_SUITE_BEGIN("borrowed");

TEST_CASE("a device of the caller's gives the same bits") {
    for (const Target &target : targets()) {
        if (target.backend != QLORA_BACKEND_VULKAN) continue;
        const qlora::Context &own = shared_context(target);
        VulkanHost host;
        REQUIRE(host.open(own.query().name));
        const qlora_context_args options = host.options();
        const qlora::Context borrowed = open(target, &options);
        for (const Operation &operation : all_operations()) {
            const Case &one = operation.cases[0];
            if (!own.operation_supports(operation.number, one.format, one.type)) continue;
            const std::vector<Output> expected = outputs_of(one, own), found = outputs_of(one, borrowed);
            REQUIRE(found.size() == expected.size());
            for (size_t i = 0; i < found.size(); i++) CHECK_MESSAGE(found[i].bytes == expected[i].bytes, text(operation.name, " ", one.name, " ", found[i].name));
        }
        for (const Case &one : cases<QLORA_OP_INT8_MATMUL>()) // integer products by other instructions
            if (one.name.find("17x64x256") != std::string::npos) CHECK_MESSAGE(outputs_of(one, borrowed)[0].bytes == outputs_of(one, own)[0].bytes, one.name);
    }
}

TEST_SUITE_END();
