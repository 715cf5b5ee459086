// doctest's main with two more options: --backend=NAME (or QLORA_TEST_BACKEND) and --device=N (or QLORA_TEST_DEVICE).
#define DOCTEST_CONFIG_IMPLEMENT
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

int main(int count, char **arguments) {
    const char *backend = std::getenv("QLORA_TEST_BACKEND"), *device = std::getenv("QLORA_TEST_DEVICE");
    for (int i = 1; i < count; i++) {
        if (!std::strncmp(arguments[i], "--backend=", 10)) backend = arguments[i] + 10;
        if (!std::strncmp(arguments[i], "--device=", 9)) device = arguments[i] + 9;
    }
    if (backend && *backend && !test::backend_by_name(backend)) {
        std::fprintf(stderr, "%s: no backend is called '%s'; take ref, cpu, cuda or vulkan\n", arguments[0], backend);
        return 2;
    }
    std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12); // what ran before a crash is seen
    test::choose_backend(backend ? backend : "", device ? std::atoi(device) : 0);
    if (test::targets().empty()) {
        std::printf("SKIPPED: nothing here to run the tests on\n");
        return test::skip_code;
    }
    doctest::Context context(count, arguments);
    const int result = context.run();
    test::close_shared_contexts();
    return result;
}
