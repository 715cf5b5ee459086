// qlora.hpp - the C interface of qlora.h with owners. C++17, header only.
//
// SPDX-License-Identifier: MIT
//
// Handles are move-only and free what they own. Failures throw qlora::Error, and nothing below this header throws; with
// QLORA_EXPECTED defined nothing here throws either: what can fail returns a Result, which is a value or an Error, and objects are made
// by create() instead of constructors. With C++20 buffers take and fill std::span.
// It adds no meaning: args structs are those of qlora.h, and each member function is the C function of its name.
// A Context outlives the Buffers, Weights and Graphs made with it. A moved-from object may only be assigned to or destroyed.
//
// [example]
// #include "cpp/qlora.hpp"
// #include <vector>
//
// int main() {
//     qlora::Context context(QLORA_BACKEND_REF);
//     const uint64_t rows = 48, cols = 64, tokens = 5;
//     std::vector<float> values(rows * cols, 0.5f), input(tokens * cols, 1.0f), output(tokens * rows);
//
//     qlora::Buffer source(context, values), x(context, input), y(context, output.size() * sizeof(float));
//     qlora::Weight weight(context, QLORA_FORMAT_NF4, rows, cols);
//
//     auto quantize = qlora::make<qlora_quantize_args>();
//     quantize.weight = weight.get();
//     quantize.src = qlora::tensor(QLORA_FORMAT_F32, rows, cols, source.span());
//     qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, quantize));
//     quantize.scratch = scratch.span();
//     context.weight_quantize(quantize);
//
//     auto matmul = qlora::make<qlora_matmul_args>();
//     matmul.weight = weight.get();
//     matmul.x = qlora::tensor(QLORA_FORMAT_F32, tokens, cols, x.span());
//     matmul.y = qlora::tensor(QLORA_FORMAT_F32, tokens, rows, y.span());
//     scratch = qlora::Buffer(context, context.operation_scratch(QLORA_OP_MATMUL, matmul));
//     matmul.scratch = scratch.span();
//     context.weight_matmul(matmul);
//
//     y.read(output.data(), y.size()); // waits for the work before it
//     return output[0] == 32 ? 0 : 1;
// }
// [end of example]
//
// The same without exceptions:
//
// [example of expected]
// #define QLORA_EXPECTED
// #include "cpp/qlora.hpp"
// #include <cstdio>
//
// qlora::Result<float> first_sum() {
//     auto context = qlora::Context::create(QLORA_BACKEND_CPU);
//     if (!context) return context.error();
//     auto buffer = qlora::Buffer::create(*context, std::vector<float>{1, 2, 3, 4});
//     if (!buffer) return buffer.error();
//     auto values = buffer->read<float>();
//     if (!values) return values.error();
//     return (*values)[0] + (*values)[3];
// }
//
// int main() {
//     const auto sum = first_sum();
//     if (!sum) std::printf("%s\n", sum.error().what());
//     auto context = qlora::Context::create(77); // none of QLORA_BACKEND_*
//     return sum && *sum == 5 && !context && context.error().status() == QLORA_ERROR_ARGUMENT ? 0 : 1;
// }
// [end of example]
#pragma once
#include "qlora.h"

#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>
#if defined(__cpp_lib_span) || (__cplusplus >= 202002L && defined(__has_include))
#if __has_include(<span>)
#include <span>
#endif
#endif
#ifndef QLORA_EXPECTED
#include <stdexcept>
#endif

