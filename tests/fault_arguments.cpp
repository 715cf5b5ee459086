// What callers can get wrong: struct sizes, null pointers, flags, types, shapes, spans too small or misaligned, scratch, backends
// that are not there. Each is a typed error with a sentence that names the entry, and writes nothing.
#include "tests/support/inputs.h"
#include "tests/support/stage.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>

#include <cstring>

using namespace test;

namespace {

// Args of a good matmul on a context, to be spoilt one field at a time.
struct Good {
    Stage stage;
    qlora_matmul_args args = qlora::make<qlora_matmul_args>();
    qlora_weight weight;
    qlora_context *context;

    explicit Good(const qlora::Context &on) : stage(on), context(on.get()) {
        weight = *stage.weight(host_weight(QLORA_FORMAT_NF4_DQ, 24, 64));
        args.weight = &weight;
        args.x = stage.tensor(QLORA_FORMAT_F32, 5, 64, random_values(320, 1));
        args.y = stage.output("y", QLORA_FORMAT_F32, 5, 24, 0, std::vector<float>(120, 8.0f));
        uint64_t bytes = 0;
        REQUIRE(qlora_operation_scratch(context, QLORA_OP_MATMUL, &args, &bytes) == QLORA_OK);
        if (bytes) {
            scratch = qlora::Buffer(on, bytes + 256);
            args.scratch = scratch.span(0, bytes);
        }
    }
    int32_t call() { return qlora_weight_matmul(context, &args); }
    // The status of the spoilt call, having checked that it says why and wrote nothing.
    int32_t refused() {
        const int32_t status = call();
        if (status == QLORA_OK) return status;
        CHECK(std::string(qlora_context_message(context)).find("qlora_weight_matmul") == 0);
        CHECK(unpack(QLORA_FORMAT_F32, stage.outputs()[0].bytes) == std::vector<float>(120, 8.0f));
        return status;
    }
    qlora::Buffer scratch;
};

// A struct inside a longer allocation whose excess is set.
template <class T> std::vector<uint8_t> lengthened(const T &args, size_t more, uint8_t fill) {
    std::vector<uint8_t> bytes(sizeof(T) + more, fill);
    std::memcpy(bytes.data(), &args, sizeof(T));
    const uint32_t size = uint32_t(bytes.size());
    std::memcpy(bytes.data(), &size, 4);
    return bytes;
}

template <uint32_t Operation> void check_null(const qlora::Context &context) {
    using Row = OperationRow<Operation>;
    CHECK(Row::call(nullptr, nullptr) == QLORA_ERROR_ARGUMENT);
    CHECK(Row::call(context.get(), nullptr) == QLORA_ERROR_ARGUMENT);
    CHECK(std::strlen(qlora_context_message(context.get())) > 0);
    uint64_t bytes = 0;
    typename Row::Args args = {};
    CHECK(Row::call(context.get(), &args) == QLORA_ERROR_ARGUMENT); // struct_size 0
    args.struct_size = 4;
    CHECK(Row::call(context.get(), &args) == QLORA_ERROR_ARGUMENT);
    args.struct_size = sizeof args;
    args.flags = 0x80000000u;
    CHECK(Row::call(context.get(), &args) == QLORA_ERROR_ARGUMENT);
    CHECK(std::string(qlora_context_message(context.get())).find("flags") != std::string::npos);
    CHECK(qlora_operation_scratch(context.get(), Operation, nullptr, &bytes) == QLORA_ERROR_ARGUMENT);
    CHECK(qlora_operation_scratch(context.get(), Operation, &args, nullptr) == QLORA_ERROR_ARGUMENT);
    CHECK(qlora_operation_scratch(nullptr, Operation, &args, &bytes) == QLORA_ERROR_ARGUMENT);
    // All zero is never understood as something to do with memory at address zero.
    args.flags = 0;
    const int32_t status = Row::call(context.get(), &args);
    CHECK_MESSAGE(status < 0, text(Row::name, " takes an empty struct: ", qlora_status_name(status)));
}

} // namespace

