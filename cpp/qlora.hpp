// qlora.hpp - the C interface of qlora.h with owners. C++17, header only.
//
// SPDX-License-Identifier: MIT
//
// Handles are move-only and free what they own; failures throw qlora::Error, and nothing below this header throws.
// It adds no meaning: args structs are those of qlora.h, and each member function is the C function of its name.
// A Context outlives the Buffers and Weights made with it. A moved-from object may only be assigned to or destroyed.
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
#pragma once
#include "qlora.h"

#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

namespace qlora {

// What the library answered: a status of qlora.h and the sentence that goes with it.
class Error : public std::runtime_error {
public:
    Error(int32_t status, const std::string &message)
        : std::runtime_error(message.empty() ? qlora_status_name(status) : message), status_(status) {}
    int32_t status() const noexcept { return status_; }

private:
    int32_t status_;
};

// A zeroed struct of qlora.h that knows its size: make<qlora_matmul_args>().
template <class T> T make() {
    T made = {};
    made.struct_size = sizeof(T);
    return made;
}

inline qlora_tensor tensor(int32_t type, uint64_t rows, uint64_t cols, qlora_span data, uint64_t stride = 0) {
    return qlora_tensor{type, 0, rows, cols, stride, data};
}

inline qlora_format_info format_query(int32_t format) {
    auto info = make<qlora_format_info>();
    const int32_t status = qlora_format_query(format, &info);
    if (status != QLORA_OK) throw Error(status, "qlora_format_query: no format has the number " + std::to_string(format));
    return info;
}

inline int32_t format_find(const std::string &name) {
    int32_t format = 0;
    const int32_t status = qlora_format_find(name.c_str(), &format);
    if (status != QLORA_OK) throw Error(status, "qlora_format_find: no format is called '" + name + "'");
    return format;
}

// 0 when the backend is not in this build, or has no driver or no device here.
inline uint32_t device_count(int32_t backend) {
    uint32_t count = 0;
    return qlora_device_count(backend, &count) == QLORA_OK ? count : 0;
}

class Context {
public:
    explicit Context(int32_t backend, int32_t device = 0) {
        auto args = make<qlora_context_args>();
        args.backend = backend;
        args.device = device;
        create(args);
    }
    // args.message and args.message_bytes are filled in here.
    explicit Context(const qlora_context_args &args) { create(args); }
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
    void check(int32_t status) const {
        if (status != QLORA_OK) throw Error(status, qlora_context_message(context_));
    }

    qlora_context_info query() const {
        auto info = make<qlora_context_info>();
        check(qlora_context_query(context_, &info));
        return info;
    }
    void synchronize() const { check(qlora_context_synchronize(context_)); }

    // False only for "no kernel"; a question that makes no sense throws.
    bool operation_supports(uint32_t operation, int32_t format, int32_t type) const {
        const int32_t status = qlora_operation_supports(context_, operation, format, type);
        if (status == QLORA_ERROR_UNSUPPORTED) return false;
        check(status);
        return true;
    }
    template <class Args> uint64_t operation_scratch(uint32_t operation, const Args &args) const {
        uint64_t bytes = 0;
        check(qlora_operation_scratch(context_, operation, &args, &bytes));
        return bytes;
    }

    void buffer_create(qlora_buffer_args &args) const { check(qlora_buffer_create(context_, &args)); }
    void buffer_destroy(const qlora_buffer_args &args) const { check(qlora_buffer_destroy(context_, &args)); }
    void buffer_write(const qlora_buffer_args &args) const { check(qlora_buffer_write(context_, &args)); }
    void buffer_read(const qlora_buffer_args &args) const { check(qlora_buffer_read(context_, &args)); }
    void buffer_copy(const qlora_buffer_args &args) const { check(qlora_buffer_copy(context_, &args)); }
    void buffer_fill(const qlora_buffer_args &args) const { check(qlora_buffer_fill(context_, &args)); }

