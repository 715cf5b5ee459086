#!/usr/bin/env bash
# header.sh SOURCE_DIR: qlora.h and header_c.c compile with every C and C++ compiler here, strictly, in old and new language.
set -euo pipefail
cd "$1"
tried=0
for compiler in gcc clang; do
    command -v $compiler >/dev/null || { echo "SKIPPED  $compiler is not installed"; continue; }
    for standard in c99 c11 c17; do
        $compiler -std=$standard -pedantic -pedantic-errors -Wall -Wextra -Werror -Wstrict-prototypes -I. -fsyntax-only tests/header_c.c
        echo '#include "qlora.h"' | $compiler -std=$standard -pedantic -Wall -Wextra -Werror -Wpadded -I. -fsyntax-only -x c -
    done
    for standard in c++11 c++17 c++20; do
        echo '#include "qlora.h"' | $compiler -std=$standard -pedantic -Wall -Wextra -Werror -Wold-style-cast -I. -fsyntax-only -x c++ -
    done
    for standard in c++17 c++20; do
        echo '#include "cpp/qlora.hpp"' | $compiler -std=$standard -pedantic -Wall -Wextra -Werror -I. -fsyntax-only -x c++ -
        echo '#include "cpp/qlora.hpp"' | $compiler -std=$standard -DQLORA_EXPECTED -fno-exceptions -pedantic -Wall -Wextra -Werror -I. -fsyntax-only -x c++ -
    done
    $compiler -std=c++20 -pedantic -Wall -Wextra -Werror -I. -fsyntax-only -x c++ - <<'END'
#include "cpp/qlora.hpp"
#include <array>
void spans(const qlora::Context &context, std::array<float, 4> &values) {
    qlora::Buffer buffer = qlora::Buffer::create(context, std::span(values));
    buffer.write(std::span<const float>(values));
    buffer.read(std::span(values));
}
END
    tried=$((tried + 1))
    echo "strict   $($compiler --version | head -1)"
done
[ $tried -gt 0 ]
