// Compares the support grid of README.md with what the backends of this machine answer.
//   support_grid README.md     exit code 0: true; 1: the right rows are printed; a backend with no device here is not judged
#include "tests/support/targets.h"

#include "backends/formats.h"

#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

namespace {

const int32_t kinds[] = {QLORA_BACKEND_REF, QLORA_BACKEND_CPU, QLORA_BACKEND_CUDA, QLORA_BACKEND_VULKAN};
const int32_t types[] = {QLORA_FORMAT_F32, QLORA_FORMAT_F16, QLORA_FORMAT_BF16};

// "yes", or how many of the operations x types that touch this format (0: those without a weight) have a kernel.
std::string answer(qlora_context *context, int32_t format) {
    int have = 0, all = 0;
#define QLORA_OPERATION(ID, name, entry, args, weight, ...)                                                   \
    if (qlora::operation_takes(weight, qlora::format_row(format)))                                            \
        for (int32_t type : types) {                                                                          \
            all++;                                                                                            \
            have += qlora_operation_supports(context, QLORA_OP_##ID, format, type) == QLORA_OK;               \
        }
#include "backends/ops.def"
#undef QLORA_OPERATION
    return have == all ? "yes" : have == 0 ? "no" : std::to_string(have) + "/" + std::to_string(all);
}

std::vector<std::string> cells(const std::string &line) {
    std::vector<std::string> found;
    size_t from = line.find('|');
    while (from != std::string::npos) {
        const size_t to = line.find('|', from + 1);
        if (to == std::string::npos) break;
        std::string cell = line.substr(from + 1, to - from - 1);
        const size_t first = cell.find_first_not_of(' '), last = cell.find_last_not_of(' ');
        found.push_back(first == std::string::npos ? "" : cell.substr(first, last - first + 1));
        from = to;
    }
    return found;
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 2) return 2;
    std::ifstream file(argv[1]);
    std::vector<std::vector<std::string>> table;
    for (std::string line; std::getline(file, line);) table.push_back(cells(line));

    int wrong = 0, judged = 0;
    for (int column = 0; column < 4; column++) {
        qlora_context_args args = {};
        args.struct_size = sizeof args;
        args.backend = kinds[column];
        qlora_context *context = nullptr;
        if (qlora_context_create(&args, &context) != QLORA_OK) continue;
        for (int row = -1; row < qlora::format_count; row++) {
            const int32_t format = row < 0 ? 0 : qlora::format_rows[row].format;
            const std::string name = row < 0 ? "operations without a weight" : "`" + std::string(qlora::format_rows[row].name) + "`";
            std::string claimed = "no row";
            for (const auto &line : table)
                if (line.size() >= 6 && line[0] == name) claimed = line[size_t(column) + 2];
            const std::string true_answer = answer(context, format);
            judged++;
            if (claimed != true_answer) {
                wrong++;
                std::printf("%s: README says %s in column %d, the backend %s\n", name.c_str(), claimed.c_str(), column + 1, true_answer.c_str());
            }
        }
        qlora_context_destroy(context);
    }
    std::printf("%d cells judged, %d wrong\n", judged, wrong);
    return wrong != 0 || judged == 0;
}
