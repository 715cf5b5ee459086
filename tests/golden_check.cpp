// golden_check FILE --backend B [--device N] [--isa I]
//
// Compares a backend with golden outputs of other libraries. Five namings of tensors are understood:
//   <format>.bs<block>.<type>.<n>.{q, absmax | absmax_q, offset, state2_absmax, deq}  made from x.<type>.<n>, code.<table>
//   <TYPE>.{bytes, deq}                                                               made from x[rows][cols]
//   <name>.<M>x<K>x<N>.{A, B, qb, sb, t0.qa, t0.sa, t6.qa, t6.sa, t6.outcols, c32, out, linear8bitlt_t6}   LLM.int8()
//   <name>.<M>x<K>x<N>.nf4dq.<type>.{W, dy, y, dx, y_f64}                             with <name>.<M>x<K>x<N>.A
// One line per group with counts, a summary, exit code 0 when everything agrees, 1 when not, 2 for a wrong command.
//   opt8|opt32.<name>.<type>.{p0, g<t>, p<t>, s1_<t>, ...}                            optimizer steps: golden_check_optim.cpp
//
// A code may differ by one step where the value stands on the border of two codes, and is then counted as a tie: the
// exact quotient x / absmax lies within two units in the last place of the border, which is what the rounding of the
// reciprocal and of the product can move. For double-quantized scales the allowed shift of the offset is added.
#include "tests/golden_check.h"
#include "tests/support/codes.h"
#include "tests/support/comparison.h"
#include "tests/support/safetensors.h"
#include "tests/support/targets.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <set>
#include <stdexcept>

namespace {

using namespace test;
using Tensors = std::map<std::string, SafeTensor>;

// The offset is a mean of absmax, whose order of summation is the device's: it may differ in the last bits.
constexpr double offset_tolerance = 1e-6;

struct Checker {
    const qlora::Context &context;
    const Tensors &tensors;
    std::set<std::string> seen = {};
    uint64_t groups = 0, failures = 0, ties = 0, codes = 0, absent = 0;

    const SafeTensor &take(const std::string &key) {
        const auto found = tensors.find(key);
        if (found == tensors.end()) throw std::runtime_error(key + " is not in the file");
        seen.insert(key);
        return found->second;
    }
    bool has(const std::string &key) const { return tensors.count(key) != 0; }

