// The binary interface: sizes and places of fields are pinned, constants.def is the header's list of integers, symbols.txt its
// list of functions. tests/symbols.sh compares that list with what the shared library exports.
#include "qlora.h"
#include "tests/support/numbers.h"

#include <doctest/doctest.h>

#include <cstddef>
#include <fstream>
#include <map>
#include <regex>
#include <set>

using namespace test;

namespace {

std::string content_of(const std::string &path) {
    std::ifstream file(std::string(QLORA_SOURCE_DIR) + "/" + path);
    REQUIRE_MESSAGE(file.good(), path);
    return std::string((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
}

std::set<std::string> found_in(const std::string &content, const char *pattern) {
    std::set<std::string> names;
    const std::regex expression(pattern);
    for (std::sregex_iterator i(content.begin(), content.end(), expression), end; i != end; ++i) names.insert((*i)[1]);
    return names;
}

struct Pin {
    const char *name;
    size_t found, expected;
};

} // namespace

TEST_SUITE_BEGIN("abi");

TEST_CASE("sizes and places of fields on 64-bit machines") {
    if (sizeof(void *) != 8) return;
#define QLORA_SIZE(type, bytes) {"sizeof " #type, sizeof(type), bytes}
#define QLORA_PLACE(type, field, bytes) {#type "." #field, offsetof(type, field), bytes}
    const Pin pins[] = {
        QLORA_SIZE(qlora_span, 24),
        QLORA_SIZE(qlora_tensor, 56),
        QLORA_PLACE(qlora_tensor, rows, 8),
        QLORA_PLACE(qlora_tensor, data, 32),
        QLORA_SIZE(qlora_format_info, 40),
        QLORA_PLACE(qlora_format_info, name, 32),
        QLORA_SIZE(qlora_weight, 248),
        QLORA_PLACE(qlora_weight, format, 8),
        QLORA_PLACE(qlora_weight, rows, 24),
        QLORA_PLACE(qlora_weight, planes, 40),
        QLORA_PLACE(qlora_weight, outliers, 232),
        QLORA_PLACE(qlora_weight, tensor_scale, 240),
        QLORA_SIZE(qlora_weight_layout_info, 144),
        QLORA_PLACE(qlora_weight_layout_info, plane_offset, 80),
        QLORA_SIZE(qlora_context_args, 168),
        QLORA_PLACE(qlora_context_args, backend, 16),
        QLORA_PLACE(qlora_context_args, allocate, 32),
        QLORA_PLACE(qlora_context_args, parallel_for, 72),
        QLORA_PLACE(qlora_context_args, inject_failure, 88),
        QLORA_PLACE(qlora_context_args, vulkan_queue_family, 144),
        QLORA_PLACE(qlora_context_args, message, 152),
        QLORA_SIZE(qlora_context_info, 296),
        QLORA_PLACE(qlora_context_info, memory_bytes, 24),
        QLORA_PLACE(qlora_context_info, name, 40),
        QLORA_PLACE(qlora_context_info, driver, 168),
        QLORA_SIZE(qlora_buffer_args, 88),
        QLORA_PLACE(qlora_buffer_args, host, 64),
        QLORA_PLACE(qlora_buffer_args, bytes, 72),
        QLORA_SIZE(qlora_graph_args, 40),
        QLORA_PLACE(qlora_graph_args, graph, 16),
        QLORA_PLACE(qlora_graph_args, device_bytes, 32),
        QLORA_SIZE(qlora_quantize_args, 168),
        QLORA_PLACE(qlora_quantize_args, scratch, 16),
        QLORA_PLACE(qlora_quantize_args, weight, 40),
        QLORA_PLACE(qlora_quantize_args, importance, 104),
        QLORA_PLACE(qlora_quantize_args, seed, 128),
        QLORA_PLACE(qlora_quantize_args, power, 136),
        QLORA_PLACE(qlora_quantize_args, not_finite, 144),
        QLORA_SIZE(qlora_dequantize_args, 104),
        QLORA_SIZE(qlora_matmul_args, 168),
        QLORA_PLACE(qlora_matmul_args, compute_type, 160),
        QLORA_SIZE(qlora_hessian_args, 136),
        QLORA_PLACE(qlora_hessian_args, count, 120),
        QLORA_SIZE(qlora_gptq_outcome, 40),
        QLORA_PLACE(qlora_gptq_outcome, loss, 32),
        QLORA_SIZE(qlora_quantize_gptq_args, 160),
        QLORA_PLACE(qlora_quantize_gptq_args, hessian, 104),
        QLORA_PLACE(qlora_quantize_gptq_args, damping, 152),
        QLORA_SIZE(qlora_gptq_tensors, 128),
        QLORA_PLACE(qlora_gptq_tensors, ambiguous_zeros, 112),
        QLORA_SIZE(qlora_spqr_outcome, 56),
        QLORA_PLACE(qlora_spqr_outcome, outliers, 48),
        QLORA_SIZE(qlora_quantize_spqr_args, 160),
        QLORA_PLACE(qlora_quantize_spqr_args, threshold, 156),
        QLORA_SIZE(qlora_spqr_tensors, 128),
        QLORA_PLACE(qlora_spqr_tensors, entry_count, 112),
        QLORA_SIZE(qlora_int8_matmul_args, 192),
        QLORA_PLACE(qlora_int8_matmul_args, threshold, 184),
        QLORA_SIZE(qlora_int8_matmul_grad_args, 160),
        QLORA_SIZE(qlora_weight_gradient_args, 248),
        QLORA_PLACE(qlora_weight_gradient_args, compute_type, 240),
        QLORA_SIZE(qlora_linear_args, 328),
        QLORA_PLACE(qlora_linear_args, bias, 272),
        QLORA_PLACE(qlora_linear_args, scale, 320),
        QLORA_SIZE(qlora_linear_grad_args, 496),
        QLORA_PLACE(qlora_linear_grad_args, scale, 488),
        QLORA_SIZE(qlora_embedding_args, 136),
        QLORA_PLACE(qlora_embedding_args, scale, 128),
        QLORA_SIZE(qlora_rms_norm_args, 296),
        QLORA_PLACE(qlora_rms_norm_args, bias, 240),
        QLORA_SIZE(qlora_rms_norm_grad_args, 336),
        QLORA_PLACE(qlora_rms_norm_grad_args, dbias, 312),
        QLORA_SIZE(qlora_rope_args, 168),
        QLORA_PLACE(qlora_rope_args, head_dim, 144),
        QLORA_SIZE(qlora_swiglu_args, 216),
        QLORA_PLACE(qlora_swiglu_args, activation, 208),
        QLORA_SIZE(qlora_swiglu_grad_args, 328),
        QLORA_PLACE(qlora_swiglu_grad_args, activation, 320),
        QLORA_SIZE(qlora_dropout_args, 168),
        QLORA_PLACE(qlora_dropout_args, probability, 160),
        QLORA_SIZE(qlora_attention_args, 376),
        QLORA_PLACE(qlora_attention_args, slopes, 344),
        QLORA_PLACE(qlora_attention_args, sequence_count, 312),
        QLORA_SIZE(qlora_attention_grad_args, 600),
        QLORA_PLACE(qlora_attention_grad_args, slopes, 568),
        QLORA_SIZE(qlora_cross_entropy_args, 256),
        QLORA_PLACE(qlora_cross_entropy_args, bias, 224),
        QLORA_PLACE(qlora_cross_entropy_args, grad_scale, 208),
        QLORA_SIZE(qlora_parameter, 248),
        QLORA_PLACE(qlora_parameter, learning_rate_scale, 124),
        QLORA_PLACE(qlora_parameter, history, 224),
        QLORA_SIZE(qlora_state_layout_info, 128),
        QLORA_PLACE(qlora_state_layout_info, piece_offset, 80),
        QLORA_SIZE(qlora_schedule, 48),
        QLORA_PLACE(qlora_schedule, learning_rate, 32),
        QLORA_SIZE(qlora_pager, 152),
        QLORA_PLACE(qlora_pager, budget_bytes, 32),
        QLORA_PLACE(qlora_pager, arena, 128),
        QLORA_SIZE(qlora_gradient_norm_args, 112),
        QLORA_SIZE(qlora_optimizer_args, 248),
        QLORA_PLACE(qlora_optimizer_args, learning_rate, 96),
        QLORA_PLACE(qlora_optimizer_args, seed, 136),
        QLORA_PLACE(qlora_optimizer_args, page_bytes, 240),
    };
#undef QLORA_SIZE
#undef QLORA_PLACE
    for (const Pin &pin : pins) CHECK_MESSAGE(pin.found == pin.expected, text(pin.name, " is ", pin.found, ", pinned ", pin.expected));
}

TEST_CASE("constants.def lists every integer macro of the header, and qlora_constant_find knows its value") {
    const std::string header = content_of("qlora.h");
    const std::regex definition("#define +(QLORA_[A-Z0-9_]+) +(-?(?:0x[0-9a-f]+|[0-9]+))u?[ \n]");
    std::map<std::string, int64_t> values;
    for (std::sregex_iterator i(header.begin(), header.end(), definition), end; i != end; ++i) values[(*i)[1]] = std::stoll((*i)[2], nullptr, 0);
    CHECK(values.size() > 50);
    std::set<std::string> names;
    for (const auto &entry : values) {
        names.insert(entry.first);
        int64_t value = 0;
        CHECK_MESSAGE(qlora_constant_find(entry.first.c_str(), &value) == QLORA_OK, entry.first);
        CHECK_MESSAGE(value == entry.second, entry.first);
    }
    // Every other macro of the header has no value to find.
    const std::set<std::string> all = found_in(header, "#(?: *)define +(QLORA_[A-Z0-9_]+)");
    for (const std::string &name : all) CHECK_MESSAGE((names.count(name) || name == "QLORA_H" || name == "QLORA_API"), text(name, " is no integer"));
    CHECK(found_in(content_of("backends/constants.def"), "QLORA_CONSTANT\\((QLORA_[A-Z0-9_]+)\\)") == names);
    int64_t value = 0;
    CHECK(qlora_constant_find("QLORA_NONSENSE", &value) == QLORA_ERROR_ARGUMENT);
}

TEST_CASE("symbols.txt lists every function of the header, in order, and nothing else") {
    const std::set<std::string> declared = found_in(content_of("qlora.h"), "QLORA_API [a-z0-9_ *]*[ *](qlora_[a-z0-9_]+)\\(");
    const std::string listed = content_of("tests/symbols.txt");
    std::string expected;
    for (const std::string &name : declared) expected += name + "\n";
    CHECK(listed == expected);
}

TEST_CASE("every status has its name, every version its number") {
    const std::set<std::string> statuses = found_in(content_of("qlora.h"), "#define +QLORA_((?:ERROR_[A-Z]+|OK)) ");
    CHECK(statuses.size() >= 10);
    for (const std::string &name : statuses) {
        int64_t value = 1;
        CHECK(qlora_constant_find(("QLORA_" + name).c_str(), &value) == QLORA_OK);
        CHECK(std::string(qlora_status_name(int32_t(value))) == name);
    }
    CHECK(qlora_version() == QLORA_VERSION_MAJOR * 1000000 + QLORA_VERSION_MINOR * 1000 + QLORA_VERSION_PATCH);
}

TEST_SUITE_END();