TEST_SUITE_BEGIN("fault");

TEST_CASE("null and empty arguments of every entry point") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
#define QLORA_OPERATION(ID, ...) check_null<QLORA_OP_##ID>(context);
#include "backends/ops.def"
#undef QLORA_OPERATION
        auto info = qlora::make<qlora_context_info>();
        CHECK(qlora_context_query(nullptr, &info) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_context_query(context.get(), nullptr) == QLORA_ERROR_ARGUMENT);
        const bool driven = target.backend == QLORA_BACKEND_CUDA || target.backend == QLORA_BACKEND_VULKAN;
        CHECK((context.query().driver[0] != 0) == driven);
        CHECK(qlora_context_synchronize(nullptr) == QLORA_ERROR_ARGUMENT);
        CHECK(std::strcmp(qlora_context_message(nullptr), "") == 0);
        qlora_context_destroy(nullptr);
        CHECK(qlora_device_count(target.backend, nullptr) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_constant_find(nullptr, nullptr) == QLORA_ERROR_ARGUMENT);
        CHECK(std::string(qlora_status_name(17)) == "unknown");

        auto args = qlora::make<qlora_buffer_args>();
        for (auto *call : {qlora_buffer_destroy, qlora_buffer_write, qlora_buffer_read, qlora_buffer_copy, qlora_buffer_join, qlora_buffer_fill}) {
            CHECK(call(nullptr, &args) == QLORA_ERROR_ARGUMENT);
            CHECK(call(context.get(), nullptr) == QLORA_ERROR_ARGUMENT);
        }
        auto graph = qlora::make<qlora_graph_args>();
        for (auto *call : {qlora_graph_begin, qlora_graph_launch, qlora_graph_destroy}) {
            CHECK(call(nullptr, &graph) == QLORA_ERROR_ARGUMENT);
            CHECK(call(context.get(), nullptr) == QLORA_ERROR_ARGUMENT);
        }
        CHECK(qlora_graph_end(nullptr, &graph) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_graph_end(context.get(), nullptr) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_graph_end(context.get(), &graph) == QLORA_ERROR_ARGUMENT); // nothing is recorded
        CHECK(qlora_buffer_create(nullptr, &args) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_buffer_create(context.get(), nullptr) == QLORA_ERROR_ARGUMENT);
        CHECK(qlora_buffer_create(context.get(), &args) == QLORA_ERROR_ARGUMENT); // no bytes
        args.bytes = uint64_t(1) << 60;
        const int32_t status = qlora_buffer_create(context.get(), &args);
        CHECK_MESSAGE((status == QLORA_ERROR_MEMORY || status == QLORA_ERROR_DEVICE), text(target.name, " gives an exabyte: ", qlora_status_name(status)));
        args.bytes = 16;
        CHECK(qlora_buffer_write(context.get(), &args) == QLORA_ERROR_ARGUMENT); // absent dst
        const qlora::Buffer buffer(context, 16);
        args.dst = args.src = buffer.span();
        CHECK(qlora_buffer_write(context.get(), &args) == QLORA_ERROR_ARGUMENT); // no host
        CHECK(qlora_buffer_read(context.get(), &args) == QLORA_ERROR_ARGUMENT);
        args.bytes = 17;
        CHECK(qlora_buffer_copy(context.get(), &args) == QLORA_ERROR_SHAPE);
        args.bytes = 15;
        args.flags = QLORA_BUFFER_HOST;
        CHECK(qlora_buffer_copy(context.get(), &args) == QLORA_ERROR_ARGUMENT); // to the host, but not beside
        args.flags = QLORA_BUFFER_BESIDE;
        CHECK(qlora_buffer_join(context.get(), &args) == QLORA_ERROR_ARGUMENT);
        args.flags = 0;
        CHECK(qlora_buffer_fill(context.get(), &args) == QLORA_ERROR_ARGUMENT);
    }
}

