// The program without its process, for tests.
#pragma once

#include <cstdio>

namespace quantize {

// Exit code 0 after success, 2 after an error, which is one line in `err`; then nothing was written.
int run_program(int argc, const char *const *argv, FILE *out, FILE *err);

} // namespace quantize