    void weight_quantize(const qlora_quantize_args &args) const { check(qlora_weight_quantize(context_, &args)); }
    void weight_dequantize(const qlora_dequantize_args &args) const { check(qlora_weight_dequantize(context_, &args)); }
    void hessian_accumulate(const qlora_hessian_args &args) const { check(qlora_hessian_accumulate(context_, &args)); }
    void weight_quantize_gptq(const qlora_quantize_gptq_args &args) const { check(qlora_weight_quantize_gptq(context_, &args)); }
    void gptq_import(qlora_gptq_tensors &tensors) const { check(qlora_gptq_import(context_, &tensors)); }
    void gptq_export(qlora_gptq_tensors &tensors) const { check(qlora_gptq_export(context_, &tensors)); }
    void weight_matmul(const qlora_matmul_args &args) const { check(qlora_weight_matmul(context_, &args)); }
    void weight_matmul_grad(const qlora_matmul_args &args) const { check(qlora_weight_matmul_grad(context_, &args)); }
    void int8_matmul(const qlora_int8_matmul_args &args) const { check(qlora_int8_matmul(context_, &args)); }
    void int8_matmul_grad(const qlora_int8_matmul_grad_args &args) const { check(qlora_int8_matmul_grad(context_, &args)); }
    void weight_gradient(const qlora_weight_gradient_args &args) const { check(qlora_weight_gradient(context_, &args)); }
    void linear_forward(const qlora_linear_args &args) const { check(qlora_linear_forward(context_, &args)); }
    void linear_grad(const qlora_linear_grad_args &args) const { check(qlora_linear_grad(context_, &args)); }
    void embedding_gather(const qlora_embedding_args &args) const { check(qlora_embedding_gather(context_, &args)); }
    void rms_norm_forward(const qlora_rms_norm_args &args) const { check(qlora_rms_norm_forward(context_, &args)); }
    void rms_norm_grad(const qlora_rms_norm_grad_args &args) const { check(qlora_rms_norm_grad(context_, &args)); }
    void rope_apply(const qlora_rope_args &args) const { check(qlora_rope_apply(context_, &args)); }
    void swiglu_forward(const qlora_swiglu_args &args) const { check(qlora_swiglu_forward(context_, &args)); }
    void swiglu_grad(const qlora_swiglu_grad_args &args) const { check(qlora_swiglu_grad(context_, &args)); }
    void attention_forward(const qlora_attention_args &args) const { check(qlora_attention_forward(context_, &args)); }
    void attention_grad(const qlora_attention_grad_args &args) const { check(qlora_attention_grad(context_, &args)); }
    void cross_entropy_loss(const qlora_cross_entropy_args &args) const { check(qlora_cross_entropy_loss(context_, &args)); }
    void gradient_norm(const qlora_gradient_norm_args &args) const { check(qlora_gradient_norm(context_, &args)); }
    void optimizer_step(const qlora_optimizer_args &args) const { check(qlora_optimizer_step(context_, &args)); }
    void pager_plan(qlora_pager &pager) const { check(qlora_pager_plan(context_, &pager)); }
    void pager_place(qlora_pager &pager) const { check(qlora_pager_place(context_, &pager)); }

private:
    void create(qlora_context_args args) {
        char message[512] = "";
        args.message = message;
        args.message_bytes = sizeof message;
        const int32_t status = qlora_context_create(&args, &context_);
        if (status != QLORA_OK) throw Error(status, message);
    }
    qlora_context *context_ = nullptr;
};

// Device memory. Of size 0 it owns nothing and its span is absent, which is what an operation without scratch takes.
class Buffer {
public:
    Buffer() = default;
    Buffer(const Context &context, uint64_t bytes) : context_(context.get()), bytes_(bytes) {
        if (bytes == 0) return;
        auto args = make<qlora_buffer_args>();
        args.bytes = bytes;
        context.buffer_create(args);
        span_ = args.dst;
    }
    // Host memory that the device copies from and to by itself (QLORA_BUFFER_HOST).
    static Buffer on_host(const Context &context, uint64_t bytes) {
        Buffer made;
        made.context_ = context.get();
        made.bytes_ = bytes;
        made.flags_ = QLORA_BUFFER_HOST;
        if (bytes == 0) return made;
        auto args = make<qlora_buffer_args>();
        args.flags = QLORA_BUFFER_HOST;
        args.bytes = bytes;
        context.buffer_create(args);
        made.span_ = args.dst;
        made.host_ = args.host;
        return made;
    }
    // Allocates and writes the values.
    template <class T> Buffer(const Context &context, const std::vector<T> &values) : Buffer(context, values.size() * sizeof(T)) {
        write(values.data(), bytes_);
    }
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

