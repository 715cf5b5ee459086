// qlora-finetune: exit code 0 after success, 2 after an error, which is one line on standard error.
#include "commands.h"
#include "cpp/qlora.hpp"
#include "error.h"

#include <cstdio>
#include <new>

int main(int argc, char **argv) {
    std::string message;
    try {
        return finetune::run_command(argc, argv);
    } catch (const finetune::Error &error) { message = error.what(); } catch (const qlora::Error &error) {
        message = std::string(error.what()) + " (" + qlora_status_name(error.status()) + ")";
    } catch (const std::bad_alloc &) { message = "out of memory; lower --batch or --eval-tokens"; }
    fflush(stdout);
    fprintf(stderr, "qlora-finetune: error: %s\n", message.c_str());
    return finetune::exit_error;
}
