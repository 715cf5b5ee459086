// Every args struct, driven by its description (examples/bindings/qlora.json): sizes too short, shorter, longer; pointers null; spans absent,
// too small, misaligned. What is refused is a typed error with a sentence, and has written nothing.
#include "tests/support/inputs.h"
#include "tests/support/stage.h"
#include "tests/support/targets.h"

#include <doctest/doctest.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstring>
#include <fstream>

using namespace test;

namespace {

struct Field {
    std::string name, type;
    size_t offset;
};

std::vector<Field> fields_of(const std::string &struct_name) {
    std::ifstream file(std::string(QLORA_SOURCE_DIR) + "/examples/bindings/qlora.json");
    static const nlohmann::json description = nlohmann::json::parse(file);
    std::vector<Field> fields;
    const size_t machine = sizeof(void *) == 8 ? 0 : alignof(uint64_t) == 4 ? 2 : 1;
    for (const auto &entry : description["structs"])
        if (entry["name"] == struct_name)
            for (const auto &field : entry["fields"]) fields.push_back({field["name"], field["type"], field["offset"][machine]});
    REQUIRE(!fields.empty());
    return fields;
}

const char *args_name(uint32_t operation) {
#define QLORA_OPERATION(ID, name, entry, args_type, ...) if (operation == QLORA_OP_##ID) return #args_type;
#include "backends/ops.def"
#undef QLORA_OPERATION
    return "";
}

template <class T> T at(const std::vector<uint8_t> &bytes, size_t offset) {
    T value;
    std::memcpy(&value, bytes.data() + offset, sizeof value);
    return value;
}
template <class T> void put(std::vector<uint8_t> &bytes, size_t offset, const T &value) { std::memcpy(bytes.data() + offset, &value, sizeof value); }

bool same(const std::vector<Output> &a, const std::vector<Output> &b) {
    for (size_t i = 0; i < a.size(); i++)
        if (a[i].bytes != b[i].bytes) return false;
    return a.size() == b.size();
}

} // namespace

TEST_SUITE_BEGIN("host");

TEST_CASE("every args struct: sizes, null pointers, absent, small and misaligned spans") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        for (const Operation &operation : all_operations()) {
            const std::vector<Field> fields = fields_of(args_name(operation.number));
            // The small case, or the first after it that this backend computes.
            const Case *found = nullptr;
            std::vector<Output> expected;
            for (const Case *one = &small_case(operation); !found && one < operation.cases.data() + operation.cases.size(); one++) {
                if (!context.operation_supports(operation.number, one->format, one->type)) continue;
                Stage stage(context);
                one->act(stage);
                if (stage.status() == QLORA_ERROR_UNSUPPORTED) continue;
                REQUIRE_MESSAGE(stage.status() == QLORA_OK, stage.last_message());
                expected = stage.outputs();
                found = one;
            }
            if (!found) continue;
            const Case &one = *found;
            Stage stage(context);
            uint64_t refused = 0;
            stage.instead = [&](const void *args, size_t size, int32_t (*call)(qlora_context *, const void *)) {
                const std::vector<uint8_t> good(static_cast<const uint8_t *>(args), static_cast<const uint8_t *>(args) + size);
                const std::vector<Output> untouched = stage.outputs();
                // allowed: statuses that are right besides "refused by ARGUMENT".
                auto refuse = [&](const std::string &what, const std::vector<uint8_t> &bytes, std::initializer_list<int32_t> allowed) {
                    const int32_t status = call(context.get(), bytes.data());
                    const std::string where = text(target.name, " ", operation.name, " ", what, ": ", qlora_status_name(status));
                    CHECK_MESSAGE(std::count(allowed.begin(), allowed.end(), status) == 1, where);
                    if (status == QLORA_OK) return; // an optional field; what it writes is made good by the last call
                    refused++;
                    CHECK_MESSAGE(std::string(qlora_context_message(context.get())).find("qlora_") == 0, where);
                    CHECK_MESSAGE(same(stage.outputs(), untouched), text(where, ", and yet something was written"));
                };
                for (uint32_t short_size = 0; short_size < 8; short_size++) {
                    std::vector<uint8_t> bytes = good;
                    put(bytes, 0, short_size);
                    refuse(text("struct_size ", short_size), bytes, {QLORA_ERROR_ARGUMENT});
                }
                for (size_t more : {1, 8, 64}) {
                    std::vector<uint8_t> bytes = good;
                    bytes.resize(size + more, 0);
                    bytes.back() = 1;
                    put(bytes, 0, uint32_t(bytes.size()));
                    refuse(text(more, " bytes longer and set"), bytes, {QLORA_ERROR_ARGUMENT});
                }
                for (const Field &field : fields) {
                    std::vector<uint8_t> bytes = good;
                    if (field.type.back() == '*') {
                        if (!at<const void *>(good, field.offset)) continue;
                        put(bytes, field.offset, static_cast<const void *>(nullptr));
                        refuse(text(field.name, " null"), bytes, {QLORA_ERROR_ARGUMENT});
                    } else if (field.type == "qlora_span" || field.type == "qlora_tensor") {
                        const size_t place = field.offset + (field.type == "qlora_tensor" ? offsetof(qlora_tensor, data) : 0);
                        const qlora_span span = at<qlora_span>(good, place);
                        if (span.handle == 0 || span.size == 0) continue;
                        qlora_span small = span, crooked = span;
                        small.size--;
                        crooked.offset++;
                        put(bytes, place, small);
                        refuse(text(field.name, " a byte too small"), bytes, {QLORA_ERROR_SHAPE, QLORA_ERROR_SCRATCH});
                        put(bytes, place, crooked);
                        refuse(text(field.name, " misaligned"), bytes, {QLORA_ERROR_ARGUMENT});
                    }
                }
                // Longer, and zero there: as if it had the size of today.
                std::vector<uint8_t> longer = good;
                longer.resize(size + 40, 0);
                put(longer, 0, uint32_t(longer.size()));
                return call(context.get(), longer.data());
            };
            one.act(stage);
            CHECK_MESSAGE(stage.status() == QLORA_OK, text(target.name, " ", operation.name, ": ", stage.last_message()));
            CHECK_MESSAGE(same(stage.outputs(), expected), text(target.name, " ", operation.name, ": another result from a longer struct"));
            CHECK(refused > 10);

            // Every shorter size that ends between fields is zero-extended: an answer, never a crash or a write outside.
            Stage shorter(context);
            shorter.instead = [&](const void *args, size_t, int32_t (*call)(qlora_context *, const void *)) {
                for (const Field &field : fields) {
                    if (field.offset < 8) continue;
                    std::vector<uint8_t> bytes(static_cast<const uint8_t *>(args), static_cast<const uint8_t *>(args) + field.offset); // not a byte more is there
                    put(bytes, 0, uint32_t(field.offset));
                    const int32_t status = call(context.get(), bytes.data());
                    CHECK_MESSAGE((status == QLORA_OK || std::string(qlora_status_name(status)) != "unknown"), text(operation.name, " cut before ", field.name));
                }
                return call(context.get(), args);
            };
            one.act(shorter);
            CHECK_MESSAGE(shorter.status() == QLORA_OK, text(target.name, " ", operation.name, ": ", shorter.last_message()));
            shorter.outputs(); // guards are whole
        }
    }
}

