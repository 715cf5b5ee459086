// The parts of examples/finetune that need no device: files from strangers, tokenizer, data, numbers, adapters.
// Golden files are looked for in $QLORA_SHARED, then in QLORA_SHARED_DIR; without them those cases say SKIPPED.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>

#include "adapter.h"
#include "data.h"
#include "rng.h"
#include "safetensors.h"
#include "schedule.h"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <unistd.h>

using namespace finetune;

#ifndef QLORA_SHARED_DIR
#define QLORA_SHARED_DIR "../shared"
#endif
#ifndef QLORA_SOURCE_DIR
#define QLORA_SOURCE_DIR "."
#endif

namespace {

std::string shared(const std::string& name) {
  const char* folder = getenv("QLORA_SHARED");
  const std::string path = std::string(folder != nullptr ? folder : QLORA_SHARED_DIR) + "/" + name;
  if (access(path.c_str(), R_OK) == 0) return path;
  MESSAGE("SKIPPED: " << path << " is not here; set QLORA_SHARED to the folder of golden files");
  return "";
}

std::string bundled_model() { return std::string(QLORA_SOURCE_DIR) + "/examples/data/demo-base-f16.gguf"; }

// A file in the temporary folder that is gone with the object.
struct Scratch {
  explicit Scratch(const std::string& content = "", const char* suffix = "") {
    const char* folder = getenv("TMPDIR");
    static int count = 0;
    path = std::string(folder != nullptr ? folder : P_tmpdir) + "/engine_test_" + std::to_string(getpid()) + "_" +
           std::to_string(count++) + suffix;
    write(content);
  }
  ~Scratch() { unlink(path.c_str()); }
  void write(const std::string& content) const {
    std::ofstream(path, std::ios::binary | std::ios::trunc).write(content.data(), std::streamsize(content.size()));
  }
  std::string read() const {
    std::ifstream file(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::string path;
};

// The message of the Error that an action ends with; "" when it succeeds. Anything but Error fails the test.
template <class Action>
std::string error_of(Action action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(std::string(error.what()).find('\n') == std::string::npos);
    return error.what();
  }
  return "";
}

bool contains(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return true;
  MESSAGE("'" << text << "' does not contain '" << part << "'");
  return false;
}

// Builds GGUF bytes field by field, right or wrong.
struct Bytes {
  std::string data;
  template <class T>
  Bytes& put(T value) {
    data.append(reinterpret_cast<const char*>(&value), sizeof(T));
    return *this;
  }
  Bytes& text(const std::string& value) {
    put<uint64_t>(value.size());
    data += value;
    return *this;
  }
  Bytes& head(uint32_t version, int64_t tensors, int64_t values) {
    data += "GGUF";
    return put(version).put(tensors).put(values);
  }
  Bytes& u32(const std::string& key, uint32_t value) { return text(key).put<uint32_t>(4).put(value); }
  Bytes& tensor(const std::string& name, std::vector<int64_t> ne, uint32_t type, uint64_t offset) {
    text(name).put<uint32_t>(uint32_t(ne.size()));
    for (int64_t size : ne) put(size);
    return put(type).put(offset);
  }
  Bytes& payload(size_t bytes, size_t alignment = 32) {
    data.resize((data.size() + alignment - 1) / alignment * alignment);
    data.resize(data.size() + bytes, '\1');
    return *this;
  }
};

std::string gguf_error(const Bytes& bytes) {
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

}  // namespace

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
        for (const GgufTensor& tensor : opened.tensors())
          for (uint64_t k = 0; k < tensor.bytes; ++k) sum += tensor.data[k];
        opened.find_strings("names");
        opened.find_floats("values");
        if (sum == 1) fail("keeps the sum alive");
      });
    }
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
  CHECK(contains(with_key([](Bytes& b) { b.put<uint64_t>(UINT64_MAX); }), "string of 18446744073709551615 bytes"));
  CHECK(contains(with_key([](Bytes& b) { b.text("").put<uint32_t>(4); }), "its name has 0 bytes"));
  CHECK(contains(with_key([](Bytes& b) { b.text("k").put<uint32_t>(13); }), "value type 13"));
  CHECK(contains(with_key([](Bytes& b) { b.text("k").put<uint32_t>(8).put<uint64_t>(UINT64_MAX - 3); }), "key 'k'"));
  CHECK(contains(with_key([](Bytes& b) { b.text("k").put<uint32_t>(9).put<uint32_t>(9).put<uint64_t>(1); }), "array of arrays"));
  CHECK(contains(with_key([](Bytes& b) { b.text("k").put<uint32_t>(9).put<uint32_t>(10).put<uint64_t>(1ull << 61); }), "cannot fit"));
  CHECK(contains(with_key([](Bytes& b) { b.text("k").put<uint32_t>(9).put<uint32_t>(8).put<uint64_t>(1ull << 61); }), "strings cannot fit"));
  CHECK(contains(with_key([](Bytes& b) { b.text("k").put<uint32_t>(7).put<uint8_t>(7); }), "bool"));
  CHECK(contains(gguf_error(Bytes().head(3, 0, 2).u32("k", 1).u32("k", 2)), "appears twice"));
  CHECK(contains(with_key([](Bytes& b) { b.text("a\nb").put<uint32_t>(99); }), "'a\\x0ab'"));
}