namespace qlora {

// What the library answered: a status of qlora.h and the sentence that goes with it.
#ifdef QLORA_EXPECTED
class [[nodiscard]] Error {
public:
    Error(int32_t status, std::string message) : status_(status), message_(message.empty() ? qlora_status_name(status) : std::move(message)) {}
    int32_t status() const noexcept { return status_; }
    const char *what() const noexcept { return message_.c_str(); }

private:
    int32_t status_;
    std::string message_;
};

// A value or the Error that was met instead. Asking for the one that it is not is a mistake of the caller.
template <class T> class [[nodiscard]] Result {
public:
    Result(T value) : value_(std::move(value)) {}
    Result(Error error) : error_(std::move(error)) {}
    explicit operator bool() const noexcept { return !error_; }
    T &operator*() noexcept { return *value_; }
    const T &operator*() const noexcept { return *value_; }
    T *operator->() noexcept { return &*value_; }
    const T *operator->() const noexcept { return &*value_; }
    const Error &error() const noexcept { return *error_; }

private:
    std::optional<T> value_;
    std::optional<Error> error_;
};
template <> class [[nodiscard]] Result<void> {
public:
    Result() = default;
    Result(Error error) : error_(std::move(error)) {}
    explicit operator bool() const noexcept { return !error_; }
    const Error &error() const noexcept { return *error_; }

private:
    std::optional<Error> error_;
};
#define QLORA_HPP_FAIL(status, message) return Error(status, message)
#define QLORA_HPP_TRY(expression)                                                                             \
    do {                                                                                                      \
        auto qlora_result = (expression);                                                                     \
        if (!qlora_result) return qlora_result.error();                                                       \
    } while (0)
#define QLORA_HPP_TAKE(name, expression)                                                                      \
    auto name##_result = (expression);                                                                        \
    if (!name##_result) return name##_result.error();                                                         \
    auto &name = *name##_result
#else
class Error : public std::runtime_error {
public:
    Error(int32_t status, const std::string &message)
        : std::runtime_error(message.empty() ? qlora_status_name(status) : message), status_(status) {}
    int32_t status() const noexcept { return status_; }

private:
    int32_t status_;
};
template <class T> using Result = T;
#define QLORA_HPP_FAIL(status, message) throw Error(status, message)
#define QLORA_HPP_TRY(expression) (expression)
#define QLORA_HPP_TAKE(name, expression) auto name = (expression)
#endif

// (major, minor, patch) of the library that runs is version() / 1000000, / 1000 % 1000, % 1000.
inline uint32_t version() { return qlora_version(); }

// The value of an integer macro of qlora.h by its name.
inline Result<int64_t> constant_find(const std::string &name) {
    int64_t value = 0;
    const int32_t status = qlora_constant_find(name.c_str(), &value);
    if (status != QLORA_OK) QLORA_HPP_FAIL(status, "qlora_constant_find: no constant is called '" + name + "'");
    return value;
}

// A zeroed struct of qlora.h that knows its size: make<qlora_matmul_args>().
template <class T> T make() {
    T made = {};
    made.struct_size = sizeof(T);
    return made;
}

inline qlora_tensor tensor(int32_t type, uint64_t rows, uint64_t cols, qlora_span data, uint64_t stride = 0) {
    return qlora_tensor{type, 0, rows, cols, stride, data};
}

inline Result<qlora_format_info> format_query(int32_t format) {
    auto info = make<qlora_format_info>();
    const int32_t status = qlora_format_query(format, &info);
    if (status != QLORA_OK) QLORA_HPP_FAIL(status, "qlora_format_query: no format has the number " + std::to_string(format));
    return info;
}

inline Result<int32_t> format_find(const std::string &name) {
    int32_t format = 0;
    const int32_t status = qlora_format_find(name.c_str(), &format);
    if (status != QLORA_OK) QLORA_HPP_FAIL(status, "qlora_format_find: no format is called '" + name + "'");
    return format;
}

// 0 when the backend is not in this build, or has no driver or no device here.
inline uint32_t device_count(int32_t backend) {
    uint32_t count = 0;
    return qlora_device_count(backend, &count) == QLORA_OK ? count : 0;
}

// The pieces of a parameter's optimizer state; layout is asked with its algorithm and min_8bit_size, and filled in.
inline Result<void> state_layout(const qlora_parameter &parameter, qlora_state_layout_info &layout) {
    const int32_t status = qlora_state_layout(&parameter, &layout);
    if (status != QLORA_OK) QLORA_HPP_FAIL(status, "qlora_state_layout: this algorithm, state_type and count do not go together");
    return Result<void>();
}
inline Result<void> state_place(qlora_parameter &parameter, const qlora_state_layout_info &layout, qlora_span memory) {
    const int32_t status = qlora_state_place(&parameter, &layout, memory);
    if (status != QLORA_OK) QLORA_HPP_FAIL(status, "qlora_state_place: the layout was not filled in, or memory is smaller than its total_bytes");
    return Result<void>();
}
// The learning rate of a step.
inline Result<double> schedule_rate(const qlora_schedule &schedule, uint64_t step) {
    double rate = 0;
    const int32_t status = qlora_schedule_rate(&schedule, step, &rate);
    if (status != QLORA_OK) QLORA_HPP_FAIL(status, "qlora_schedule_rate: step counts from 1; kind, cycles and steps as QLORA_SCHEDULE_* needs them, numbers finite and not negative");
    return rate;
}

class Context {
public:
    // Owns nothing until another is moved into it.
    Context() = default;
    static Result<Context> create(int32_t backend, int32_t device = 0) {
        auto args = make<qlora_context_args>();
        args.backend = backend;
        args.device = device;
        return create(args);
    }
    // args.message and args.message_bytes are filled in here.
    static Result<Context> create(qlora_context_args args) {
        char message[512] = "";
        args.message = message;
        args.message_bytes = sizeof message;
        Context made;
        const int32_t status = qlora_context_create(&args, &made.context_);
        if (status != QLORA_OK) QLORA_HPP_FAIL(status, message);
        return made;
    }
#ifndef QLORA_EXPECTED
    explicit Context(int32_t backend, int32_t device = 0) : Context(create(backend, device)) {}
    explicit Context(const qlora_context_args &args) : Context(create(args)) {}
#endif
    Context(Context &&other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
    Context &operator=(Context &&other) noexcept {
        if (this != &other) {
            qlora_context_destroy(context_);
            context_ = std::exchange(other.context_, nullptr);
        }
        return *this;
    }
    Context(const Context &) = delete;
    Context &operator=(const Context &) = delete;
    ~Context() { qlora_context_destroy(context_); }

    qlora_context *get() const noexcept { return context_; }
    Result<void> check(int32_t status) const {
        if (status != QLORA_OK) QLORA_HPP_FAIL(status, qlora_context_message(context_));
        return Result<void>();
    }

    Result<qlora_context_info> query() const {
        auto info = make<qlora_context_info>();
        QLORA_HPP_TRY(check(qlora_context_query(context_, &info)));
        return info;
    }
    Result<void> synchronize() const { return check(qlora_context_synchronize(context_)); }

    // False only for "no kernel"; a question that makes no sense is an error.
    Result<bool> operation_supports(uint32_t operation, int32_t format, int32_t type) const {
        const int32_t status = qlora_operation_supports(context_, operation, format, type);
        if (status == QLORA_ERROR_UNSUPPORTED) return false;
        QLORA_HPP_TRY(check(status));
        return true;
    }
    template <class Args> Result<uint64_t> operation_scratch(uint32_t operation, const Args &args) const {
        uint64_t bytes = 0;
        QLORA_HPP_TRY(check(qlora_operation_scratch(context_, operation, &args, &bytes)));
        return bytes;
    }

    Result<void> buffer_create(qlora_buffer_args &args) const { return check(qlora_buffer_create(context_, &args)); }
    Result<void> buffer_destroy(const qlora_buffer_args &args) const { return check(qlora_buffer_destroy(context_, &args)); }
    Result<void> buffer_write(const qlora_buffer_args &args) const { return check(qlora_buffer_write(context_, &args)); }
    Result<void> buffer_read(const qlora_buffer_args &args) const { return check(qlora_buffer_read(context_, &args)); }
    Result<void> buffer_copy(const qlora_buffer_args &args) const { return check(qlora_buffer_copy(context_, &args)); }
    Result<void> buffer_join(const qlora_buffer_args &args) const { return check(qlora_buffer_join(context_, &args)); }
    Result<void> buffer_fill(const qlora_buffer_args &args) const { return check(qlora_buffer_fill(context_, &args)); }

    Result<void> graph_begin(const qlora_graph_args &args) const { return check(qlora_graph_begin(context_, &args)); }
    Result<void> graph_end(qlora_graph_args &args) const { return check(qlora_graph_end(context_, &args)); }
    Result<void> graph_launch(const qlora_graph_args &args) const { return check(qlora_graph_launch(context_, &args)); }
    Result<void> graph_destroy(const qlora_graph_args &args) const { return check(qlora_graph_destroy(context_, &args)); }

    Result<void> weight_quantize(const qlora_quantize_args &args) const { return check(qlora_weight_quantize(context_, &args)); }
    Result<void> weight_dequantize(const qlora_dequantize_args &args) const { return check(qlora_weight_dequantize(context_, &args)); }
    Result<void> hessian_accumulate(const qlora_hessian_args &args) const { return check(qlora_hessian_accumulate(context_, &args)); }
    Result<void> weight_quantize_gptq(const qlora_quantize_gptq_args &args) const { return check(qlora_weight_quantize_gptq(context_, &args)); }
    Result<void> weight_quantize_spqr(const qlora_quantize_spqr_args &args) const { return check(qlora_weight_quantize_spqr(context_, &args)); }
    Result<void> spqr_import(qlora_spqr_tensors &tensors) const { return check(qlora_spqr_import(context_, &tensors)); }
    Result<void> gptq_import(qlora_gptq_tensors &tensors) const { return check(qlora_gptq_import(context_, &tensors)); }
    Result<void> gptq_export(qlora_gptq_tensors &tensors) const { return check(qlora_gptq_export(context_, &tensors)); }
    Result<void> weight_matmul(const qlora_matmul_args &args) const { return check(qlora_weight_matmul(context_, &args)); }
    Result<void> weight_matmul_grad(const qlora_matmul_args &args) const { return check(qlora_weight_matmul_grad(context_, &args)); }
    Result<void> int8_matmul(const qlora_int8_matmul_args &args) const { return check(qlora_int8_matmul(context_, &args)); }
    Result<void> int8_matmul_grad(const qlora_int8_matmul_grad_args &args) const { return check(qlora_int8_matmul_grad(context_, &args)); }
    Result<void> weight_gradient(const qlora_weight_gradient_args &args) const { return check(qlora_weight_gradient(context_, &args)); }
    Result<void> linear_forward(const qlora_linear_args &args) const { return check(qlora_linear_forward(context_, &args)); }
    Result<void> linear_grad(const qlora_linear_grad_args &args) const { return check(qlora_linear_grad(context_, &args)); }
    Result<void> embedding_gather(const qlora_embedding_args &args) const { return check(qlora_embedding_gather(context_, &args)); }
    Result<void> rms_norm_forward(const qlora_rms_norm_args &args) const { return check(qlora_rms_norm_forward(context_, &args)); }
    Result<void> rms_norm_grad(const qlora_rms_norm_grad_args &args) const { return check(qlora_rms_norm_grad(context_, &args)); }
    Result<void> rope_apply(const qlora_rope_args &args) const { return check(qlora_rope_apply(context_, &args)); }
    Result<void> swiglu_forward(const qlora_swiglu_args &args) const { return check(qlora_swiglu_forward(context_, &args)); }
    Result<void> dropout_apply(const qlora_dropout_args &args) const { return check(qlora_dropout_apply(context_, &args)); }
    Result<void> swiglu_grad(const qlora_swiglu_grad_args &args) const { return check(qlora_swiglu_grad(context_, &args)); }
    Result<void> attention_forward(const qlora_attention_args &args) const { return check(qlora_attention_forward(context_, &args)); }
    Result<void> attention_grad(const qlora_attention_grad_args &args) const { return check(qlora_attention_grad(context_, &args)); }
    Result<void> cross_entropy_loss(const qlora_cross_entropy_args &args) const { return check(qlora_cross_entropy_loss(context_, &args)); }
    Result<void> gradient_norm(const qlora_gradient_norm_args &args) const { return check(qlora_gradient_norm(context_, &args)); }
    Result<void> optimizer_step(const qlora_optimizer_args &args) const { return check(qlora_optimizer_step(context_, &args)); }
    Result<void> pager_plan(qlora_pager &pager) const { return check(qlora_pager_plan(context_, &pager)); }
    Result<void> pager_place(qlora_pager &pager) const { return check(qlora_pager_place(context_, &pager)); }

private:
    qlora_context *context_ = nullptr;
};

// Device memory. Of size 0 it owns nothing and its span is absent, which is what an operation without scratch takes.
class Buffer {
public:
    Buffer() = default;
    static Result<Buffer> create(const Context &context, uint64_t bytes) {
        Buffer made;
        made.context_ = context.get();
        made.bytes_ = bytes;
        if (bytes == 0) return made;
        auto args = make<qlora_buffer_args>();
        args.bytes = bytes;
        QLORA_HPP_TRY(context.buffer_create(args));
        made.span_ = args.dst;
        return made;
    }
    // Host memory that the device copies from and to by itself (QLORA_BUFFER_HOST).
    static Result<Buffer> on_host(const Context &context, uint64_t bytes) {
        Buffer made;
        made.context_ = context.get();
        made.bytes_ = bytes;
        made.flags_ = QLORA_BUFFER_HOST;
        if (bytes == 0) return made;
        auto args = make<qlora_buffer_args>();
        args.flags = QLORA_BUFFER_HOST;
        args.bytes = bytes;
        QLORA_HPP_TRY(context.buffer_create(args));
        made.span_ = args.dst;
        made.host_ = args.host;
        return made;
    }
    // Allocates and writes the values.
    template <class T> static Result<Buffer> create(const Context &context, const std::vector<T> &values) { return create(context, values.data(), values.size() * sizeof(T)); }
    static Result<Buffer> create(const Context &context, const void *host, uint64_t bytes) {
        QLORA_HPP_TAKE(made, create(context, bytes));
        return filled(std::move(made), host, bytes);
    }
#ifndef QLORA_EXPECTED
    Buffer(const Context &context, uint64_t bytes) : Buffer(create(context, bytes)) {}
    template <class T> Buffer(const Context &context, const std::vector<T> &values) : Buffer(create(context, values)) {}
#endif
#ifdef __cpp_lib_span
    // The same of any stretch of host memory, which is copied.
    template <class T, size_t N> static Result<Buffer> create(const Context &context, std::span<T, N> values) { return create(context, values.data(), values.size_bytes()); }
    template <class T, size_t N> Result<void> write(std::span<T, N> values, uint64_t offset = 0) { return write(values.data(), values.size_bytes(), offset); }
    template <class T, size_t N> Result<void> read(std::span<T, N> values, uint64_t offset = 0) const { return read(values.data(), values.size_bytes(), offset); }
#endif
    Buffer(Buffer &&other) noexcept { swap(other); }
    Buffer &operator=(Buffer &&other) noexcept {
        Buffer taken(std::move(other));
        swap(taken);
        return *this;
    }
    Buffer(const Buffer &) = delete;
    Buffer &operator=(const Buffer &) = delete;
    ~Buffer() {
        if (span_.handle == 0) return;
        auto args = make<qlora_buffer_args>();
        args.flags = flags_;
        args.dst = span_;
        qlora_buffer_destroy(context_, &args);
    }

    uint64_t size() const noexcept { return bytes_; }
    void *host() const noexcept { return host_; } // of on_host; null otherwise
    qlora_span span() const noexcept { return span_; }
    // The part that begins at offset bytes.
    qlora_span span(uint64_t offset, uint64_t bytes) const noexcept { return qlora_span{span_.handle, span_.offset + offset, bytes}; }

    Result<void> write(const void *host, uint64_t bytes, uint64_t offset = 0) { return transfer(qlora_buffer_write, const_cast<void *>(host), bytes, offset, 0); }
    Result<void> read(void *host, uint64_t bytes, uint64_t offset = 0) const { return transfer(qlora_buffer_read, host, bytes, offset, 0); }
    // Every 32-bit word becomes pattern; the size must be a multiple of 4.
    Result<void> fill(uint32_t pattern) { return transfer(qlora_buffer_fill, nullptr, bytes_, 0, pattern); }
    template <class T> Result<std::vector<T>> read() const {
        std::vector<T> values(bytes_ / sizeof(T));
        QLORA_HPP_TRY(read(values.data(), values.size() * sizeof(T)));
        return values;
    }

private:
    static Result<Buffer> filled(Buffer made, const void *host, uint64_t bytes) {
        QLORA_HPP_TRY(made.write(host, bytes));
        return made;
    }
    void swap(Buffer &other) noexcept {
        std::swap(context_, other.context_);
        std::swap(span_, other.span_);
        std::swap(bytes_, other.bytes_);
        std::swap(flags_, other.flags_);
        std::swap(host_, other.host_);
    }
    Result<void> transfer(int32_t (*call)(qlora_context *, const qlora_buffer_args *), void *host, uint64_t bytes, uint64_t offset, uint32_t pattern) const {
        if (bytes == 0) return Result<void>();
        auto args = make<qlora_buffer_args>();
        args.dst = args.src = qlora_span{span_.handle, span_.offset + offset, bytes_ > offset ? bytes_ - offset : 0};
        args.host = host;
        args.bytes = bytes;
        args.pattern = pattern;
        const int32_t status = call(context_, &args);
        if (status != QLORA_OK) QLORA_HPP_FAIL(status, qlora_context_message(context_));
        return Result<void>();
    }
    qlora_context *context_ = nullptr;
    qlora_span span_ = {};
    uint64_t bytes_ = 0;
    uint32_t flags_ = 0;
    void *host_ = nullptr;
};

// Recorded work. Of a Recording that came to its end; an empty one launches nothing.
class Graph {
public:
    Graph() = default;
    Graph(Graph &&other) noexcept { swap(other); }
    Graph &operator=(Graph &&other) noexcept {
        Graph taken(std::move(other));
        swap(taken);
        return *this;
    }
    Graph(const Graph &) = delete;
    Graph &operator=(const Graph &) = delete;
    ~Graph() {
        if (args_.graph != 0) qlora_graph_destroy(context_, &args_);
    }

    uint64_t nodes() const noexcept { return args_.nodes; }
    uint64_t device_bytes() const noexcept { return args_.device_bytes; }
    // stream 0 = the context's own.
    Result<void> launch(uint64_t stream = 0) const {
        if (args_.graph == 0) return Result<void>();
        auto args = make<qlora_graph_args>();
        args.stream = stream;
        args.graph = args_.graph;
        const int32_t status = qlora_graph_launch(context_, &args);
        if (status != QLORA_OK) QLORA_HPP_FAIL(status, qlora_context_message(context_));
        return Result<void>();
    }

private:
    friend class Recording;
    void swap(Graph &other) noexcept {
        std::swap(context_, other.context_);
        std::swap(args_, other.args_);
    }
    qlora_context *context_ = nullptr;
    qlora_graph_args args_ = make<qlora_graph_args>();
};

// What is enqueued on the stream while it lives is recorded instead of done. Without an end() it is thrown away. Buffers and graphs of
// the context have to outlive it: what a recording cannot hold, their destruction among it, is refused meanwhile.
class Recording {
public:
    static Result<Recording> create(const Context &context, uint64_t stream = 0) {
        auto args = make<qlora_graph_args>();
        args.stream = stream;
        QLORA_HPP_TRY(context.graph_begin(args));
        Recording made;
        made.context_ = context.get();
        return made;
    }
#ifndef QLORA_EXPECTED
    explicit Recording(const Context &context, uint64_t stream = 0) : Recording(create(context, stream)) {}
#endif
    Recording(Recording &&other) noexcept : context_(std::exchange(other.context_, nullptr)) {}
    Recording(const Recording &) = delete;
    Recording &operator=(const Recording &) = delete;
    ~Recording() {
        Graph thrown_away;
        if (context_ != nullptr) finish(thrown_away);
    }

    Result<Graph> end() {
        Graph graph;
        qlora_context *const context = context_;
        const int32_t status = finish(graph);
        if (status != QLORA_OK) QLORA_HPP_FAIL(status, qlora_context_message(context));
        return graph;
    }

private:
    Recording() = default;
    int32_t finish(Graph &graph) {
        graph.context_ = std::exchange(context_, nullptr);
        return qlora_graph_end(graph.context_, &graph.args_);
    }
    qlora_context *context_ = nullptr;
};

// A weight with one buffer for all its planes. Planes are undefined until quantized into or written.
class Weight {
public:
    Weight() = default;
    static Result<Weight> create(const Context &context, int32_t format, uint64_t rows, uint64_t cols, uint32_t block = 0, uint32_t flags = 0) {
        return create(context, shape(format, rows, cols, block, flags));
    }
    // Of the same format, blocks, flags, rows, cols and room for outliers; planes are not looked at.
    static Result<Weight> create(const Context &context, const qlora_weight &shape) {
        Weight made;
        made.weight_ = shape;
        made.weight_.struct_size = sizeof made.weight_;
        made.layout_ = make<qlora_weight_layout_info>();
        int32_t status = qlora_weight_layout(&made.weight_, &made.layout_);
        if (status != QLORA_OK) QLORA_HPP_FAIL(status, "qlora_weight_layout: this format, block, rows and cols do not go together");
        QLORA_HPP_TAKE(memory, Buffer::create(context, made.layout_.total_bytes));
        made.memory_ = std::move(memory);
        status = qlora_weight_place(&made.weight_, made.memory_.span());
        if (status != QLORA_OK) QLORA_HPP_FAIL(status, "qlora_weight_place");
        return made;
    }
#ifndef QLORA_EXPECTED
    Weight(const Context &context, int32_t format, uint64_t rows, uint64_t cols, uint32_t block = 0, uint32_t flags = 0)
        : Weight(create(context, format, rows, cols, block, flags)) {}
    Weight(const Context &context, const qlora_weight &shape) : Weight(create(context, shape)) {}
#endif

    // For the weight field of args; valid while this Weight lives where it is.
    const qlora_weight *get() const noexcept { return &weight_; }
    const qlora_weight_layout_info &layout() const noexcept { return layout_; }
    uint64_t size() const noexcept { return layout_.total_bytes; }
    void set_tensor_scale(float scale) noexcept { weight_.tensor_scale = scale; } // of NVFP4

    // The bytes of one plane, QLORA_PLANE_*; empty if the format has it not.
    Result<void> write_plane(int plane, const void *bytes) { return memory_.write(bytes, layout_.plane_bytes[plane], layout_.plane_offset[plane]); }
    Result<std::vector<uint8_t>> read_plane(int plane) const {
        std::vector<uint8_t> bytes(layout_.plane_bytes[plane]);
        QLORA_HPP_TRY(memory_.read(bytes.data(), bytes.size(), layout_.plane_offset[plane]));
        return bytes;
    }

private:
    static qlora_weight shape(int32_t format, uint64_t rows, uint64_t cols, uint32_t block, uint32_t flags) {
        auto weight = make<qlora_weight>();
        weight.flags = flags;
        weight.format = format;
        weight.block = block;
        weight.rows = rows;
        weight.cols = cols;
        return weight;
    }
    qlora_weight weight_ = {};
    qlora_weight_layout_info layout_ = {};
    Buffer memory_;
};

} // namespace qlora

#undef QLORA_HPP_FAIL
#undef QLORA_HPP_TRY
#undef QLORA_HPP_TAKE
