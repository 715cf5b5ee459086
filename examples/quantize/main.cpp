// qlora-quantize: exit code 0 after success, 2 after an error, which is one line on standard error.
#include "program.h"

int main(int argc, char **argv) { return quantize::run_program(argc, argv, stdout, stderr); }
