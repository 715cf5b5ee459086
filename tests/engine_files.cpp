// Files from strangers, as examples/finetune reads them: GGUF and safetensors, whole, truncated, hostile.
#include "engine_support.h"

#include "decode.h"
#include "gguf.h"
#include "safetensors.h"

#include <cerrno>
#include <fcntl.h>
#include <sys/stat.h>

using namespace finetune;

namespace {

std::string gguf_error(const Bytes &bytes) {
    const Scratch file(bytes.data);
    return error_of([&] { Gguf opened(file.path); });
}

std::string small_gguf() {
    Bytes bytes;
    bytes.head(3, 2, 3).u32("general.alignment", 32);
    bytes.text("names").put<uint32_t>(9).put<uint32_t>(8).put<uint64_t>(2).text("one").text("two");
    bytes.text("values").put<uint32_t>(9).put<uint32_t>(6).put<uint64_t>(2).put(1.5f).put(-2.0f);
    bytes.tensor("first", {8, 2}, 0, 0).tensor("second", {32}, 8, 64).payload(64 + 64);
    return bytes.data;
}

} // namespace

TEST_CASE("files: a link keeps pointing, a pipe is written to, and what is read is not overwritten") {
    const auto write = [](const std::string &path) {
        NewFile file(path);
        file.write("new", 3);
        file.commit();
    };
    const auto is = [](const std::string &path, mode_t kind) {
        struct stat status;
        return lstat(path.c_str(), &status) == 0 && (status.st_mode & S_IFMT) == kind;
    };
    const Scratch target("old"), link, pipe;
    unlink(link.path.c_str());
    REQUIRE(symlink(target.path.c_str(), link.path.c_str()) == 0);
    write(link.path);
    CHECK(is(link.path, S_IFLNK));
    CHECK(target.read() == "new");
    unlink(pipe.path.c_str());
    REQUIRE(mkfifo(pipe.path.c_str(), 0600) == 0);
    const int reader = open(pipe.path.c_str(), O_RDONLY | O_NONBLOCK);
    check_writable(pipe.path);
    write(pipe.path);
    char text[8] = "";
    CHECK(read(reader, text, sizeof text) == 3);
    close(reader);
    CHECK(std::string(text) == "new");
    CHECK(is(pipe.path, S_IFIFO));
    CHECK(contains(error_of([&] { check_writable(link.path, {"nothing", target.path}); }), "is a file that is read here"));
    CHECK(error_of([&] { check_writable(link.path, {pipe.path}); }) == "");
}

TEST_CASE("gguf: reads what was written, both ways") {
    const Scratch file(small_gguf());
    const Gguf small(file.path);
    CHECK(small.version() == 3);
    CHECK(small.find_unsigned("general.alignment") == 32);
    CHECK(small.find_strings("names").value().at(1) == "two");
    CHECK(small.find_floats("values").value() == std::vector<float>{1.5f, -2.0f});
    CHECK(small.tensor("second").bytes == 34);
    CHECK(small.find_tensor("third") == nullptr);
    CHECK(contains(error_of([&] { small.tensor("third"); }), "'third' is missing"));
    CHECK(contains(error_of([&] { small.find_string("general.alignment"); }), "has type u32, expected string"));
    CHECK(contains(error_of([&] { small.find_unsigned("names"); }), "array of string, expected an integer"));

    const Scratch out;
    const float values[6] = {1, 2, 3, 4, 5, 6};
    GgufWriter writer;
    writer.add_string("general.architecture", "llama");
    writer.add_f32("x", 0.5f);
    writer.add_tensor("w", type_f32, {3, 2}, values);
    writer.save(out.path);
    const Gguf again(out.path);
    CHECK(again.find_float("x") == 0.5);
    CHECK(memcmp(again.tensor("w").data, values, sizeof(values)) == 0);
}

TEST_CASE("gguf: truncated at every byte is an error") {
    const std::string whole = small_gguf();
    const Scratch file;
    for (size_t size = 0; size < whole.size(); ++size) {
        file.write(whole.substr(0, size));
        CAPTURE(size);
        CHECK(error_of([&] { Gguf opened(file.path); }) != "");
    }
}

TEST_CASE("gguf: every byte changed to hostile values ends in success or Error") {
    const std::string whole = small_gguf();
    const Scratch file;
    for (size_t i = 0; i < whole.size(); ++i)
        for (int value : {0, 1, 0x7f, 0x80, 0xff}) {
            std::string changed = whole;
            changed[i] = char(value);
            file.write(changed);
            error_of([&] {
                const Gguf opened(file.path);
                uint64_t sum = 0;
                for (const GgufTensor &tensor : opened.tensors())
                    for (uint64_t k = 0; k < tensor.bytes; ++k) sum += tensor.data[k];
                opened.find_strings("names");
                opened.find_floats("values");
                if (sum == 1) fail("keeps the sum alive");
            });
        }
}