TEST_CASE("gguf: hostile alignment") {
  for (uint32_t alignment : {0u, 1u, 3u, 4u, 48u, 1u << 31}) {
    CAPTURE(alignment);
    CHECK(contains(gguf_error(Bytes().head(3, 1, 1).u32("general.alignment", alignment).tensor("t", {4}, 0, 0).payload(64)),
                   "general.alignment"));
  }
  Bytes wide;
  wide.head(3, 1, 1).text("general.alignment").put<uint32_t>(10).put<uint64_t>(1ull << 63).tensor("t", {4}, 0, 0).payload(64);
  CHECK(contains(gguf_error(wide), "expected u32"));
  CHECK(gguf_error(Bytes().head(3, 1, 1).u32("general.alignment", 64).tensor("t", {4}, 0, 0).payload(64, 64)) == "");
}

TEST_CASE("gguf: hostile tensors") {
  const auto one = [](const std::string& name, std::vector<int64_t> ne, uint32_t type, uint64_t offset) {
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
  for (uint32_t type : {4u, 5u, 31u, 32u, 33u, 36u, 37u, 38u, 1000u}) CHECK(contains(one("t", {32}, type, 0), "unknown or was removed"));
  CHECK(contains(one("t", {33}, 8, 0), "do not divide"));
  CHECK(contains(one("t", {8}, 0, 4), "not a multiple of the alignment"));
  CHECK(contains(one("t", {8}, 0, 128), "reach beyond"));
  CHECK(contains(one("t", {8}, 0, UINT64_MAX - 31), "reach beyond"));
  CHECK(contains(gguf_error(Bytes().head(3, 2, 0).tensor("a", {16}, 0, 0).tensor("b", {16}, 0, 32).payload(256)), "overlaps"));
  CHECK(contains(gguf_error(Bytes().head(3, 2, 0).tensor("a", {8}, 0, 0).tensor("a", {8}, 0, 32).payload(256)), "appears twice"));
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
  file_functions.map = [](const char*, const uint8_t**, uint64_t*) { return EIO; };
  CHECK(contains(error_of([&] { Gguf opened(file.path); }), "cannot be read"));
  file_functions = real;
  file_functions.create = [](const char*, int*) { return EACCES; };
  CHECK(contains(error_of(save), "cannot be created"));
  file_functions = real;
  file_functions.write = [](int, const void*, size_t) { return ENOSPC; };
  CHECK(contains(error_of(save), "cannot be written"));
  file_functions = real;
  file_functions.rename = [](const char*, const char*) { return EXDEV; };
  CHECK(contains(error_of(save), "cannot be completed"));
  file_functions = real;
  CHECK(target.read() == "before");
  CHECK(access((target.path + ".partial-" + std::to_string(getpid())).c_str(), F_OK) != 0);
  CHECK(contains(error_of([] { MappedFile missing("no/such/file"); }), "No such file"));
  CHECK(contains(error_of([] { MappedFile folder("."); }), "cannot be read"));
}

TEST_CASE("safetensors: hostile headers") {
  const auto error = [](const std::string& header, size_t data, int64_t length = -1) {
    Bytes bytes;
    bytes.put<uint64_t>(length < 0 ? header.size() : uint64_t(length));
    bytes.data += header;
    bytes.data.resize(bytes.data.size() + data);
    const Scratch file(bytes.data);
    return error_of([&] { SafeTensors opened(file.path); });
  };
  const std::string good = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F16","shape":[],"data_offsets":[8,10]}})";
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
  CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})", 8), "appears twice"));
  CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,8]}})", 8), "overflows"));
  CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}})", 8), "other than sizes"));
  CHECK(contains(error(R"({"a":{"dtype":"Q9","shape":[2],"data_offsets":[0,8]}})", 8), "'Q9' is unknown"));
  CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}})", 8), "reach beyond"));
  CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}})", 12), "overlaps"));
  CHECK(contains(error(R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}})", 8), "hole"));
}