    qlora::Weight quantize(int32_t format, uint32_t block, int32_t type, uint64_t rows, uint64_t cols, const std::vector<uint8_t> &values) {
        qlora::Weight weight(context, format, rows, cols, block);
        const qlora::Buffer src(context, values);
        auto args = qlora::make<qlora_quantize_args>();
        args.weight = weight.get();
        args.src = qlora::tensor(type, rows, cols, src.span());
        const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
        args.scratch = scratch.span();
        context.weight_quantize(args);
        context.synchronize();
        return weight;
    }
    std::vector<uint8_t> dequantize(const qlora::Weight &weight, int32_t type) {
        const uint64_t rows = weight.get()->rows, cols = weight.get()->cols;
        const qlora::Buffer dst(context, rows * cols * element_bytes(type));
        auto args = qlora::make<qlora_dequantize_args>();
        args.weight = weight.get();
        args.dst = qlora::tensor(type, rows, cols, dst.span());
        const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_DEQUANTIZE, args));
        args.scratch = scratch.span();
        context.weight_dequantize(args);
        return dst.read<uint8_t>();
    }

    void verdict(bool good) {
        groups++;
        if (!good) failures++;
        std::printf("  %s\n", good ? "ok" : "FAILED");
    }

    // <format>.bs<block>.<type>.<n>
    void planes(const std::string &group, int32_t format, uint32_t block, const std::string &type_name, uint64_t count) {
        const int32_t type = activation_type(type_name);
        if (!type) throw std::runtime_error(group + ": unknown element type");
        std::vector<float> values = take("x." + type_name + "." + std::to_string(count)).floats();
        const CodeBook book = code_book(format);
        if (book.values[0] == 0 && book.bits == 8) // the unsigned table holds second moments: golden files give it |x|
            for (float &value : values) value = std::fabs(value);
        const bool nested = has(group + ".absmax_q");
        std::printf("%-24s", group.c_str());

        const qlora::Weight ours = quantize(format, block, type, 1, count, pack(type, values));
        qlora::Weight golden(context, format, 1, count, block);
        auto give = [&](int plane, const char *part) -> const SafeTensor & {
            const SafeTensor &tensor = take(group + part);
            if (tensor.bytes.size() != golden.layout().plane_bytes[plane])
                throw std::runtime_error(group + part + ": " + std::to_string(tensor.bytes.size()) + " bytes where the layout has " +
                                         std::to_string(golden.layout().plane_bytes[plane]));
            golden.write_plane(plane, tensor.bytes.data());
            return tensor;
        };
        const SafeTensor &q = give(QLORA_PLANE_CODE, ".q");

        const std::vector<float> absmax = block_absmax(values, block);
        CodeCount main = compare_codes(book, ours.read_plane(QLORA_PLANE_CODE), q.bytes, values, absmax, block, 0);
        bool good = main.wrong == 0;
        std::printf(" codes %llu equal %llu ties", (unsigned long long)main.equal, (unsigned long long)main.ties);
        if (main.wrong) std::printf(" %llu WRONG (first at %llu)", (unsigned long long)main.wrong, (unsigned long long)main.first_wrong);

        if (!nested) {
            const uint64_t different = different_elements(ours.read_plane(QLORA_PLANE_SCALE), give(QLORA_PLANE_SCALE, ".absmax").bytes, 4);
            std::printf(" | absmax %zu", absmax.size());
            if (different) std::printf(" of which %llu DIFFER", (unsigned long long)different);
            good = good && different == 0;
        } else {
            good = nested_scales(group, ours, give, absmax) && good;
        }
        const std::string deq = group + ".deq";
        const uint64_t different = different_elements(dequantize(golden, type), take(deq).bytes, element_bytes(type));
        std::printf(" | dequantized %llu", (unsigned long long)count);
        if (different) std::printf(" of which %llu DIFFER", (unsigned long long)different);
        ties += main.ties;
        codes += count;
        verdict(good && different == 0);
    }

    template <class Give> bool nested_scales(const std::string &group, const qlora::Weight &ours, Give &&give, const std::vector<float> &absmax) {
        if (has(group + ".state2_blocksize")) {
            const std::vector<uint8_t> expected = {0, 1, 0, 0, 0, 0, 0, 0}; // 256 as int64
            if (take(group + ".state2_blocksize").bytes != expected) throw std::runtime_error(group + ": nested block other than 256");
        }
        const std::vector<uint8_t> &golden_codes = give(QLORA_PLANE_SCALE, ".absmax_q").bytes;
        const std::vector<float> golden_offset = give(QLORA_PLANE_OFFSET, ".offset").floats(), golden_nested = give(QLORA_PLANE_NESTED, ".state2_absmax").floats();
        const float offset = unpack(QLORA_FORMAT_F32, ours.read_plane(QLORA_PLANE_OFFSET))[0];
        const std::vector<float> nested = unpack(QLORA_FORMAT_F32, ours.read_plane(QLORA_PLANE_NESTED));

        const double shift = std::fabs(double(offset) - golden_offset[0]);
        bool good = shift <= offset_tolerance * std::fabs(golden_offset[0]);
        std::printf(" | offset %s", shift == 0 ? "equal" : good ? "last bits differ" : "WRONG");
        if (shift != 0) std::printf(" by %.1e", shift / std::fabs(golden_offset[0]));
        uint64_t wrong_nested = 0;
        for (size_t i = 0; i < golden_nested.size(); i++) // subtracting the offset rounds once more on each side
            if (std::fabs(double(nested[i]) - golden_nested[i]) > shift + std::ldexp(std::fabs(golden_nested[i]), -23)) wrong_nested++;
        if (wrong_nested) std::printf(", %llu nested absmax WRONG", (unsigned long long)wrong_nested);

        std::vector<float> centred(absmax.size());
        for (size_t i = 0; i < absmax.size(); i++) centred[i] = absmax[i] - golden_offset[0];
        const CodeCount count = compare_codes(code_book(QLORA_FORMAT_DYN8), ours.read_plane(QLORA_PLANE_SCALE), golden_codes, centred, golden_nested, 256, shift);
        std::printf(" | absmax_q %llu equal %llu ties", (unsigned long long)count.equal, (unsigned long long)count.ties);
        if (count.wrong) std::printf(" %llu WRONG", (unsigned long long)count.wrong);
        ties += count.ties;
        return good && wrong_nested == 0 && count.wrong == 0;
    }

    // code.<table>: every code of a format, decoded with absmax 1.
    void table(const std::string &key, int32_t format) {
        std::printf("%-24s", key.c_str());
        const SafeTensor &golden = take(key);
        const CodeBook book = code_book(format);
        const uint64_t count = book.values.size();
        std::vector<uint8_t> codes;
        for (uint64_t i = 0; i < count; i++)
            if (book.bits == 8) codes.push_back(uint8_t(i));
            else if (i % 2) codes.push_back(uint8_t((i - 1) << 4 | i));
        qlora::Weight weight(context, format, 1, count, 256);
        const std::vector<float> one = {1.0f};
        weight.write_plane(QLORA_PLANE_CODE, codes.data());
        weight.write_plane(QLORA_PLANE_SCALE, one.data());
        const std::vector<float> decoded = unpack(QLORA_FORMAT_F32, dequantize(weight, QLORA_FORMAT_F32)), expected = golden.floats();
        uint64_t different = decoded.size() == expected.size() ? 0 : 1;
        for (size_t i = 0; i < std::min(decoded.size(), expected.size()); i++) different += decoded[i] != expected[i]; // -0 == 0: fp4's code 8
        std::printf(" %llu values", (unsigned long long)count);
        if (different) std::printf(" of which %llu DIFFER", (unsigned long long)different);
        verdict(different == 0);
    }

    // <TYPE>.bytes and .deq
    void blocks(const std::string &group, int32_t format) {
        std::printf("%-24s", group.c_str());
        const SafeTensor &x = take("x"), &bytes = take(group + ".bytes"), &deq = take(group + ".deq");
        const uint64_t rows = x.shape.at(0), cols = x.shape.at(1);
        qlora::Weight golden(context, format, rows, cols);
        if (bytes.bytes.size() != golden.layout().plane_bytes[QLORA_PLANE_CODE]) throw std::runtime_error(group + ".bytes: size differs from the layout");
        const bool encodes = context.operation_supports(QLORA_OP_QUANTIZE, format, QLORA_FORMAT_F32);
        uint64_t wrong_bytes = 0;
        if (encodes) wrong_bytes = different_elements(quantize(format, 0, QLORA_FORMAT_F32, rows, cols, x.bytes).read_plane(QLORA_PLANE_CODE), bytes.bytes, 1);
        else absent++;
        golden.write_plane(QLORA_PLANE_CODE, bytes.bytes.data());
        const uint64_t wrong_values = different_elements(dequantize(golden, QLORA_FORMAT_F32), deq.bytes, 4);
        if (encodes) std::printf(" bytes %zu", bytes.bytes.size());
        else std::printf(" encoder ABSENT");
        if (wrong_bytes) std::printf(" of which %llu DIFFER", (unsigned long long)wrong_bytes);
        std::printf(" | dequantized %llu", (unsigned long long)(rows * cols));
        if (wrong_values) std::printf(" of which %llu DIFFER", (unsigned long long)wrong_values);
        verdict(wrong_bytes == 0 && wrong_values == 0);
    }

    // <name>.<M>x<K>x<N>.nf4dq.<type>: y = A W^T and dx = dy W, each against products in double.
    void products(const std::string &group, const std::string &type_name) {
        const int32_t type = activation_type(type_name);
        const std::string inputs = group.substr(0, group.find(".nf4dq."));
        std::printf("%-32s", group.c_str());
        const SafeTensor &original = take(group + ".W"), &dy = take(group + ".dy");
        const std::vector<uint8_t> x = pack(type, take(inputs + ".A").floats());
        const uint64_t rows = original.shape.at(0), cols = original.shape.at(1), tokens = dy.shape.at(0);
        const qlora::Weight weight = quantize(QLORA_FORMAT_NF4_DQ, 64, type, rows, cols, original.bytes);

        auto product = [&](uint32_t operation, const std::vector<uint8_t> &input) {
            const bool forward = operation == QLORA_OP_MATMUL;
            const qlora::Buffer from(context, input), to(context, tokens * (forward ? rows : cols) * element_bytes(type));
            auto args = qlora::make<qlora_matmul_args>();
            args.weight = weight.get();
            args.x = qlora::tensor(type, tokens, cols, forward ? from.span() : to.span());
            args.y = qlora::tensor(type, tokens, rows, forward ? to.span() : from.span());
            const qlora::Buffer scratch(context, context.operation_scratch(operation, args));
            args.scratch = scratch.span();
            forward ? context.weight_matmul(args) : context.weight_matmul_grad(args);
            const std::vector<float> values = unpack(type, to.read<uint8_t>());
            return std::vector<double>(values.begin(), values.end());
        };
        const std::vector<float> w = unpack(type, dequantize(weight, type)), dy_values = dy.floats();
        std::vector<double> dx_f64(tokens * cols);
        for (uint64_t t = 0; t < tokens; t++)
            for (uint64_t n = 0; n < rows; n++)
                for (uint64_t c = 0; c < cols; c++) dx_f64[t * cols + c] += double(dy_values[t * rows + n]) * w[n * cols + c];

        const std::vector<double> y_f64 = take(group + ".y_f64").doubles(), y = product(QLORA_OP_MATMUL, x), dx = product(QLORA_OP_MATMUL_GRAD, dy.bytes);
        const double y_error = relative_error(y, y_f64), dx_error = relative_error(dx, dx_f64);
        std::printf(" y: ours %.1e theirs %.1e | dx: ours %.1e theirs %.1e", y_error, relative_error(take(group + ".y").doubles(), y_f64), dx_error,
                    relative_error(take(group + ".dx").doubles(), dx_f64));
        verdict(y_error <= tolerance(QLORA_OP_MATMUL, type) && dx_error <= tolerance(QLORA_OP_MATMUL_GRAD, type));
    }

    // Rows of f16 as INT8 against golden codes and scales; a code may differ by one where x * 127 / absmax is a middle.
    bool rows_of_bytes(const std::string &values, const std::string &codes, const std::string &scales) {
        const SafeTensor &x = take(values), &q = take(codes), &s = take(scales);
        const qlora::Weight ours = quantize(QLORA_FORMAT_INT8, 0, activation_type(x.type), x.shape.at(0), x.shape.at(1), x.bytes);
        const std::vector<uint8_t> own = ours.read_plane(QLORA_PLANE_CODE);
        const std::vector<float> inputs = x.floats(), absmax = s.floats();
        uint64_t tied = 0, wrong = 0;
        for (size_t i = 0; i < own.size(); i++) {
            const int difference = int8_t(own[i]) - int8_t(q.bytes.at(i));
            if (difference == 0) continue;
            const double quotient = inputs[i] * 127.0 / absmax[i / x.shape[1]], from_middle = std::fabs(quotient - std::floor(quotient) - 0.5);
            std::abs(difference) == 1 && from_middle <= std::ldexp(std::fabs(quotient), -22) ? tied++ : wrong++;
        }
        const uint64_t scales_differ = different_elements(ours.read_plane(QLORA_PLANE_SCALE), s.bytes, 4);
        std::printf(" %s %llu equal %llu ties", codes.substr(codes.find_last_of('.') + 1).c_str(), (unsigned long long)(own.size() - tied - wrong), (unsigned long long)tied);
        if (wrong) std::printf(" %llu WRONG", (unsigned long long)wrong);
        if (scales_differ) std::printf(", scales: %llu DIFFER", (unsigned long long)scales_differ);
        this->codes += own.size();
        ties += tied;
        return wrong == 0 && scales_differ == 0;
    }

    // f32 activations of which a row's quantization is known: every code times scale / 127, but the largest exactly the scale.
    static std::vector<float> values_of_codes(const SafeTensor &q, const std::vector<float> &absmax) {
        std::vector<float> x(q.bytes.size());
        for (size_t i = 0; i < x.size(); i++) {
            const int code = int8_t(q.bytes[i]);
            const float scale = absmax.empty() ? 127.0f : absmax[i / q.shape[1]];
            x[i] = std::abs(code) == 127 ? std::copysign(scale, float(code)) : scale * float(code) / 127;
        }
        return x;
    }

    std::vector<uint8_t> int8_product(const qlora::Weight &weight, int32_t type, const std::vector<uint8_t> &x, float threshold) {
        const uint64_t rows = weight.get()->rows, cols = weight.get()->cols, tokens = x.size() / element_bytes(type) / cols;
        const qlora::Buffer from(context, x), to(context, tokens * rows * element_bytes(type));
        auto args = qlora::make<qlora_int8_matmul_args>();
        args.weight = weight.get();
        args.x = qlora::tensor(type, tokens, cols, from.span());
        args.y = qlora::tensor(type, tokens, rows, to.span());
        args.threshold = threshold;
        const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_INT8_MATMUL, args));
        args.scratch = scratch.span();
        context.int8_matmul(args);
        return to.read<uint8_t>();
    }

    // <name>.<M>x<K>x<N>: LLM.int8() with thresholds 0 and 6.
    void int8_rows(const std::string &group) {
        std::printf("%-20s", group.c_str());
        if (!context.operation_supports(QLORA_OP_QUANTIZE, QLORA_FORMAT_INT8, QLORA_FORMAT_F32)) {
            for (const char *part : {".A", ".B", ".qb", ".sb", ".t0.qa", ".t0.sa", ".t6.qa", ".t6.sa", ".t6.outcols", ".c32", ".out", ".linear8bitlt_t6"}) take(group + part);
            absent++;
            std::printf(" format ABSENT");
            return verdict(true);
        }
        bool good = rows_of_bytes(group + ".B", group + ".qb", group + ".sb");
        good = rows_of_bytes(group + ".A", group + ".t0.qa", group + ".t0.sa") && good;
        if (!context.operation_supports(QLORA_OP_INT8_MATMUL, QLORA_FORMAT_INT8, QLORA_FORMAT_F32)) {
            for (const char *part : {".t6.qa", ".t6.sa", ".t6.outcols", ".c32", ".out", ".linear8bitlt_t6"}) take(group + part);
            std::printf(" | this backend has no product in int8");
            return verdict(good);
        }
        const SafeTensor &a = take(group + ".A"), &qb = take(group + ".qb"), &sb = take(group + ".sb"), &qa = take(group + ".t0.qa");
        const uint64_t rows = qb.shape.at(0), cols = qb.shape.at(1);
        auto weight_of = [&](uint64_t count, const std::vector<uint8_t> &codes, const std::vector<float> &scales) {
            qlora::Weight weight(context, QLORA_FORMAT_INT8, count, cols);
            weight.write_plane(QLORA_PLANE_CODE, codes.data());
            weight.write_plane(QLORA_PLANE_SCALE, scales.data());
            return weight;
        };
        // With all scales 127 the only rounding of a sum is the factor's: dividing by it finds the integer.
        const SafeTensor &c32 = take(group + ".c32"), &out = take(group + ".out");
        const std::vector<float> sums = unpack(QLORA_FORMAT_F32, int8_product(weight_of(rows, qb.bytes, std::vector<float>(rows, 127.0f)), QLORA_FORMAT_F32, bytes_of(values_of_codes(qa, {})), 0));
        uint64_t wrong_sums = 0, wrong_out = 0;
        for (size_t i = 0; i < sums.size(); i++) {
            int32_t golden;
            std::memcpy(&golden, c32.bytes.data() + 4 * i, 4);
            wrong_sums += std::llround(sums[i] / double(127.0f * 127.0f * 6.200012e-05f)) != golden;
        }
        const qlora::Weight weight = weight_of(rows, qb.bytes, sb.floats());
        const std::vector<float> y = unpack(QLORA_FORMAT_F32, int8_product(weight, QLORA_FORMAT_F32, bytes_of(values_of_codes(qa, take(group + ".t0.sa").floats())), 0));
        wrong_out = different_elements(pack(QLORA_FORMAT_F16, y), out.bytes, 2);
        std::printf(" | c32 %zu, %llu wrong | out %llu wrong", sums.size(), (unsigned long long)wrong_sums, (unsigned long long)wrong_out);

        // Against an identity the product shows what became of every activation: its code, or itself in outlier columns.
        const SafeTensor &qa6 = take(group + ".t6.qa"), &outliers = take(group + ".t6.outcols");
        const std::vector<float> sa6 = take(group + ".t6.sa").floats(), inputs = a.floats();
        std::vector<uint8_t> identity(cols * cols, 0);
        for (uint64_t c = 0; c < cols; c++) identity[c * cols + c] = 1;
        const std::vector<float> seen = unpack(QLORA_FORMAT_F32, int8_product(weight_of(cols, identity, std::vector<float>(cols, 1.0f)), QLORA_FORMAT_F32, bytes_of(inputs), 6));
        std::set<uint64_t> columns;
        for (uint64_t i = 0; i < outliers.count(); i++) {
            int32_t column;
            std::memcpy(&column, outliers.bytes.data() + 4 * i, 4);
            columns.insert(uint64_t(column));
        }
        uint64_t wrong_codes = 0, tied = 0;
        for (size_t i = 0; i < seen.size(); i++) {
            const double absmax = sa6[i / cols], part = absmax * 6.200012e-05;
            const bool is_outlier = columns.count(i % cols) != 0;
            const double expected = is_outlier ? inputs[i] / 127.0 : int8_t(qa6.bytes[i]) * part;
            if (is_outlier && qa6.bytes[i]) wrong_codes++;
            if (std::fabs(seen[i] - expected) <= 1e-6 * std::fabs(expected)) continue;
            const double quotient = inputs[i] * 127.0 / absmax, from_middle = std::fabs(quotient - std::floor(quotient) - 0.5);
            !is_outlier && from_middle <= std::ldexp(std::fabs(quotient), -22) && std::fabs(seen[i] - expected) <= 1.01 * part ? tied++ : wrong_codes++;
        }
        ties += tied;
        codes += seen.size();
        const double error = relative_error(unpack(QLORA_FORMAT_F16, int8_product(weight, QLORA_FORMAT_F16, a.bytes, 6)), take(group + ".linear8bitlt_t6").floats());
        std::printf(" | t6 qa %llu equal %llu ties %llu wrong, %zu outlier columns, linear %.1e", (unsigned long long)(seen.size() - tied - wrong_codes), (unsigned long long)tied,
                    (unsigned long long)wrong_codes, columns.size(), error);
        verdict(good && wrong_sums == 0 && wrong_out == 0 && wrong_codes == 0 && error <= tolerance(QLORA_OP_INT8_MATMUL, QLORA_FORMAT_F16));
    }

    template <class Function> void guarded(Function &&check) {
        try {
            check();
        } catch (const std::exception &error) {
            std::printf(" %s", error.what());
            verdict(false);
        }
    }
};