// A whole model, its first bytes in memory of exactly that size, so that a sanitizer sees any read beyond them.
TEST_CASE("gguf: the bundled model truncated anywhere is an error") {
    static std::vector<uint8_t> part;
    const FileFunctions real = file_functions;
    const MappedFile whole(bundled_model());
    const uint64_t header = 60000; // keys, tokens and tensor names end before
    file_functions.map = [](const char *, const uint8_t **data, uint64_t *size) {
        *data = part.data();
        *size = part.size();
        return 0;
    };
    file_functions.unmap = [](const uint8_t *, uint64_t) {};
    for (uint64_t size = 0; size < whole.size(); size += size < header ? 7 : 97003) {
        part = std::vector<uint8_t>(whole.data(), whole.data() + size);
        CAPTURE(size);
        CHECK(error_of([] { Gguf opened("part"); }) != "");
    }
    part = std::vector<uint8_t>(whole.data(), whole.data() + whole.size() - 1);
    CHECK(error_of([] { Gguf opened("part"); }) != "");
    file_functions = real;
}

TEST_CASE("gguf: hostile headers") {
    CHECK(contains(gguf_error(Bytes{"GGML0000000000000000000000000000"}), "magic"));
    CHECK(contains(gguf_error(Bytes().head(1, 0, 0)), "version 1"));
    CHECK(contains(gguf_error(Bytes().head(4, 0, 0)), "version 4"));
    CHECK(contains(gguf_error(Bytes().head(0x03000000, 0, 0)), "big-endian"));
    CHECK(contains(gguf_error(Bytes().head(3, -1, 0)), "number of tensors"));
    CHECK(contains(gguf_error(Bytes().head(3, 0, -1)), "number of keys"));
    CHECK(contains(gguf_error(Bytes().head(3, INT64_MAX, 0)), "number of tensors"));
    CHECK(contains(gguf_error(Bytes().head(3, 0, INT64_MAX / 2)), "number of keys"));
    CHECK(contains(gguf_error(Bytes().head(3, 1, 1)), "number of keys"));
    CHECK(gguf_error(Bytes().head(2, 0, 0)) == "");
}

TEST_CASE("gguf: hostile keys") {
    const auto with_key = [](auto fill) {
        Bytes bytes;
        bytes.head(3, 0, 1);
        fill(bytes);
        bytes.data.resize(bytes.data.size() + 64);
        return gguf_error(bytes);
    };
    CHECK(contains(with_key([](Bytes &b) { b.put<uint64_t>(UINT64_MAX); }), "string of 18446744073709551615 bytes"));
    CHECK(contains(with_key([](Bytes &b) { b.text("").put<uint32_t>(4); }), "its name has 0 bytes"));
    CHECK(contains(with_key([](Bytes &b) { b.text("k").put<uint32_t>(13); }), "value type 13"));
    CHECK(contains(with_key([](Bytes &b) { b.text("k").put<uint32_t>(8).put<uint64_t>(UINT64_MAX - 3); }), "key 'k'"));
    CHECK(contains(with_key([](Bytes &b) { b.text("k").put<uint32_t>(9).put<uint32_t>(9).put<uint64_t>(1); }),
                   "array of arrays"));
    CHECK(contains(with_key([](Bytes &b) { b.text("k").put<uint32_t>(9).put<uint32_t>(10).put<uint64_t>(1ull << 61); }),
                   "cannot fit"));
    CHECK(contains(with_key([](Bytes &b) { b.text("k").put<uint32_t>(9).put<uint32_t>(8).put<uint64_t>(1ull << 61); }),
                   "strings cannot fit"));
    CHECK(contains(with_key([](Bytes &b) { b.text("k").put<uint32_t>(7).put<uint8_t>(7); }), "bool"));
    CHECK(contains(gguf_error(Bytes().head(3, 0, 2).u32("k", 1).u32("k", 2)), "appears twice"));
    CHECK(contains(with_key([](Bytes &b) { b.text("a\nb").put<uint32_t>(99); }), "'a\\x0ab'"));
}