// A buffer of two slots that are filled in turn, read by what is enqueued after a join, and overwritten by the next but one.
TEST_CASE("copies beside the operations come after what was enqueued before, and are there after their join") {
    for (const Target &target : targets()) {
        const qlora::Context &context = shared_context(target);
        const uint64_t words = 100000, bytes = words * 4, rounds = 6;
        std::vector<uint32_t> given(words * rounds);
        for (size_t i = 0; i < given.size(); i++) given[i] = uint32_t(i * 2654435761u);
        qlora::Buffer host = qlora::Buffer::on_host(context, bytes * rounds), back = qlora::Buffer::on_host(context, bytes * rounds);
        host.write(given.data(), bytes * rounds);
        const qlora::Buffer slots(context, 2 * bytes), work(context, bytes);
        const auto copy = [&](qlora_span dst, qlora_span src, uint32_t flags) {
            auto args = qlora::make<qlora_buffer_args>();
            args.flags = flags;
            args.dst = dst;
            args.src = src;
            args.bytes = bytes;
            context.buffer_copy(args);
        };
        const auto join = [&](uint32_t flags) {
            auto args = qlora::make<qlora_buffer_args>();
            args.flags = flags;
            context.buffer_join(args);
        };
        copy(slots.span(0, bytes), host.span(0, bytes), QLORA_BUFFER_BESIDE);
        for (uint64_t i = 0; i < rounds; i++) {
            join(0);
            if (i + 1 < rounds) copy(slots.span((i + 1) % 2 * bytes, bytes), host.span((i + 1) * bytes, bytes), QLORA_BUFFER_BESIDE);
            if (i > 0) join(QLORA_BUFFER_HOST); // work has left
            copy(work.span(), slots.span(i % 2 * bytes, bytes), 0);
            copy(back.span(i * bytes, bytes), work.span(), QLORA_BUFFER_BESIDE | QLORA_BUFFER_HOST);
        }
        context.synchronize();
        join(QLORA_BUFFER_HOST);
        CHECK_MESSAGE(back.read<uint32_t>() == given, target.name);
        // Right after a join a copy comes after what was joined, though in the other direction and with nothing between them.
        const std::vector<uint32_t> first(given.begin(), given.begin() + long(bytes / 4));
        copy(work.span(), host.span(0, bytes), 0);
        copy(back.span(bytes, bytes), work.span(), QLORA_BUFFER_BESIDE | QLORA_BUFFER_HOST);
        join(QLORA_BUFFER_HOST);
        copy(work.span(), host.span(bytes, bytes), QLORA_BUFFER_BESIDE);
        join(0);
        copy(back.span(0, bytes), work.span(), QLORA_BUFFER_BESIDE | QLORA_BUFFER_HOST);
        context.synchronize();
        const std::vector<uint32_t> swapped = back.read<uint32_t>();
        CHECK_MESSAGE(std::equal(first.begin(), first.end(), swapped.begin() + long(bytes / 4)), target.name);
        CHECK_MESSAGE(std::equal(swapped.begin(), swapped.begin() + long(bytes / 4), given.begin() + long(bytes / 4)), target.name);
    }
}

TEST_SUITE_END();