    void write(const void *host, uint64_t bytes, uint64_t offset = 0) { transfer(qlora_buffer_write, const_cast<void *>(host), bytes, offset, 0); }
    void read(void *host, uint64_t bytes, uint64_t offset = 0) const { transfer(qlora_buffer_read, host, bytes, offset, 0); }
    // Every 32-bit word becomes pattern; the size must be a multiple of 4.
    void fill(uint32_t pattern) { transfer(qlora_buffer_fill, nullptr, bytes_, 0, pattern); }
    template <class T> std::vector<T> read() const {
        std::vector<T> values(bytes_ / sizeof(T));
        read(values.data(), values.size() * sizeof(T));
        return values;
    }

private:
    void swap(Buffer &other) noexcept {
        std::swap(context_, other.context_);
        std::swap(span_, other.span_);
        std::swap(bytes_, other.bytes_);
        std::swap(flags_, other.flags_);
        std::swap(host_, other.host_);
    }
    void transfer(int32_t (*call)(qlora_context *, const qlora_buffer_args *), void *host, uint64_t bytes, uint64_t offset, uint32_t pattern) const {
        if (bytes == 0) return;
        auto args = make<qlora_buffer_args>();
        args.dst = args.src = qlora_span{span_.handle, span_.offset + offset, bytes_ > offset ? bytes_ - offset : 0};
        args.host = host;
        args.bytes = bytes;
        args.pattern = pattern;
        const int32_t status = call(context_, &args);
        if (status != QLORA_OK) throw Error(status, qlora_context_message(context_));
    }
    qlora_context *context_ = nullptr;
    qlora_span span_ = {};
    uint64_t bytes_ = 0;
    uint32_t flags_ = 0;
    void *host_ = nullptr;
};

// A weight with one buffer for all its planes. Planes are undefined until quantized into or written.
class Weight {
public:
    Weight() = default;
    Weight(const Context &context, int32_t format, uint64_t rows, uint64_t cols, uint32_t block = 0, uint32_t flags = 0) : weight_(make<qlora_weight>()) {
        weight_.flags = flags;
        weight_.format = format;
        weight_.block = block;
        weight_.rows = rows;
        weight_.cols = cols;
        layout_ = make<qlora_weight_layout_info>();
        int32_t status = qlora_weight_layout(&weight_, &layout_);
        if (status != QLORA_OK) throw Error(status, "qlora_weight_layout: this format, block, rows and cols do not go together");
        memory_ = Buffer(context, layout_.total_bytes);
        status = qlora_weight_place(&weight_, memory_.span());
        if (status != QLORA_OK) throw Error(status, "qlora_weight_place");
    }

    // For the weight field of args; valid while this Weight lives where it is.
    const qlora_weight *get() const noexcept { return &weight_; }
    const qlora_weight_layout_info &layout() const noexcept { return layout_; }
    uint64_t size() const noexcept { return layout_.total_bytes; }

    // The bytes of one plane, QLORA_PLANE_*; empty if the format has it not.
    void write_plane(int plane, const void *bytes) { memory_.write(bytes, layout_.plane_bytes[plane], layout_.plane_offset[plane]); }
    std::vector<uint8_t> read_plane(int plane) const {
        std::vector<uint8_t> bytes(layout_.plane_bytes[plane]);
        memory_.read(bytes.data(), bytes.size(), layout_.plane_offset[plane]);
        return bytes;
    }

private:
    qlora_weight weight_ = {};
    qlora_weight_layout_info layout_ = {};
    Buffer memory_;
};

} // namespace qlora