TEST_CASE("gguf: hostile alignment") {
    for (uint32_t alignment : {0u, 1u, 3u, 4u, 48u, 1u << 31}) {
        CAPTURE(alignment);
        CHECK(contains(
            gguf_error(Bytes().head(3, 1, 1).u32("general.alignment", alignment).tensor("t", {4}, 0, 0).payload(64)),
            "general.alignment"));
    }
    Bytes wide;
    wide.head(3, 1, 1)
        .text("general.alignment")
        .put<uint32_t>(10)
        .put<uint64_t>(1ull << 63)
        .tensor("t", {4}, 0, 0)
        .payload(64);
    CHECK(contains(gguf_error(wide), "expected u32"));
    CHECK(gguf_error(Bytes().head(3, 1, 1).u32("general.alignment", 64).tensor("t", {4}, 0, 0).payload(64, 64)) == "");
}

TEST_CASE("gguf: hostile tensors") {
    const auto one = [](const std::string &name, std::vector<int64_t> ne, uint32_t type, uint64_t offset) {
        return gguf_error(Bytes().head(3, 1, 0).tensor(name, std::move(ne), type, offset).payload(128));
    };
    CHECK(one("t", {8, 2}, 0, 0) == "");
    CHECK(contains(one("", {8}, 0, 0), "its name has 0 bytes"));
    CHECK(contains(one(std::string(64, 'x'), {8}, 0, 0), "its name has 64 bytes"));
    CHECK(contains(one("t", {}, 0, 0), "0 dimensions"));
    CHECK(contains(one("t", {1, 1, 1, 1, 1}, 0, 0), "5 dimensions"));
    CHECK(contains(one("t", {0}, 0, 0), "dimension 0 is 0"));
    CHECK(contains(one("t", {8, -1}, 0, 0), "dimension 1 is -1"));
    CHECK(contains(one("t", {1ll << 32, 1ll << 32}, 0, 0), "63 bits"));
    CHECK(contains(one("t", {1ll << 62}, 0, 0), "64 bits"));
    CHECK(contains(one("t", {1ll << 40}, 0, 0), "reach beyond"));
    for (uint32_t type : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u, 1000u})
        CHECK(contains(one("t", {32}, type, 0), "unknown or was removed"));
    CHECK(contains(one("t", {33}, 8, 0), "do not divide"));
    CHECK(contains(one("t", {8}, 0, 4), "not a multiple of the alignment"));
    CHECK(contains(one("t", {8}, 0, 128), "reach beyond"));
    CHECK(contains(one("t", {8}, 0, UINT64_MAX - 31), "reach beyond"));
    CHECK(contains(gguf_error(Bytes().head(3, 2, 0).tensor("a", {16}, 0, 0).tensor("b", {16}, 0, 32).payload(256)),
                   "overlaps"));
    CHECK(contains(gguf_error(Bytes().head(3, 2, 0).tensor("a", {8}, 0, 0).tensor("a", {8}, 0, 32).payload(256)),
                   "appears twice"));
}

TEST_CASE("gguf: many names are checked in linear time") {
    Bytes bytes;
    const int count = 200000;
    bytes.head(3, 0, count);
    for (int i = 0; i < count; ++i) bytes.u32("key." + std::to_string(i), 1);
    CHECK(gguf_error(bytes) == "");
}

TEST_CASE("files: injected failures are errors, and leave nothing behind") {
    const Scratch file(small_gguf());
    const Scratch target("before");
    const FileFunctions real = file_functions;
    const auto save = [&] {
        GgufWriter writer;
        const float value = 1;
        writer.add_tensor("w", type_f32, {1}, &value);
        writer.save(target.path);
    };
    file_functions.map = [](const char *, const uint8_t **, uint64_t *) { return EIO; };
    CHECK(contains(error_of([&] { Gguf opened(file.path); }), "cannot be read"));
    file_functions = real;
    file_functions.create = [](const char *, int *) { return EACCES; };
    CHECK(contains(error_of(save), "cannot be created"));
    file_functions = real;
    file_functions.write = [](int, const void *, size_t) { return ENOSPC; };
    CHECK(contains(error_of(save), "cannot be written"));
    file_functions = real;
    file_functions.rename = [](const char *, const char *) { return EXDEV; };
    CHECK(contains(error_of(save), "cannot be completed"));
    file_functions = real;
    CHECK(target.read() == "before");
    CHECK(access((target.path + ".partial-" + std::to_string(getpid())).c_str(), F_OK) != 0);
    CHECK(contains(error_of([] { MappedFile missing("no/such/file"); }), "No such file"));
    CHECK(contains(error_of([] { MappedFile folder("."); }), "cannot be read"));
}