TEST_CASE("structs shorter, longer with zeros, longer with content") {
    for (const Target &target : targets()) {
        Good good(shared_context(target));
        REQUIRE(good.call() == QLORA_OK);
        const std::vector<uint8_t> expected = good.stage.outputs()[0].bytes;

        // A caller built when compute_type was not there yet.
        good.args.struct_size = offsetof(qlora_matmul_args, compute_type);
        good.args.compute_type = 12345;
        CHECK(good.call() == QLORA_OK);
        CHECK(good.stage.outputs()[0].bytes == expected);
        good.args.struct_size = sizeof good.args;
        good.args.compute_type = 0;

        // A caller built later: what we do not know must be zero.
        const std::vector<uint8_t> zeros = lengthened(good.args, 24, 0), ones = lengthened(good.args, 24, 1);
        CHECK(qlora_weight_matmul(good.context, reinterpret_cast<const qlora_matmul_args *>(zeros.data())) == QLORA_OK);
        CHECK(qlora_weight_matmul(good.context, reinterpret_cast<const qlora_matmul_args *>(ones.data())) == QLORA_ERROR_ARGUMENT);

        // The same for the struct inside.
        const std::vector<uint8_t> long_weight = lengthened(good.weight, 8, 0), set_weight = lengthened(good.weight, 8, 1);
        good.args.weight = reinterpret_cast<const qlora_weight *>(long_weight.data());
        CHECK(good.call() == QLORA_OK);
        good.args.weight = reinterpret_cast<const qlora_weight *>(set_weight.data());
        CHECK(good.call() == QLORA_ERROR_ARGUMENT);
        good.args.weight = &good.weight;
        good.weight.struct_size = 7;
        CHECK(good.call() == QLORA_ERROR_ARGUMENT);

        // Structs that are filled: no byte past the caller's end.
        struct {
            qlora_context_info info;
            uint8_t after[16];
        } room;
        std::memset(static_cast<void *>(&room), 0x5a, sizeof room);
        room.info.struct_size = offsetof(qlora_context_info, memory_bytes);
        CHECK(qlora_context_query(good.context, &room.info) == QLORA_OK);
        CHECK(room.info.backend == target.backend);
        CHECK(reinterpret_cast<uint8_t *>(&room.info.memory_bytes)[0] == 0x5a);
        room.info.struct_size = sizeof room;
        CHECK(qlora_context_query(good.context, &room.info) == QLORA_OK);
        CHECK(room.after[0] == 0x5a);
    }
}