TEST_CASE("tokenizer: texts of the golden files, id for id") {
  const std::string model = shared("models/tinylm-f16.gguf"), golden = shared("golden/tinylm_token_ids.safetensors");
  if (model.empty() || golden.empty()) return;
  const Gguf file(model);
  const Tokenizer tokenizer(file);
  const SafeTensors expected(golden);
  for (const char* name : {"wikitext2_test", "tinyshakespeare"}) {
    const std::string path = shared("data/" + std::string(name) + ".txt");
    if (path.empty()) return;
    const MappedFile text(path);
    std::vector<int32_t> ids = tokenizer.encode(text.text());
    ids.insert(ids.begin(), tokenizer.begin_token());
    CHECK(ids == expected.integers(expected.get(name)));
    CHECK(tokenizer.decode(ids, true) == text.text());
  }
}

TEST_CASE("tokenizer: llama.cpp's own vocabulary test") {
  const std::string path = shared("data/vocab/ggml-vocab-llama-spm.gguf");
  if (path.empty()) return;
  const Gguf file(path);
  const Tokenizer tokenizer(file);
  const MappedFile inputs(path + ".inp"), outputs(path + ".out");
  const std::string_view separator = "\n__ggml_vocab_test__\n";
  std::string_view rest = inputs.text(), lines = outputs.text();
  int cases = 0;
  while (!lines.empty()) {
    const std::string_view text = rest.substr(0, rest.find(separator));
    rest.remove_prefix(std::min(rest.size(), text.size() + separator.size()));
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(std::min(lines.size(), line.size() + 1));
    std::string ids;
    for (int32_t id : tokenizer.encode(text)) ids += " " + std::to_string(id);
    CHECK(ids == line);
    ++cases;
  }
  CHECK(cases > 40);
}

TEST_CASE("tokenizer: bundled model, control tokens in data stay text, long runs stay fast") {
  const Gguf file(bundled_model());
  const Tokenizer tokenizer(file);
  const std::string text = "naive </s> <s> caf\xc3\xa9 \xf0\x9f\x99\x82 <0x41>\n\ttab  two";
  const std::vector<int32_t> ids = tokenizer.encode(text);
  for (int32_t id : ids) CHECK(id > tokenizer.end_token());
  CHECK(tokenizer.decode(ids, true) == text);
  CHECK(tokenizer.decode(tokenizer.encode(std::string(300000, 'a')), true).size() == 300000);
  CHECK(tokenizer.encode("").empty());
  CHECK(contains(error_of([&] { tokenizer.decode({1 << 30}); }), "outside the vocabulary"));
}

TEST_CASE("tokenizer: hostile vocabularies") {
  const auto error = [](std::vector<std::string> pieces, size_t scores, std::vector<int32_t> types, uint32_t end_token) {
    Bytes bytes;
    bytes.head(3, 0, 5).text("tokenizer.ggml.model").put<uint32_t>(8).text("llama");
    bytes.text("tokenizer.ggml.tokens").put<uint32_t>(9).put<uint32_t>(8).put<uint64_t>(pieces.size());
    for (const std::string& piece : pieces) bytes.text(piece);
    bytes.text("tokenizer.ggml.scores").put<uint32_t>(9).put<uint32_t>(6).put<uint64_t>(scores);
    for (size_t i = 0; i < scores; ++i) bytes.put(0.0f);
    bytes.text("tokenizer.ggml.token_type").put<uint32_t>(9).put<uint32_t>(5).put<uint64_t>(types.size());
    for (int32_t type : types) bytes.put(type);
    bytes.u32("tokenizer.ggml.eos_token_id", end_token);
    const Scratch file(bytes.data);
    return error_of([&] {
      const Gguf opened(file.path);
      Tokenizer tokenizer(opened);
    });
  };
  CHECK(error({"a", "<0x0A>"}, 2, {1, 6}, 1) == "");
  CHECK(contains(error({"a", "b"}, 1, {1, 1}, 1), "equal lengths"));
  CHECK(contains(error({"a", "b"}, 2, {1}, 1), "equal lengths"));
  CHECK(contains(error({"a", "b"}, 2, {1, 1}, 2), "outside the vocabulary"));
  CHECK(contains(error({"a", "<0x-1>"}, 2, {1, 6}, 1), "byte token"));
  CHECK(contains(error({"a", "b"}, 2, {1, 9}, 1), "type 9 is unknown"));
}

