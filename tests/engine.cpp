// The parts of examples/finetune that need no device: tokenizer, data, numbers, adapters; engine_files.cpp has the
// rest. Golden files are looked for in $QLORA_SHARED, then in QLORA_SHARED_DIR; without them those cases say SKIPPED.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "engine_support.h"

#include "adapter_file.h"
#include "data.h"
#include "rng.h"
#include "safetensors.h"
#include "schedule.h"
#include "trainable.h"

#include <algorithm>

using namespace finetune;

TEST_CASE("tokenizer: texts of the golden files, id for id") {
    const std::string model = shared("models/tinylm-f16.gguf"), golden = shared("golden/tinylm_token_ids.safetensors");
    if (model.empty() || golden.empty()) return;
    const Gguf file(model);
    const Tokenizer tokenizer(file);
    const SafeTensors expected(golden);
    for (const std::string name : {"wikitext2_test", "tinyshakespeare"}) {
        const std::string path = shared("data/" + name + ".txt");
        if (path.empty()) return;
        const MappedFile text(path);
        std::vector<int32_t> ids = tokenizer.encode(text.text());
        ids.insert(ids.begin(), tokenizer.begin_token());
        CHECK(ids == expected.integers(expected.get(name)));
        CHECK(tokenizer.decode(ids, true) == text.text());
    }
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
    const auto error = [](std::vector<std::string> pieces, size_t scores, std::vector<int32_t> types,
                          uint32_t end_token) {
        Bytes bytes;
        bytes.head(3, 0, 5).text("tokenizer.ggml.model").put<uint32_t>(8).text("llama");
        bytes.text("tokenizer.ggml.tokens").put<uint32_t>(9).put<uint32_t>(8).put<uint64_t>(pieces.size());
        for (const std::string &piece : pieces) bytes.text(piece);
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
    const auto error = [&](const std::string &text, DataLimits limits = {64, 2048, TooLong::error, true}) {
        data.write(text);
        return error_of([&] { read_data(data.path, tokenizer, limits); });
    };
    const std::string good = "{\"prompt\": \"one two \", \"answer\": \"three\"}\n";
    data.write("\n" + good + "\r\n" + good);
    const Dataset rows = read_data(data.path, tokenizer, {64, 2048});
    REQUIRE(rows.rows.size() == 2);
    CHECK(rows.rows[0].prompt.front() == tokenizer.begin_token());
    CHECK(rows.rows[0].answer.back() == tokenizer.end_token());
    CHECK(tokenizer.decode(rows.rows[0].answer) == "three");

    const std::string line3 = data.path + ":3: ";
    CHECK(contains(error(""), "holds no rows"));
    CHECK(contains(error("\n\n"), "holds no rows"));
    CHECK(contains(error(good + good + "{\"prompt\": \"x\", \"answer\"\n"), line3 + "not valid JSON"));
    CHECK(contains(error(good + good + "[1]\n"), line3 + "message 1 is number"));
    CHECK(contains(error(good + good + "{\"prompt\": \"x\"}\n"), line3 + "'completion' is missing"));
    CHECK(contains(error(good + good + "{\"prompt\": \"x\", \"answer\": \"\"}\n"), line3 + "'answer' is empty"));
    CHECK(contains(error(good + good + "{\"prompt\": 3, \"answer\": \"y\"}\n"), line3 + "'prompt' is number"));
    CHECK(contains(error(good + good + "{\"words\": \"x\"}\n"), line3 + "no form of row"));
    CHECK(contains(error(good + good + "{\"prompt\": \"\xff\", \"answer\": \"y\"}\n"), line3 + "not valid JSON"));
    CHECK(contains(error(good + good + "{\"prompt\": \"x\", \"prompt\": \"z\", \"answer\": \"y\"}\n"),
                   line3 + "key 'prompt' appears twice"));
    CHECK(contains(error(good + good + std::string(5000, '[') + "\n"), line3 + "nested deeper"));
    const std::string long_row = "{\"instruction\": \"" + std::string(400, 'q') + "\", \"output\": \"y\"}\n";
    CHECK(contains(error(good + good + long_row), line3 + "the row has"));
    CHECK(error(good + good + long_row, {64, 2048, TooLong::drop, true}) == "");
    CHECK(contains(error(long_row, {64, 2048, TooLong::drop, true}), "every row is longer"));
    CHECK(contains(error_of([&] { read_data("no/such.jsonl", tokenizer, {64, 2048}); }), "No such file"));
}

TEST_CASE("data: token ids") {
    const Scratch data("", ".json");
    const auto error = [&](const std::string &text, const std::string &key = "train") {
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
    std::vector<float> rows = {0, 1, 2, 3, 4, 5, 6, 7}; // two heads of four rows, one element each
    permute_to_gguf(rows, 1, HeadOrder::paired, 2);
    CHECK(rows == std::vector<float>{0, 2, 1, 3, 4, 6, 5, 7});
    permute_to_hugging_face(rows, 1, HeadOrder::paired, 2);
    CHECK(rows == std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7});

    std::vector<float> fused = {0, 1, 2, 3, 4, 5}; // q, k and v of two heads of one row
    permute_to_gguf(fused, 1, HeadOrder::interleaved, 2);
    CHECK(fused == std::vector<float>{0, 3, 1, 4, 2, 5});
    permute_to_hugging_face(fused, 1, HeadOrder::interleaved, 2);
    CHECK(fused == std::vector<float>{0, 1, 2, 3, 4, 5});

    const BaseModel base(bundled_model());
    const AdapterShape shape = base.shape().adapter_shape(3);
    Adapter adapter = initial_adapter(shape, 6, 1);
    Random random(1, 1);
    for (AdapterPair &pair : adapter.pairs)
        for (float &value : pair.b) value = random.next_uniform();
    const Scratch gguf, peft;
    write_adapter_gguf(gguf.path, adapter, shape);
    write_adapter_peft(peft.path, adapter, shape);
    for (const std::string &path : {gguf.path, peft.path}) {
        AdapterShape found;
        const Adapter read = device_adapter({read_adapter_file(path)}, {1}, base, &found);
        CHECK(found.rank == 3);
        CHECK(read.alpha == 6);
        REQUIRE(read.pairs.size() == adapter.pairs.size());
        for (size_t i = 0; i < adapter.pairs.size(); ++i) {
            CHECK(read.pairs[i].a == adapter.pairs[i].a);
            CHECK(read.pairs[i].b == adapter.pairs[i].b);
        }
    }
    const SafeTensors file(peft.path);
    CHECK(file.floats(file.get(shape.peft_name(0, "lora_B"))) != adapter.pairs[0].b);
    CHECK(file.floats(file.get(shape.peft_name(2, "lora_B"))) == adapter.pairs[2].b);
    const Gguf container(gguf.path);
    CHECK(container.find_string("general.type") == "adapter");
    CHECK(container.tensor("blk.1.ffn_down.weight.lora_a").ne[0] == base.shape().feed_forward);
}

TEST_CASE("adapter: the golden initial adapter, names with the adapter's name") {
    const std::string path = shared("golden/lora_init.safetensors");
    if (path.empty()) return;
    const std::string model = shared("models/tinylm-f16.gguf");
    if (model.empty()) return;
    AdapterShape shape;
    const Adapter adapter = device_adapter({read_adapter_file(path, 16)}, {1}, BaseModel(model), &shape);
    CHECK(shape.rank == 8);
    CHECK(adapter.pairs.size() == 42);
    for (float value : adapter.pairs[0].b) CHECK(value == 0);
}