TEST_CASE("wrong shapes, types and spans") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        auto spoilt = [&](auto &&spoil) {
            Good good(context);
            spoil(good);
            return good.refused();
        };
        CHECK(spoilt([](Good &) {}) == QLORA_OK);
        CHECK(spoilt([](Good &good) { good.args.weight = nullptr; }) == QLORA_ERROR_ARGUMENT);
        CHECK(spoilt([](Good &good) { good.args.x.type = 0; }) == QLORA_ERROR_ARGUMENT);
        CHECK(spoilt([](Good &good) { good.args.x.type = QLORA_FORMAT_NF4; }) == QLORA_ERROR_FORMAT);
        CHECK(spoilt([](Good &good) { good.args.x.type = QLORA_FORMAT_F16; }) == QLORA_ERROR_FORMAT);
        CHECK(spoilt([](Good &good) { good.args.x.cols = 63; }) == QLORA_ERROR_SHAPE);
        CHECK(spoilt([](Good &good) { good.args.y.rows = 4; }) == QLORA_ERROR_SHAPE);
        CHECK(spoilt([](Good &good) { good.args.x.stride = 63; }) == QLORA_ERROR_SHAPE);
        CHECK(spoilt([](Good &good) { good.args.x.stride = 65; }) == QLORA_ERROR_SHAPE); // passes the end of the span
        CHECK(spoilt([](Good &good) { good.args.x.stride = ~uint64_t(0) / 4; }) == QLORA_ERROR_SHAPE);
        CHECK(spoilt([](Good &good) { good.args.x.rows = good.args.y.rows = uint64_t(1) << 40; }) == QLORA_ERROR_SHAPE);
        CHECK(spoilt([](Good &good) { good.args.x.data.handle = 0; }) == QLORA_ERROR_ARGUMENT);
        CHECK(spoilt([](Good &good) { good.args.x.data.size -= 1; }) == QLORA_ERROR_SHAPE);
        CHECK(spoilt([](Good &good) { good.args.y.data.size = 0; }) == QLORA_ERROR_SHAPE);
        CHECK(spoilt([](Good &good) { good.args.x.data.offset += 2; }) == QLORA_ERROR_ARGUMENT);
        CHECK(spoilt([](Good &good) { good.args.compute_type = QLORA_FORMAT_Q8_0; }) == QLORA_ERROR_FORMAT);
        CHECK(spoilt([](Good &good) { good.args.flags = QLORA_FLAG_INVERSE; }) == QLORA_ERROR_ARGUMENT);
        CHECK(spoilt([](Good &good) { good.weight.format = 99; }) == QLORA_ERROR_FORMAT);
        CHECK(spoilt([](Good &good) { good.weight.block = 63; }) == QLORA_ERROR_ARGUMENT);
        CHECK(spoilt([](Good &good) { good.weight.nested_block = 64; }) == QLORA_ERROR_ARGUMENT);
        CHECK(spoilt([](Good &good) { good.weight.rows = ~uint64_t(0); }) == QLORA_ERROR_SHAPE);
        for (int plane : {QLORA_PLANE_CODE, QLORA_PLANE_SCALE, QLORA_PLANE_NESTED, QLORA_PLANE_OFFSET}) {
            CHECK(spoilt([&](Good &good) { good.weight.planes[plane].handle = 0; }) == QLORA_ERROR_ARGUMENT);
            CHECK(spoilt([&](Good &good) { good.weight.planes[plane].size -= 1; }) == QLORA_ERROR_SHAPE);
        }
        CHECK(spoilt([](Good &good) { good.weight.planes[QLORA_PLANE_NESTED].offset += 2; }) == QLORA_ERROR_ARGUMENT);
        Good good(context);
        if (good.args.scratch.handle) {
            CHECK(spoilt([](Good &spoil) { spoil.args.scratch = qlora_span{}; }) == QLORA_ERROR_SCRATCH);
            CHECK(spoilt([](Good &spoil) { spoil.args.scratch.size -= 1; }) == QLORA_ERROR_SCRATCH);
            CHECK(spoilt([](Good &spoil) { spoil.args.scratch.offset += 2; }) == QLORA_ERROR_ARGUMENT);
        }
    }
}

TEST_CASE("scratch is monotone in tokens, and enough where it says so") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        uint64_t before = 0;
        for (uint64_t tokens : {0, 1, 2, 7, 8, 9, 31, 64, 65, 512, 513, 4096}) {
            auto args = qlora::make<qlora_linear_args>();
            auto weight = qlora::make<qlora_weight>();
            weight.format = QLORA_FORMAT_NF4_DQ;
            weight.rows = 640;
            weight.cols = 320;
            args.weight = &weight;
            args.x = qlora::tensor(QLORA_FORMAT_F32, tokens, 320, {});
            args.y = qlora::tensor(QLORA_FORMAT_F32, tokens, 640, {});
            args.a = qlora::tensor(QLORA_FORMAT_F32, 16, 320, {});
            args.b = qlora::tensor(QLORA_FORMAT_F32, 640, 16, {});
            args.scale = 1;
            args.compute_type = QLORA_FORMAT_BF16;
            const uint64_t bytes = context.operation_scratch(QLORA_OP_LINEAR, args);
            CHECK_MESSAGE(bytes >= before, text(target.name, ": ", tokens, " tokens need ", bytes, " bytes, fewer tokens ", before));
            before = bytes;
        }
    }
}