// Splits at dots.
std::vector<std::string> split(const std::string &key) {
    std::vector<std::string> parts(1);
    for (char c : key)
        if (c == '.') parts.emplace_back();
        else parts.back() += c;
    return parts;
}

// "nf4dq" -> QLORA_FORMAT_NF4_DQ, "Q4_0" -> QLORA_FORMAT_Q4_0; 0 when this build knows it not.
int32_t format_by_golden_name(const std::string &name) {
    for (const qlora::FormatRow &row : qlora::format_rows) {
        std::string plain = row.name, upper;
        plain.erase(std::remove(plain.begin(), plain.end(), '-'), plain.end());
        for (char c : plain) upper += char(std::toupper(static_cast<unsigned char>(c)));
        if (name == plain || name == upper) return row.format;
    }
    return 0;
}

int check_file(const std::string &path, const Tensors &tensors, const std::map<std::string, std::string> &metadata, const qlora::Context &context) {
    Checker checker = {context, tensors};
    std::set<std::string> skipped;
    for (const auto &entry : tensors) {
        const std::vector<std::string> parts = split(entry.first);
        const std::string &last = parts.back(), group = entry.first.substr(0, entry.first.size() - last.size() - (parts.size() > 1));
        const int32_t format = format_by_golden_name(parts[0]);
        if (parts.size() == 5 && last == "q" && parts[1].compare(0, 2, "bs") == 0) {
            if (!format) { skipped.insert(parts[0] + ": this build has no such format"); continue; }
            checker.guarded([&] { checker.planes(group, format, uint32_t(std::atoi(parts[1].c_str() + 2)), parts[2], std::strtoull(parts[3].c_str(), nullptr, 10)); });
        } else if (parts.size() == 2 && parts[0] == "code") {
            const int32_t of = last == "dynamic_signed" ? QLORA_FORMAT_DYN8 : last == "dynamic_unsigned" ? QLORA_FORMAT_UDYN8 : format_by_golden_name(last);
            if (of) checker.guarded([&] { checker.table(entry.first, of); });
        } else if (parts.size() == 2 && last == "bytes") {
            if (!format) { skipped.insert(parts[0] + ": this build has no such format"); continue; }
            checker.guarded([&] { checker.blocks(group, format); });
        } else if (last == "c32") {
            checker.guarded([&] { checker.int8_rows(group); });
        } else if (last == "y_f64") {
            checker.guarded([&] { checker.products(group, parts[parts.size() - 2]); });
        }
    }
    const OptimizerTally steps = check_optimizers(context, tensors, metadata, checker.seen);
    checker.groups += steps.groups;
    checker.failures += steps.failures;
    checker.codes += steps.codes;
    checker.ties += steps.neighbours;
    std::map<std::string, uint64_t> unknown;
    for (const auto &entry : tensors)
        if (!checker.seen.count(entry.first)) unknown[split(entry.first)[0] + "...." + split(entry.first).back()]++;
    for (const std::string &line : skipped) std::printf("skipped   %s\n", line.c_str());
    for (const auto &entry : unknown) std::printf("not used  %s (%llu tensors)\n", entry.first.c_str(), (unsigned long long)entry.second);
    std::printf("%s on %s: %llu groups, %llu failed; %llu codes, %llu ties, %llu absent\n", path.c_str(), context.query().name, (unsigned long long)checker.groups,
                (unsigned long long)checker.failures, (unsigned long long)checker.codes, (unsigned long long)checker.ties, (unsigned long long)checker.absent);
    if (checker.groups == 0) std::printf("nothing in this file was checked\n");
    return checker.failures || checker.groups == 0 ? 1 : 0;
}

} // namespace