TEST_CASE("data: rows, and errors with file and line") {
  const Gguf file(bundled_model());
  const Tokenizer tokenizer(file);
  const Scratch data("", ".jsonl");
  const auto error = [&](const std::string& text, DataLimits limits = {64, 2048}) {
    data.write(text);
    return error_of([&] { read_jsonl(data.path, tokenizer, limits); });
  };
  const std::string good = "{\"prompt\": \"one two \", \"answer\": \"three\"}\n";
  data.write("\n" + good + "\r\n" + good);
  const Dataset rows = read_jsonl(data.path, tokenizer, {64, 2048});
  REQUIRE(rows.rows.size() == 2);
  CHECK(rows.rows[0].prompt.front() == tokenizer.begin_token());
  CHECK(rows.rows[0].answer.back() == tokenizer.end_token());
  CHECK(tokenizer.decode(rows.rows[0].answer) == "three");

  const std::string line3 = data.path + ":3: ";
  CHECK(contains(error(""), "holds no rows"));
  CHECK(contains(error("\n\n"), "holds no rows"));
  CHECK(contains(error(good + good + "{\"prompt\": \"x\", \"answer\"\n"), line3 + "not valid JSON"));
  CHECK(contains(error(good + good + "[1]\n"), line3 + "expected a JSON object"));
  CHECK(contains(error(good + good + "{\"prompt\": \"x\"}\n"), line3 + "the row has no answer"));
  CHECK(contains(error(good + good + "{\"prompt\": \"x\", \"answer\": \"\"}\n"), line3 + "the row has no answer"));
  CHECK(contains(error(good + good + "{\"prompt\": 3, \"answer\": \"y\"}\n"), line3 + "'prompt' is number"));
  CHECK(contains(error(good + good + "{\"text\": \"x\"}\n"), line3 + "no prompt"));
  CHECK(contains(error(good + good + "{\"prompt\": \"\xff\", \"answer\": \"y\"}\n"), line3 + "not valid JSON"));
  CHECK(contains(error(good + good + "{\"prompt\": \"x\", \"prompt\": \"z\", \"answer\": \"y\"}\n"), line3 + "key 'prompt' appears twice"));
  CHECK(contains(error(good + good + std::string(5000, '[') + "\n"), line3 + "nested deeper"));
  const std::string long_row = "{\"instruction\": \"" + std::string(400, 'q') + "\", \"output\": \"y\"}\n";
  CHECK(contains(error(good + good + long_row), line3 + "the row has"));
  CHECK(error(good + good + long_row, {64, 2048, TooLong::drop}) == "");
  CHECK(contains(error(long_row, {64, 2048, TooLong::drop}), "every row is longer"));
  CHECK(contains(error_of([&] { read_jsonl("no/such.jsonl", tokenizer, {64, 2048}); }), "No such file"));
}

TEST_CASE("data: token ids") {
  const Scratch data("", ".json");
  const auto error = [&](const std::string& text, const std::string& key = "train") {
    data.write(text);
    return error_of([&] { read_token_ids(data.path + ":" + key, {8, 100}); });
  };
  CHECK(error("{\"train\": [[[1, 2], [3]], [[4], [5, 6]]]}") == "");
  CHECK(contains(error("{\"train\": []}"), "holds no rows"));
  CHECK(contains(error("{\"test\": []}"), "under the key 'train'"));
  CHECK(contains(error("{\"train\": [[[1], [2]], [[1], [100]]]}"), "row 1: 100 is not a token id"));
  CHECK(contains(error("{\"train\": [[[1], [-2]]]}"), "row 0: -2 is not a token id"));
  CHECK(contains(error("{\"train\": [[[1], []]]}"), "no answer"));
  CHECK(contains(error("{\"train\": [[[], [1]]]}"), "prompt is empty"));
  CHECK(contains(error("{\"train\": [[[1, 2, 3, 4, 5, 6, 7, 8], [1]]]}"), "9 tokens"));
  CHECK(contains(error("{}", ""), "expected a file and a name"));
  CHECK(contains(error(""), "empty"));
}