TEST_CASE("ids and targets out of range") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        const bool host = target.backend == QLORA_BACKEND_REF || target.backend == QLORA_BACKEND_CPU;
        for (int32_t bad : {-1, 31, 0x7fffffff}) {
            Stage stage(context);
            qlora_embedding_args args = {};
            args.weight = stage.weight(host_weight(QLORA_FORMAT_Q8_0, 31, 64));
            args.ids = stage.integers({3, bad, 30});
            args.y = stage.output("y", QLORA_FORMAT_F32, 3, 64);
            const int32_t status = stage.run<QLORA_OP_EMBEDDING>(args);
            CHECK_MESSAGE(status == (host ? QLORA_ERROR_ARGUMENT : QLORA_OK), text(target.name, " id ", bad));
            if (status != QLORA_OK) continue;
            const std::vector<float> y = unpack(QLORA_FORMAT_F32, stage.outputs()[0].bytes);
            CHECK(std::vector<float>(y.begin() + 64, y.begin() + 128) == std::vector<float>(64, 0.0f));
        }
        for (int32_t bad : {31, 0x7fffffff}) {
            Stage stage(context);
            qlora_cross_entropy_args args = {};
            args.weight = stage.weight(host_weight(QLORA_FORMAT_Q8_0, 31, 64));
            args.x = stage.tensor(QLORA_FORMAT_F32, 3, 64, random_values(192, 2));
            args.dx = stage.output("dx", QLORA_FORMAT_F32, 3, 64);
            args.targets = stage.integers({3, bad, 30});
            args.losses = stage.output_floats("losses", 3);
            args.grad_scale = 1;
            const int32_t status = stage.run<QLORA_OP_CROSS_ENTROPY>(args);
            CHECK_MESSAGE(status == (host ? QLORA_ERROR_ARGUMENT : QLORA_OK), text(target.name, " target ", bad));
            if (status == QLORA_OK) CHECK(unpack(QLORA_FORMAT_F32, stage.outputs()[1].bytes)[1] == 0);
        }
    }
}

TEST_CASE("backends and devices that are not there") {
    auto args = qlora::make<qlora_context_args>();
    char message[256] = "";
    args.message = message;
    args.message_bytes = sizeof message;
    qlora_context *context = nullptr;
    args.backend = 0;
    CHECK(qlora_context_create(&args, &context) == QLORA_ERROR_ARGUMENT);
    args.backend = 77;
    CHECK(qlora_context_create(&args, &context) == QLORA_ERROR_ARGUMENT);
    CHECK(std::strlen(message) > 0);
    CHECK(qlora_context_create(nullptr, &context) == QLORA_ERROR_ARGUMENT);
    CHECK(qlora_context_create(&args, nullptr) == QLORA_ERROR_ARGUMENT);
    for (int32_t backend : {QLORA_BACKEND_REF, QLORA_BACKEND_CPU, QLORA_BACKEND_CUDA, QLORA_BACKEND_VULKAN})
        for (int32_t device : {-1, 1000}) {
            args.backend = backend;
            args.device = device;
            message[0] = 0;
            CHECK_MESSAGE(qlora_context_create(&args, &context) == QLORA_ERROR_UNAVAILABLE, text("backend ", backend, " device ", device));
            CHECK(context == nullptr);
            CHECK(std::strlen(message) > 0);
        }
    args.device = 0;
    args.backend = QLORA_BACKEND_CPU;
    args.isa = 55;
    CHECK(qlora_context_create(&args, &context) < 0);
    args.isa = 0;
    args.flags = 1u << 31; // none that there is
    CHECK(qlora_context_create(&args, &context) == QLORA_ERROR_ARGUMENT);
    args.flags = 0;
    args.allocate = [](void *, size_t, size_t) -> void * { return nullptr; };
    CHECK(qlora_context_create(&args, &context) == QLORA_ERROR_ARGUMENT); // allocate without release
    uint32_t count = 7;
    CHECK(qlora_device_count(55, &count) == QLORA_ERROR_UNAVAILABLE);
    CHECK(count == 0);
}

TEST_SUITE_END();
