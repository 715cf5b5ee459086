// qlora-finetune: exit code 0 after success, 2 after an error, which is one line on standard error.
#include "perplexity_table.h"
#include "session.h"

#include <cstdio>
#include <new>

int main(int argc, char **argv) {
    std::string message;
    try {
        finetune::Options options;
        if (!finetune::parse_options(argc, argv, &options)) return 0;
        if (options.perplexity_table.empty()) finetune::run_session(options);
        else finetune::print_perplexity_table(options);
        return 0;
    } catch (const finetune::Error &error) { message = error.what(); } catch (const qlora::Error &error) {
        message = std::string(error.what()) + " (" + qlora_status_name(error.status()) + ")";
    } catch (const std::bad_alloc &) { message = "out of memory; lower --batch or --eval-tokens"; }
    fflush(stdout);
    fprintf(stderr, "qlora-finetune: error: %s\n", message.c_str());
    return 2;
}