TEST_CASE("safetensors: hostile headers") {
    const auto error = [](const std::string &header, size_t data, int64_t length = -1) {
        Bytes bytes;
        bytes.put<uint64_t>(length < 0 ? header.size() : uint64_t(length));
        bytes.data += header;
        bytes.data.resize(bytes.data.size() + data);
        const Scratch file(bytes.data);
        return error_of([&] { SafeTensors opened(file.path); });
    };
    const std::string good =
        R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[],"data_offsets":[8,10]}})";
    CHECK(error(good, 10) == "");
    CHECK(contains(error(good, 9), "reach beyond"));
    CHECK(contains(error(good, 11), "longer than its tensors"));
    CHECK(contains(error(good, 10, 100000001), "header length"));
    CHECK(contains(error(good, 10, INT64_MAX), "header length"));
    CHECK(contains(error("[]", 0), "JSON object"));
    CHECK(contains(error("{", 0), "not valid JSON"));
    CHECK(contains(error("{\"a\xff\":1}", 0), "not valid JSON"));
    CHECK(contains(error(R"({"a":1e400})", 0), "out of range"));
    CHECK(contains(error(R"({"a":)" + std::string(100000, '[') + "}", 0), "nested deeper"));
    CHECK(contains(
        error(
            R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})",
            8),
        "appears twice"));
    CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8),
                   "overflows"));
    CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "other than sizes"));
    CHECK(contains(error(R"({"a":{"dtype":"Q9","shape":[2],"data_offsets":[0,8]}})", 8), "'Q9' is unknown"));
    CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), "reach beyond"));
    CHECK(contains(
        error(
            R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})",
            12),
        "overlaps"));
    CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "hole"));
}

TEST_CASE("decode: halves and bfloats") {
    CHECK(half_to_float(0x3c00) == 1);
    CHECK(half_to_float(0xc500) == -5);
    CHECK(half_to_float(0x0001) == 5.9604644775390625e-8f);
    CHECK(half_to_float(0x03ff) == 6.0975551605224609375e-5f);
    CHECK(bfloat_to_float(0xbf80) == -1);
}

TEST_CASE("gguf: a model in parts is read as one, and what is wrong with them is said") {
    const Gguf whole(bundled_model());
    const std::string stem = Scratch().path;
    const auto name = [&](int part, int count = 3) {
        char ending[32];
        snprintf(ending, sizeof(ending), "-%05d-of-%05d.gguf", part, count);
        return stem + ending;
    };
    const uint32_t tensors = uint32_t(whole.tensors().size());
    const auto write = [&](int part, uint32_t number, uint32_t said) {
        GgufWriter writer;
        if (part == 1)
            for (std::string_view key : whole.keys()) writer.add_entry(whole.entry(key));
        writer.add_u32("split.no", number);
        writer.add_u32("split.count", 3);
        writer.add_u32("split.tensors.count", said);
        for (size_t i = 0; i < tensors; ++i) { // the first part holds none
            const GgufTensor &tensor = whole.tensors()[i];
            if (part == 1 || (i < 20 ? 2 : 3) != part) continue;
            writer.add_tensor(tensor.name, tensor.type->id, {tensor.ne, tensor.ne + tensor.dims}, tensor.data);
        }
        writer.save(name(part));
    };
    for (int part : {1, 2, 3}) write(part, uint32_t(part - 1), tensors);
    {
        const Gguf joined(name(1));
        CHECK(joined.tensors().size() == tensors);
        CHECK(joined.keys() .size() == whole.keys().size());
        for (const GgufTensor &tensor : whole.tensors()) {
            const GgufTensor &other = joined.tensor(tensor.name);
            REQUIRE(other.bytes == tensor.bytes);
            CHECK(memcmp(other.data, tensor.data, tensor.bytes) == 0);
        }
    }
    CHECK(contains(error_of([&] { Gguf file(name(2)); }), "give the first, " + name(1)));
    write(3, 1, tensors);
    CHECK(contains(error_of([&] { Gguf file(name(1)); }), "not part 3 of 3"));
    write(3, 2, tensors);
    write(1, 0, tensors + 1);
    CHECK(contains(error_of([&] { Gguf file(name(1)); }), "split.tensors.count"));
    unlink(name(3).c_str());
    CHECK(contains(error_of([&] { Gguf file(name(1)); }), "part 3 of 3 of this model is missing: " + name(3)));
    rename(name(1).c_str(), stem.c_str());
    CHECK(contains(error_of([&] { Gguf file(stem); }), "should end with -00001-of-00003.gguf"));
    unlink(stem.c_str());
    unlink(name(2).c_str());
}
