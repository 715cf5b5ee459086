// Every operation of ops.def, every case of it, on every target: equal to ref within ops.def, equal bits when run again,
// nothing written but the outputs.
#include "tests/support/comparison.h"
#include "tests/support/shapes.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <stdexcept>

namespace test {

std::vector<Operation> all_operations() {
    return {
#define QLORA_OPERATION(ID, name, entry, args_type, takes_weight, ...) {QLORA_OP_##ID, #name, takes_weight, cases<QLORA_OP_##ID>()},
#include "backends/ops.def"
#undef QLORA_OPERATION
    };
}

const Case &small_case(const Operation &operation) {
    const Case *best = nullptr;
    for (const Case &one : operation.cases)
        if (!best || (one.format == QLORA_FORMAT_NF4_DQ && best->format != one.format)) best = &one;
    return *best;
}

} // namespace test

using namespace test;

namespace {

// What a case gave on one context: its outputs, or why not.
struct Result {
    int32_t status;
    std::string message;
    std::vector<Output> outputs;
};

Result perform(const Case &one, const qlora::Context &context) {
    try {
        Stage stage(context);
        one.act(stage);
        if (stage.status() != QLORA_OK) return {stage.status(), stage.last_message(), {}};
        return {QLORA_OK, "", stage.outputs()};
    } catch (const qlora::Error &error) {
        return {error.status(), error.what(), {}};
    } catch (const std::exception &error) {
        return {1, error.what(), {}};
    }
}

// The worst error of all outputs against ref, and a sentence when it is too large.
double judge(const std::vector<Output> &outputs, const std::vector<Output> &expected, double allowed, std::string &complaint) {
    double worst = 0;
    REQUIRE(outputs.size() == expected.size());
    for (size_t i = 0; i < outputs.size(); i++) {
        const Output &out = outputs[i], &ref = expected[i];
        if (out.type == QLORA_FORMAT_DYN8) { // a value between two codes may fall to either
            const CodeDifference codes = code_difference(out.bytes, ref.bytes);
            if (codes.wrong || codes.neighbours * 1000 > ref.bytes.size() + 1000)
                complaint += " " + out.name + ": of " + std::to_string(ref.bytes.size()) + " codes " + std::to_string(codes.neighbours) + " are one off, " + std::to_string(codes.wrong) + " wrong;";
            continue;
        }
        if (out.type == 0 || allowed == 0) {
            const uint64_t different = different_elements(out.bytes, ref.bytes, out.type ? element_bytes(out.type) : 1);
            if (different) complaint += " " + out.name + ": " + std::to_string(different) + " of " + std::to_string(ref.bytes.size() / (out.type ? element_bytes(out.type) : 1)) + " differ;";
            continue;
        }
        const std::vector<float> values = unpack(out.type, out.bytes), wanted = unpack(ref.type, ref.bytes);
        const double error = relative_error(values, wanted), peak = largest_error(values, wanted);
        // One element may stand out of the mean, but not by an order of magnitude: sixteen times the tolerance, of the largest.
        if (!(error <= allowed)) complaint += " " + out.name + ": relative error " + std::to_string(error / allowed) + " times the tolerance;";
        else if (!(peak <= 16 * allowed)) complaint += " " + out.name + ": one element is off by " + std::to_string(peak / allowed) + " times the tolerance;";
        if (!(error <= worst)) worst = error;
    }
    return worst;
}

// A software device takes minutes where a GPU takes seconds: there a twelfth of the cases is run, drawn at random but always the same, unless
// QLORA_TEST_ALL is set; of the many rows that differ in their decoder alone, a fortieth. QLORA_TEST_SHARE=n takes the n-th part of
// that. How many were left out is printed.
bool left_out(const Target &target, const Operation &operation, const Case &one, uint64_t number) {
    const bool software = std::string(shared_context(target).query().name).find("llvmpipe") != std::string::npos;
    const qlora::FormatRow *row = qlora::format_row(one.format);
    const char *part = std::getenv("QLORA_TEST_SHARE");
    const uint64_t share = (row && row->codec >= qlora::Codec::BLOCK ? 40 : 12) * uint64_t(part ? std::max(1, std::atoi(part)) : 1);
    return software && !std::getenv("QLORA_TEST_ALL") && operation.cases.size() >= 20 && mix(operation.number, number) % share != 0;
}

void run_operation(const Operation &operation) {
    REQUIRE(!operation.cases.empty());
    struct Tally {
        uint64_t run = 0, failed = 0, unsupported = 0, left_out = 0;
        std::map<int32_t, double> worst; // by deciding type
    };
    std::map<std::string, Tally> tallies;
    uint64_t number = 0;
    for (const Case &one : operation.cases) {
        number++;
        std::vector<Target> wanting;
        for (const Target &target : targets())
            if (left_out(target, operation, one, number)) tallies[target.name].left_out++;
            else wanting.push_back(target);
        if (wanting.empty()) continue;
        const Result expected = perform(one, shared_context(reference()));
        const bool told_wrong = expected.status != QLORA_OK;
        if (told_wrong) FAIL_CHECK(text(operation.name, " on ref: ", one.name, ": ", expected.message));
        for (const Target &target : wanting) {
            if (told_wrong) break;
            Tally &tally = tallies[target.name];
            const qlora::Context &context = shared_context(target);
            const std::string where = std::string(operation.name) + " on " + target.name + ": " + one.name + ": ";
            const bool supported = context.operation_supports(operation.number, one.format, one.type);
            const Result first = perform(one, context);
            if (!supported) {
                tally.unsupported++;
                if (first.status != QLORA_ERROR_UNSUPPORTED) FAIL_CHECK(text(where, "supports says no, the call says ", qlora_status_name(first.status)));
                continue;
            }
            tally.run++;
            const int32_t type = deciding_type(one.type, one.compute_type);
            std::string complaint;
            if (first.status != QLORA_OK) {
                complaint = first.message.empty() ? qlora_status_name(first.status) : first.message;
            } else {
                const double worst = judge(first.outputs, expected.outputs, tolerance(operation.number, type), complaint);
                if (!(worst <= tally.worst[type])) tally.worst[type] = worst;
                const Result second = perform(one, context);
                for (size_t i = 0; i < first.outputs.size() && second.outputs.size() == first.outputs.size(); i++)
                    if (first.outputs[i].bytes != second.outputs[i].bytes) complaint += " " + first.outputs[i].name + ": other bits when run again;";
                if (second.outputs.size() != first.outputs.size()) complaint += " run again: " + second.message;
            }
            if (!complaint.empty()) {
                tally.failed++;
                FAIL_CHECK(text(where, complaint));
            }
        }
    }
    for (const auto &entry : tallies) {
        std::printf("%-15s %-12s %4llu cases", operation.name, entry.first.c_str(), (unsigned long long)entry.second.run);
        if (entry.second.failed) std::printf(", %llu FAILED", (unsigned long long)entry.second.failed);
        for (const auto &worst : entry.second.worst) std::printf("  %s %.1e", format_name(worst.first).c_str(), worst.second);
        if (entry.second.left_out) std::printf("  LEFT OUT %llu: software device", (unsigned long long)entry.second.left_out);
        if (entry.second.unsupported) std::printf("  UNSUPPORTED %llu", (unsigned long long)entry.second.unsupported);
        std::printf("\n");
    }
    std::fflush(stdout);
}

} // namespace

TEST_SUITE_BEGIN("ops");

#define QLORA_OPERATION(ID, name, entry, args_type, takes_weight, ...)                                        \
    TEST_CASE(#name) { run_operation({QLORA_OP_##ID, #name, takes_weight, cases<QLORA_OP_##ID>()}); }
#include "backends/ops.def"
#undef QLORA_OPERATION

TEST_CASE("every weight operation has a case for every format and type") {
    for (const Operation &operation : all_operations())
        for (int32_t type : types)
            for (const qlora::FormatRow &row : qlora::format_rows) {
                if (operation.weight_column != 0 && !qlora::operation_takes(operation.weight_column, &row)) continue;
                if (operation.number == QLORA_OP_GRADIENT_NORM || operation.number == QLORA_OP_OPTIMIZER_STEP) continue;
                const int32_t format = operation.weight_column ? row.format : 0;
                const bool found = std::any_of(operation.cases.begin(), operation.cases.end(), [&](const Case &one) { return one.format == format && one.type == type; });
                CHECK_MESSAGE(found, text(operation.name, " has no case for ", format_name(format), " ", format_name(type)));
            }
}

TEST_SUITE_END();
