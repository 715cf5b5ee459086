// A stage puts one operation's host inputs on a context, runs it, and brings its outputs back. The same act on two stages
// gives two lists of outputs to compare. Around every tensor lies a guard that an operation must leave alone; the gaps of
// strided inputs hold NaN.
#pragma once
#include "cpp/qlora.hpp"
#include "tests/support/numbers.h"

#include <deque>
#include <functional>
#include <string>
#include <vector>

namespace test {

// An operation's args type and entry point, by its number.
template <uint32_t Operation> struct OperationRow;
#define QLORA_OPERATION(ID, NAME, ENTRY, ARGS, ...)                                                           \
    template <> struct OperationRow<QLORA_OP_##ID> {                                                          \
        using Args = ARGS;                                                                                    \
        static constexpr const char *name = #NAME;                                                            \
        static int32_t call(qlora_context *context, const ARGS *args) { return ENTRY(context, args); }        \
    };
#include "backends/ops.def"
#undef QLORA_OPERATION

// The planes of a quantized weight in host memory, made once by ref so that every backend starts from the same bytes.
struct HostWeight {
    qlora_weight shape;
    std::vector<uint8_t> planes[QLORA_PLANE_COUNT];
};
// Values are quantized by ref; a sequence of normal values when none are given. Remembered, so asking again is free.
const HostWeight &host_weight(int32_t format, uint64_t rows, uint64_t cols, uint32_t block = 0, uint64_t seed = 1);

struct Output {
    std::string name;
    int32_t type; // of the elements; 0 = plain bytes, to be equal; DYN8: codes, of which some may be a neighbour
    std::vector<uint8_t> bytes;
};

class Stage {
public:
    explicit Stage(const qlora::Context &context) : context_(context) {}
    const qlora::Context &context() const { return context_; }

    // Inputs. Values are rounded to the type.
    qlora_tensor tensor(int32_t type, uint64_t rows, uint64_t cols, const std::vector<float> &values, uint64_t stride = 0);
    qlora_span floats(const std::vector<float> &values);
    qlora_span integers(const std::vector<int32_t> &values);
    const qlora_weight *weight(const HostWeight &host);

    // Outputs: what they hold before is NaN unless given.
    qlora_tensor output(const std::string &name, int32_t type, uint64_t rows, uint64_t cols, uint64_t stride = 0, const std::vector<float> &before = {});
    qlora_span output_floats(const std::string &name, uint64_t count, const std::vector<float> &before = {});
    // Codes of 8-bit state.
    qlora_span output_codes(const std::string &name, const std::vector<uint8_t> &before);
    qlora_span output_integers(const std::string &name, uint64_t count);
    // Device memory of no meaning before and after, beside scratch.
    qlora_span workspace(uint64_t bytes) { return place_scratch(bytes); }
    // A weight whose planes are outputs.
    const qlora_weight *output_weight(qlora_weight shape);
    const qlora_weight *output_weight(int32_t format, uint64_t rows, uint64_t cols, uint32_t block, uint32_t flags = 0, uint64_t outliers = 0);

    // Runs an operation with as much scratch as it asks for. Returns its status.
    template <uint32_t Operation> int32_t run(typename OperationRow<Operation>::Args args) {
        args.struct_size = sizeof args;
        uint64_t bytes = 0;
        int32_t status = qlora_operation_scratch(context_.get(), Operation, &args, &bytes);
        if (status != QLORA_OK) return finish(status);
        if (bytes) args.scratch = place_scratch(bytes);
        if (before_call) before_call();
        if (instead) status = instead(&args, sizeof args, [](qlora_context *context, const void *changed) { return OperationRow<Operation>::call(context, static_cast<const typename OperationRow<Operation>::Args *>(changed)); });
        else status = OperationRow<Operation>::call(context_.get(), &args);
        if (after_call) after_call();
        return finish(status);
    }
    // Every output, once the work is done. Throws std::runtime_error if a guard or a gap was written.
    std::vector<Output> outputs();

    int32_t status() const { return status_; } // of the last run
    const std::string &last_message() const { return message_; }
    std::function<void()> before_call, after_call; // around each call of an operation; for fault injection
    // Is given the args and calls the operation itself, as often and with what it likes; its answer is the status.
    std::function<int32_t(const void *args, size_t bytes, int32_t (*call)(qlora_context *, const void *))> instead;

private:
    struct Placed {
        enum Role { INPUT, OUTPUT, SCRATCH } role;
        std::string name;
        int32_t type;
        uint64_t rows, cols, stride; // in elements of element_size bytes
        uint32_t element_size;
        uint64_t front; // bytes of guard before the data
        std::vector<uint8_t> image; // the whole allocation as it was written
        qlora::Buffer buffer;
    };
    int32_t finish(int32_t status) {
        if (status != QLORA_OK) message_ = qlora_context_message(context_.get());
        return status_ = status;
    }
    qlora_span place_scratch(uint64_t bytes);
    qlora_span add(Placed::Role role, const std::string &name, int32_t type, uint32_t element_size, uint64_t rows, uint64_t cols, uint64_t stride, std::vector<uint8_t> data);

    const qlora::Context &context_;
    std::deque<Placed> placed_;
    std::deque<qlora_weight> weights_;
    int32_t status_ = QLORA_OK;
    std::string message_;
};

// One way to call an operation. act prepares inputs and runs it; it is run on ref and on what is tested.
struct Case {
    std::string name;
    int32_t format; // 0 where the operation takes no weight
    int32_t type, compute_type; // of the activations, and of the products (0 = type)
    std::function<void(Stage &)> act;
};

// The cases of an operation; tests/ops_*.cpp define one specialisation per row of ops.def, and a row without fails to link.
template <uint32_t Operation> std::vector<Case> cases();

struct Operation {
    uint32_t number;
    const char *name;
    int weight_column; // of ops.def: whether it takes a weight, and which
    std::vector<Case> cases;
};
// Every row of ops.def with its cases; in tests/ops.cpp.
std::vector<Operation> all_operations();
// A case of it with little work.
const Case &small_case(const Operation &operation);

} // namespace test