int main(int count, char **arguments) {
    std::string path;
    Target target = {"", 0, 0, QLORA_ISA_BEST};
    for (int i = 1; i < count; i++) {
        const std::string argument = arguments[i], value = i + 1 < count ? arguments[i + 1] : "";
        if (argument == "--backend") target.backend = backend_by_name(value), i++;
        else if (argument == "--device") target.device = std::atoi(value.c_str()), i++;
        else if (argument == "--isa") target.isa = isa_by_name(value), i++;
        else path = argument;
    }
    if (path.empty() || target.backend == 0 || target.isa < 0) {
        std::fprintf(stderr, "usage: golden_check FILE --backend ref|cpu|cuda|vulkan [--device N] [--isa scalar|avx2|avx512|neon]\n");
        return 2;
    }
    try {
        std::map<std::string, std::string> metadata;
        const Tensors tensors = read_safetensors(path, &metadata);
        try {
            const qlora::Context context = open(target);
            return check_file(path, tensors, metadata, context);
        } catch (const qlora::Error &error) {
            std::printf("SKIPPED: %s\n", error.what());
            return error.status() == QLORA_ERROR_UNAVAILABLE ? skip_code : 1;
        }
    } catch (const std::exception &error) {
        std::fprintf(stderr, "golden_check: %s\n", error.what());
        return 2;
    }
}