TEST_CASE("numbers: schedules and random values are pinned") {
  CHECK(schedule_factor(Schedule::constant, 0, 0, 10) == 1);
  CHECK(schedule_factor(Schedule::constant, 0, 4, 10) == 0.25);
  CHECK(schedule_factor(Schedule::constant, 9, 4, 10) == 1);
  CHECK(schedule_factor(Schedule::linear, 2, 2, 10) == 1);
  CHECK(schedule_factor(Schedule::linear, 6, 2, 10) == 0.5);
  CHECK(schedule_factor(Schedule::cosine, 6, 2, 10) == doctest::Approx(0.5));
  CHECK(schedule_factor(Schedule::cosine, 10, 2, 10) == 0);
  CHECK(schedule_factor(Schedule::cosine, 1, 2, 2) == 1);

  Random random(42, 7);
  CHECK(random.at(0) == random.next());
  CHECK(Random(42, 7).at(5) == Random(42, 7).at(5));
  CHECK(Random(42, 7).at(5) != Random(42, 8).at(5));
  CHECK(Random(1, 0).at(0) == 0x21a5715431dc4cc7ull);
  double sum = 0;
  for (int i = 0; i < 10000; ++i) sum += double(random.next_uniform());
  CHECK(sum / 10000 == doctest::Approx(0.5).epsilon(0.02));
  std::vector<int> items = {0, 1, 2, 3, 4, 5, 6, 7};
  Random(3, 3).shuffle(items);
  std::vector<int> sorted = items;
  std::sort(sorted.begin(), sorted.end());
  CHECK(sorted == std::vector<int>{0, 1, 2, 3, 4, 5, 6, 7});
}

TEST_CASE("adapter: permutation and round trips") {
  std::vector<float> rows = {0, 1, 2, 3, 4, 5, 6, 7};  // two heads of four rows, one element each
  permute_to_gguf(rows, 1, 2);
  CHECK(rows == std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7});
  permute_to_hugging_face(rows, 1, 2);
  CHECK(rows == std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7});

  AdapterShape shape = {"llama", 2, 2, 1, 3, {8, 8, 8, 8, 8, 8, 12}, {8, 4, 4, 8, 12, 12, 8}};
  Adapter adapter;
  adapter.alpha = 6;
  Random random(1, 1);
  for (uint32_t layer = 0; layer < shape.layers; ++layer)
    for (int i = 0; i < linear_count; ++i) {
      AdapterPair pair = {shape.inputs[i], shape.outputs[i], {}, {}};
      for (uint64_t k = 0; k < 3 * pair.inputs; ++k) pair.a.push_back(random.next_uniform());
      for (uint64_t k = 0; k < 3 * pair.outputs; ++k) pair.b.push_back(random.next_uniform());
      adapter.pairs.push_back(pair);
    }
  const Scratch gguf, peft;
  write_adapter_gguf(gguf.path, adapter, shape);
  write_adapter_peft(peft.path, adapter, shape);
  const Adapter from_gguf = read_adapter(gguf.path, shape), from_peft = read_adapter(peft.path, shape);
  CHECK(from_gguf.alpha == 6);
  for (size_t i = 0; i < adapter.pairs.size(); ++i) {
    CHECK(from_gguf.pairs[i].a == adapter.pairs[i].a);
    CHECK(from_gguf.pairs[i].b == adapter.pairs[i].b);
    CHECK(from_peft.pairs[i].b == adapter.pairs[i].b);
  }
  const SafeTensors file(peft.path);
  CHECK(file.floats(file.get(peft_weight_name(0, linear_q, "lora_B"))) != adapter.pairs[linear_q].b);
  CHECK(file.floats(file.get(peft_weight_name(0, linear_v, "lora_B"))) == adapter.pairs[linear_v].b);
  const Gguf container(gguf.path);
  CHECK(container.find_string("general.type") == "adapter");
  CHECK(container.tensor("blk.1.ffn_down.weight.lora_a").ne[0] == 12);
  shape.rank = 4;
  CHECK(contains(error_of([&] { read_adapter(gguf.path, shape); }), "rank"));
  CHECK(contains(error_of([&] { read_adapter(peft.path, shape); }), "rank"));
  shape.rank = 3;
  shape.layers = 3;
  CHECK(contains(error_of([&] { read_adapter(gguf.path, shape); }), "is missing"));
}

TEST_CASE("adapter: the golden initial adapter, names with the adapter's name") {
  const std::string path = shared("golden/lora_init.safetensors");
  if (path.empty()) return;
  const AdapterShape shape = {"llama", 6, 6, 3, 8, {384, 384, 384, 384, 384, 384, 1024}, {384, 192, 192, 384, 1024, 1024, 384}};
  const Adapter adapter = read_adapter(path, shape);
  CHECK(adapter.pairs.size() == 42);
  for (float value : adapter.pairs[0].b) CHECK(value == 0);
}
