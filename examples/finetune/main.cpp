// qlora-finetune: what it answers is in exit_codes.h; an error is one line on standard error.
#include "commands.h"
#include "cpp/qlora.hpp"
#include "error.h"
#include "watchdog.h"

#include <cstdio>
#include <new>

int main(int argc, char **argv) {
    std::string message;
    int code = finetune::exit_error;
    try {
        return finetune::run_command(argc, argv);
    } catch (const finetune::TrainingFailed &error) {
        message = error.what();
        code = finetune::exit_failed;
    } catch (const finetune::Error &error) { message = error.what(); } catch (const qlora::Error &error) {
        message = std::string(error.what()) + " (" + qlora_status_name(error.status()) + ")";
    } catch (const std::bad_alloc &) { message = "out of memory; lower --batch or --eval-tokens"; } catch (const std::exception &error) {
        message = error.what();
    }
    fflush(stdout);
    for (char &c : message) // names of files may hold anything
        if (static_cast<unsigned char>(c) < 0x20) c = ' ';
    fprintf(stderr, "qlora-finetune: error: %s\n", message.c_str());
    return code;
}
