// examples/quantize from files to files: formats there and back, bitsandbytes' layout, plans that are exact, and input
// that must end in one line and exit code 2 with nothing written.
#include "engine_support.h"

#include "format_choice.h"
#include "json.h"
#include "model.h"
#include "packed.h"
#include "program.h"
#include "rng.h"

#include <cerrno>

#include <cmath>

using namespace finetune;

namespace {

struct Result {
    int code;
    std::string out, err;
};

Result quantize_with(std::vector<std::string> words) {
    words.insert(words.begin(), "qlora-quantize");
    std::vector<const char *> argv;
    for (const std::string &word : words) argv.push_back(word.c_str());
    char *texts[2];
    size_t sizes[2];
    FILE *files[2] = {open_memstream(&texts[0], &sizes[0]), open_memstream(&texts[1], &sizes[1])};
    Result result;
    result.code = quantize::run_program(int(argv.size()), argv.data(), files[0], files[1]);
    for (FILE *file : files) fclose(file);
    result.out = texts[0];
    result.err = texts[1];
    for (char *text : texts) free(text);
    CHECK(std::count(result.err.begin(), result.err.end(), '\n') == (result.code == 0 ? 0 : 1));
    if (result.code != 0) CHECK(result.code == 2);
    return result;
}

// Converts, and expects it to succeed.
std::string convert(const std::string &from, const std::string &to, std::vector<std::string> more) {
    more.insert(more.end(), {"--model", from, "--out", to, "--device", "ref"});
    const Result result = quantize_with(more);
    CHECK_MESSAGE(result.err == "", result.err);
    REQUIRE(result.code == 0);
    return result.out;
}

std::vector<float> values_of(uint64_t count, uint64_t seed) {
    std::vector<float> values(count);
    Random random(seed, 1);
    for (float &value : values) value = 0.2f * (random.next_uniform() + random.next_uniform() - 1);
    return values;
}

// A model file of a vector and three matrices, one of which K blocks do not fit, with a key and odd sizes.
struct SmallModel {
    std::vector<float> norm = values_of(5, 1), wide = values_of(6 * 512, 2), narrow = values_of(7 * 96, 3),
                       table = values_of(9 * 256, 4);
    const char *const wide_name = "blk.0.ffn_down.weight", *const narrow_name = "blk.0.attn_q.weight";

    void save_gguf(const std::string &path) const {
        GgufWriter writer;
        writer.add_string("general.architecture", "llama");
        writer.add_u32("general.file_type", 0);
        writer.add_f32("some.number", 0.25f);
        writer.add_tensor("blk.0.attn_norm.weight", type_f32, {5}, norm.data());
        writer.add_tensor(wide_name, type_f32, {512, 6}, wide.data());
        writer.add_tensor(narrow_name, type_f32, {96, 7}, narrow.data());
        writer.add_tensor("token_embd.weight", type_f32, {256, 9}, table.data());
        writer.save(path);
    }
};

std::vector<float> decoded(const StoredWeight &stored) {
    qlora::Context context(QLORA_BACKEND_REF);
    const qlora::Weight weight = upload_weight(context, stored);
    qlora::Buffer values(context, stored.rows * stored.cols * 4);
    auto args = qlora::make<qlora_dequantize_args>();
    args.weight = weight.get();
    args.dst = qlora::tensor(QLORA_FORMAT_F32, stored.rows, stored.cols, values.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_DEQUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_dequantize(args);
    return values.read<float>();
}

// What the library makes of values, without any file.
std::vector<float> through(int32_t format, const std::vector<float> &values, uint64_t cols) {
    qlora::Context context(QLORA_BACKEND_REF);
    qlora::Weight weight(context, format, values.size() / cols, cols);
    const qlora::Buffer source(context, values);
    auto args = qlora::make<qlora_quantize_args>();
    args.weight = weight.get();
    args.src = qlora::tensor(QLORA_FORMAT_F32, values.size() / cols, cols, source.span());
    const qlora::Buffer scratch(context, context.operation_scratch(QLORA_OP_QUANTIZE, args));
    args.scratch = scratch.span();
    context.weight_quantize(args);
    StoredWeight stored;
    stored.format = format;
    stored.rows = values.size() / cols;
    stored.cols = cols;
    std::vector<uint8_t> planes[QLORA_PLANE_COUNT];
    for (int plane = 0; plane < QLORA_PLANE_COUNT; ++plane) {
        planes[plane] = weight.read_plane(plane);
        if (!planes[plane].empty()) stored.planes[plane] = planes[plane].data();
    }
    return decoded(stored);
}

std::vector<float> floats_in(const std::string &path, const std::string &name) {
    const SafeTensors file(path);
    return file.floats(file.get(name));
}

bool exists(const std::string &path) { return access(path.c_str(), F_OK) == 0; }

// A path where nothing is, and nothing may appear.
struct Absent {
    explicit Absent(const char *suffix) : file("", suffix) { unlink(file.path.c_str()); }
    ~Absent() {
        CHECK(!exists(file.path));
        CHECK(!exists(file.path + ".partial-" + std::to_string(getpid())));
    }
    Scratch file;
};

using Parts = std::vector<std::pair<std::string, std::pair<std::string, std::string>>>; // name, dtype, bytes

std::string safetensors_of(const Parts &parts) {
    Json header = Json::object();
    std::string data;
    for (const auto &[name, content] : parts) {
        const size_t size = content.first == "F32" ? 4 : 1;
        header[name] = {{"dtype", content.first},
                        {"shape", {content.second.size() / size}},
                        {"data_offsets", {data.size(), data.size() + content.second.size()}}};
        data += content.second;
    }
    Bytes bytes;
    const std::string text = header.dump();
    bytes.put<uint64_t>(text.size());
    return bytes.data + text + data;
}

std::string bytes_of(const SafeTensor &tensor) {
    return {reinterpret_cast<const char *>(tensor.data), static_cast<size_t>(tensor.bytes)};
}
std::string bytes_of(const std::vector<float> &values) {
    return {reinterpret_cast<const char *>(values.data()), values.size() * 4};
}

const std::string weight_name = "model.layers.0.mlp.up_proj.weight";

// A golden weight of bitsandbytes as its own files hold it.
Parts golden_parts(const SafeTensors &golden, const std::string &type, bool nested, uint64_t elements) {
    const std::string key = type + (nested ? "dq" : "") + ".bs64.f32." + std::to_string(elements) + ".";
    std::string state = "{\"quant_type\": \"" + type + "\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [" +
                        std::to_string(elements / 64) + ", 64]";
    Parts parts = {{weight_name, {"U8", bytes_of(golden.get(key + "q"))}},
                   {weight_name + ".absmax",
                    {nested ? "U8" : "F32", bytes_of(golden.get(key + (nested ? "absmax_q" : "absmax")))}},
                   {weight_name + ".quant_map", {"F32", bytes_of(golden.get("code." + type))}}};
    if (nested) {
        parts.push_back({weight_name + ".nested_absmax", {"F32", bytes_of(golden.get(key + "state2_absmax"))}});
        parts.push_back({weight_name + ".nested_quant_map", {"F32", bytes_of(golden.get("code.dynamic_signed"))}});
        state += ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\", \"nested_offset\": " +
                 Json(double(golden.floats(golden.get(key + "offset"))[0])).dump();
    }
    parts.push_back({weight_name + ".quant_state.bitsandbytes__" + type, {"U8", state + "}"}});
    return parts;
}

} // namespace

TEST_CASE("quantize: every format into files of the planned size, and back to the library's values") {
    const SmallModel model;
    const Scratch base("", ".gguf"), safetensors("", ".safetensors"), back("", ".safetensors"), gguf("", ".gguf");
    model.save_gguf(base.path);
    const std::string plan = quantize_with({"--model", base.path, "--plan"}).out;
    for (int32_t format : all_formats()) {
        if (format == QLORA_FORMAT_UDYN8) continue; // no negative values
        const std::string name = format_name(format);
        CAPTURE(name);
        const size_t line = plan.find("\n" + name + " ");
        REQUIRE(line != std::string::npos);
        double bits = 0;
        unsigned long long linear = 0;
        char columns[2][32];
        REQUIRE(sscanf(plan.c_str() + line, " %*s %lf %llu %31s %31s", &bits, &linear, columns[0], columns[1]) == 4);

        convert(base.path, safetensors.path, {"--type", name});
        CHECK(std::to_string(safetensors.read().size()) == columns[1]);
        convert(safetensors.path, back.path, {"--type", "f32"});
        // Rows too few to fill the words of a GPTQ checkpoint stay floats.
        const int32_t wide = is_gptq(format) ? QLORA_FORMAT_F16 : format;
        const int32_t narrow = is_gptq(format) ? QLORA_FORMAT_F16 : fitting_format(format, 96);
        CHECK(floats_in(back.path, model.wide_name) == through(wide, model.wide, 512));
        CHECK(floats_in(back.path, model.narrow_name) == through(narrow, model.narrow, 96));
        CHECK(floats_in(back.path, "token_embd.weight") == model.table);
        CHECK(floats_in(back.path, "blk.0.attn_norm.weight") == model.norm);
        const uint64_t expected = weight_bytes(wide, 0, 6, 512) + weight_bytes(narrow, 0, 7, 96);
        CHECK(linear == expected);
        CHECK(bits == doctest::Approx(8.0 * double(expected) / (6 * 512 + 7 * 96)).epsilon(1e-4));

        if (ggml_type(format) == nullptr) {
            CHECK(std::string(columns[0]) == "-");
            const Absent none(".gguf");
            const Result refused =
                quantize_with({"--model", base.path, "--type", name, "--out", none.file.path, "--device", "ref"});
            CHECK(contains(refused.err, "GGUF has no type for " + name));
            continue;
        }
        convert(base.path, gguf.path, {"--type", name});
        CHECK(std::to_string(gguf.read().size()) == columns[0]);
        const Gguf file(gguf.path);
        CHECK(format_of(*file.tensor(model.wide_name).type) == format);
        CHECK(decoded(view_weight(file.tensor(model.wide_name))) == through(format, model.wide, 512));
        CHECK(file.find_string("general.architecture") == "llama");
        CHECK(file.find_float("some.number") == 0.25);
        CHECK(file.find_unsigned("general.quantization_version") == 2);
        CHECK(file.has("general.file_type"));
        // The blocks travel between containers as they are.
        convert(safetensors.path, back.path + ".gguf", {"--type", "keep", "--keys", base.path});
        const Gguf carried(back.path + ".gguf");
        const GgufTensor &a = carried.tensor(model.wide_name), &b = file.tensor(model.wide_name);
        CHECK(a.type == b.type);
        CHECK(std::string_view(reinterpret_cast<const char *>(a.data), a.bytes) ==
              std::string_view(reinterpret_cast<const char *>(b.data), b.bytes));
        CHECK(carried.find_float("some.number") == 0.25);
        unlink((back.path + ".gguf").c_str());
    }
}

TEST_CASE("quantize: formats by pattern, fallbacks that say so, importance") {
    const SmallModel model;
    const Scratch base("", ".gguf"), out("", ".gguf"), weights("", ".safetensors");
    model.save_gguf(base.path);
    const std::string text = convert(
        base.path, out.path, {"--type", "q4_k", "--type-for", "token_embd.*=q6_k", "--type-for", "*norm*=q8_0"});
    CHECK(contains(text, "96 columns do not divide into q4_k blocks of 256: q5_0 instead"));
    CHECK(contains(text, "blk.0.attn_norm.weight: a vector stays as it is"));
    {
        const Gguf file(out.path);
        CHECK(format_of(*file.tensor("token_embd.weight").type) == QLORA_FORMAT_Q6_K);
        CHECK(format_of(*file.tensor(model.narrow_name).type) == QLORA_FORMAT_Q5_0);
        CHECK(file.find_unsigned("general.file_type") == 14);
    }
    SafeTensorsWriter writer;
    std::vector<float> columns(512, 1.0f);
    for (size_t i = 0; i < columns.size(); ++i) columns[i] = i < 256 ? 100.0f : 0.01f;
    writer.add_f32(model.wide_name, {512}, columns.data());
    writer.save(weights.path);
    const std::string before = out.read();
    CHECK(contains(convert(base.path, out.path, {"--type", "q4_k", "--importance", weights.path}),
                   "importance known for 1 of 2 quantized tensors"));
    CHECK(out.read() != before);
    writer.add_f32(model.narrow_name, {512}, columns.data());
    writer.save(weights.path);
    const Absent none(".gguf");
    CHECK(contains(quantize_with({"--model", base.path, "--type", "q4_k", "--out", none.file.path, "--importance",
                                  weights.path, "--device", "ref"})
                       .err,
                   "has 512 values, the weight has 96 columns"));
    columns[3] = -1;
    writer.save(weights.path);
    CHECK(contains(quantize_with({"--model", base.path, "--type", "q4_k", "--out", none.file.path, "--importance",
                                  weights.path, "--device", "ref"})
                       .err,
                   "element 3 is -1"));
}

TEST_CASE("quantize: bitsandbytes' own bytes, read to the bit, kept, and written") {
    const std::string path = shared("golden/bnb_quant_shared.safetensors");
    if (path.empty()) return;
    const SafeTensors golden(path);
    const Scratch file("", ".safetensors"), out("", ".safetensors");
    for (const std::string type : {"nf4", "fp4"})
        for (const bool nested : {false, true})
            for (const uint64_t elements : {512u, 4160u, 4992u}) {
                CAPTURE(type);
                CAPTURE(nested);
                CAPTURE(elements);
                const std::string key = type + (nested ? "dq" : "") + ".bs64.f32." + std::to_string(elements) + ".";
                file.write(safetensors_of(golden_parts(golden, type, nested, elements)));
                convert(file.path, out.path, {"--type", "f32"});
                CHECK(floats_in(out.path, weight_name) == golden.floats(golden.get(key + "deq")));

                convert(file.path, out.path, {"--type", type + (nested ? "-dq" : "")});
                const SafeTensors kept(out.path), source(file.path);
                for (const SafeTensor &tensor : source.tensors())
                    CHECK(bytes_of(kept.get(tensor.name)) == bytes_of(tensor));

                SafeTensorsWriter writer;
                const std::vector<float> x = golden.floats(golden.get("x.f32." + std::to_string(elements)));
                writer.add_f32(weight_name, {elements / 64, 64}, x.data());
                const Scratch values("", ".safetensors");
                writer.save(values.path);
                convert(values.path, out.path, {"--type", type + (nested ? "-dq" : "")});
                const SafeTensors made(out.path);
                CHECK(bytes_of(made.get(weight_name)) == bytes_of(golden.get(key + "q")));
                CHECK(made.get(weight_name).shape == std::vector<uint64_t>{elements / 2, 1});
                CHECK(bytes_of(made.get(weight_name + ".quant_map")) == bytes_of(golden.get("code." + type)));
                const SafeTensor &state = made.get(weight_name + ".quant_state.bitsandbytes__" + type);
                const Json json = parse_json(bytes_of(state), "state", 4);
                CHECK(json["quant_type"] == type);
                CHECK(json["blocksize"] == 64);
                CHECK(json["dtype"] == "float32");
                CHECK(json["shape"] == Json({elements / 64, 64}));
                CHECK(json.size() == (nested ? 7 : 4));
                if (nested) {
                    CHECK(json["nested_blocksize"] == 256);
                    CHECK(json["nested_dtype"] == "float32");
                    const float offset = golden.floats(golden.get(key + "offset"))[0];
                    CHECK(json["nested_offset"].get<double>() == doctest::Approx(double(offset)).epsilon(1e-6));
                    CHECK(bytes_of(made.get(weight_name + ".nested_quant_map")) ==
                          bytes_of(golden.get("code.dynamic_signed")));
                } else {
                    CHECK(bytes_of(made.get(weight_name + ".absmax")) == bytes_of(golden.get(key + "absmax")));
                }
                // Floats lie where other readers expect them.
                const SafeTensor &first = *std::min_element(made.tensors().begin(), made.tensors().end(),
                                                            [](auto &a, auto &b) { return a.data < b.data; });
                for (const SafeTensor &tensor : made.tensors())
                    if (tensor.dtype == "F32") CHECK((tensor.data - first.data) % 4 == 0);
            }
}

TEST_CASE("quantize: tables of other builds are honoured") {
    const std::string path = shared("golden/bnb_quant_shared.safetensors");
    if (path.empty()) return;
    const SafeTensors golden(path);
    const Scratch file("", ".safetensors"), out("", ".safetensors");
    Parts parts = golden_parts(golden, "nf4", true, 512);
    std::vector<float> nested = golden.floats(golden.get("code.dynamic_signed"));
    for (float &value : nested) value *= 0.5f;
    parts[4].second.second = bytes_of(nested);
    file.write(safetensors_of(parts));
    convert(file.path, out.path, {"--type", "f32"});
    const std::string codes = parts[0].second.second, scales = parts[1].second.second;
    float offset = golden.floats(golden.get("nf4dq.bs64.f32.512.offset"))[0],
          absmax = golden.floats(golden.get("nf4dq.bs64.f32.512.state2_absmax"))[0];
    const std::vector<float> values = floats_in(out.path, weight_name), table = golden.floats(golden.get("code.nf4"));
    for (size_t i = 0; i < values.size(); ++i) {
        const uint8_t byte = uint8_t(codes[i / 2]);
        const float product = nested[uint8_t(scales[i / 64])] * absmax;
        CHECK(values[i] == table[i % 2 == 0 ? byte >> 4 : byte & 15] * (product + offset));
    }
    parts = golden_parts(golden, "fp4", false, 512);
    std::vector<float> shorter = golden.floats(golden.get("code.fp4"));
    shorter[1] = 0.0052f;
    parts[2].second.second = bytes_of(shorter);
    file.write(safetensors_of(parts));
    convert(file.path, out.path, {"--type", "f32"});
    const std::vector<float> again = floats_in(out.path, weight_name),
                             deq = golden.floats(golden.get("fp4.bs64.f32.512.deq"));
    const std::string fp4 = parts[0].second.second;
    for (size_t i = 0; i < again.size(); ++i)
        if (((uint8_t(fp4[i / 2]) >> (i % 2 == 0 ? 4 : 0)) & 15) != 1) CHECK(again[i] == deq[i]);
    convert(file.path, out.path, {"--type", "keep"});
    CHECK(bytes_of(SafeTensors(out.path).get(weight_name + ".quant_map")) == bytes_of(shorter));
}

TEST_CASE("quantize: hostile bitsandbytes files end in one line, and nothing is written") {
    std::vector<float> table = code_table(QLORA_FORMAT_NF4), nested_table = code_table(QLORA_FORMAT_DYN8);
    const std::string state_name = weight_name + ".quant_state.bitsandbytes__nf4";
    const std::string good_state = R"({"quant_type": "nf4", "blocksize": 64, "dtype": "float16", "shape": [4, 64],)"
                                   R"( "nested_blocksize": 256, "nested_dtype": "float32", "nested_offset": 0.5})";
    const Parts good = {{weight_name, {"U8", std::string(128, '\x17')}},
                        {weight_name + ".absmax", {"U8", std::string(4, '\x80')}},
                        {weight_name + ".quant_map", {"F32", bytes_of(table)}},
                        {weight_name + ".nested_absmax", {"F32", bytes_of(std::vector<float>{0.25f})}},
                        {weight_name + ".nested_quant_map", {"F32", bytes_of(nested_table)}},
                        {state_name, {"U8", good_state}}};
    const Scratch file("", ".safetensors");
    const auto error = [&](const Parts &parts) {
        file.write(safetensors_of(parts));
        const Absent none(".safetensors");
        const Result result =
            quantize_with({"--model", file.path, "--type", "f16", "--out", none.file.path, "--device", "ref"});
        if (result.code == 0) unlink(none.file.path.c_str());
        else CHECK(contains(result.err, file.path));
        return result.err;
    };
    const auto with = [&](size_t i, const std::string &bytes, const char *dtype = nullptr) {
        Parts parts = good;
        parts[i].second.second = bytes;
        if (dtype != nullptr) parts[i].second.first = dtype;
        return error(parts);
    };
    const auto with_state = [&](const std::string &from, const std::string &to) {
        std::string state = good_state;
        REQUIRE(state.find(from) != std::string::npos);
        state.replace(state.find(from), from.size(), to);
        return with(5, state);
    };
    REQUIRE(error(good) == "");
    for (size_t missing = 0; missing < good.size(); ++missing) {
        CAPTURE(missing);
        Parts parts = good;
        parts.erase(parts.begin() + long(missing));
        CHECK(contains(error(parts), missing == 5 ? "quant_state is missing" : "is missing"));
    }
    CHECK(contains(with(0, std::string(127, 'x')), "has 127 bytes of U8, expected 128 bytes of U8"));
    CHECK(contains(with(1, std::string(16, 'x'), "F32"), "expected 4 bytes of U8"));
    CHECK(contains(with(2, bytes_of(std::vector<float>(15))), "expected 64 bytes of F32"));
    CHECK(contains(with(3, bytes_of(std::vector<float>{INFINITY})), "element 0 is inf"));
    CHECK(contains(with(4, bytes_of(std::vector<float>(256, NAN))), "element 0 is"));
    CHECK(contains(with(5, "{"), "not valid JSON"));
    CHECK(contains(with(5, "[1]"), "expected a JSON object"));
    CHECK(contains(with(5, std::string(50000, '[')), "nested deeper"));
    CHECK(contains(with(5, "{\"quant_type\": 4}"), "'quant_type' is not a string"));
    CHECK(contains(with_state("\"nf4\"", "\"fp4\""), "under this name is unknown"));
    CHECK(contains(with_state("64,", "0,"), "blocksize is 0"));
    CHECK(contains(with_state("64,", "65,"), "takes no block of 65"));
    CHECK(contains(with_state("64,", "-64,"), "'blocksize' is not a size"));
    CHECK(contains(with_state("64,", "1e400,"), "out of range"));
    CHECK(contains(with_state("64,", "18446744073709551615,"), "takes no block"));
    CHECK(contains(with_state("float16", "float8"), "expected float16"));
    CHECK(contains(with_state("[4, 64]", "[]"), "not an array of 1 to 8"));
    CHECK(contains(with_state("[4, 64]", "[4, 0]"), "sizes above 0"));
    CHECK(contains(with_state("[4, 64]", "[4294967296, 4294967296]"), "overflows"));
    CHECK(contains(with_state("[4, 64]", "[1099511627776, 64]"), "tensor"));
    CHECK(contains(with_state("[4, 64]", "[5, 64]"), "expected 160 bytes"));
    CHECK(contains(with_state("256", "128"), "nested_blocksize 128 is not supported"));
    CHECK(contains(with_state("0.5", "\"x\""), "'nested_offset' is not a number"));
    CHECK(contains(with_state("0.5", "1e300"), "beyond f32"));
    CHECK(contains(with_state(", \"nested_offset\": 0.5", ""), "'nested_offset' is missing"));

    const std::string whole = safetensors_of(good);
    for (size_t size = 0; size < whole.size(); size += 37) {
        file.write(whole.substr(0, size));
        const Absent none(".safetensors");
        CHECK(quantize_with({"--model", file.path, "--type", "f16", "--out", none.file.path, "--device", "ref"}).code ==
              2);
    }
}

TEST_CASE("quantize: what makes no sense, what does not fit, and what fails on the way") {
    const SmallModel model;
    const Scratch base("", ".gguf");
    model.save_gguf(base.path);
    const Absent none(".safetensors");
    const auto error = [&](std::vector<std::string> more, const std::string &from) {
        more.insert(more.end(), {"--model", from, "--device", "ref"});
        return quantize_with(more).err;
    };
    CHECK(contains(error({"--type", "q9", "--out", none.file.path}, base.path), "'q9': no such format"));
    CHECK(contains(error({"--type", "q4_0"}, base.path), "give --out"));
    CHECK(contains(error({"--out", none.file.path}, base.path), "no format"));
    CHECK(contains(error({"--type", "q4_0", "--out", "x.bin"}, base.path), "ends in .gguf"));
    CHECK(contains(error({"--type-for", "q4_0", "--out", none.file.path}, base.path), "expected PATTERN=TYPE"));
    CHECK(contains(error({"--type", "nf4", "--block", "48", "--out", none.file.path}, base.path),
                   "takes no block of 48"));
    CHECK(contains(error({"--type", "q4_0", "--out", "no/such/folder/x.gguf"}, base.path), "cannot be created"));
    CHECK(contains(error({"--type", "q4_0", "--out", none.file.path}, "no/such/file"), "No such file"));
    CHECK(contains(error({"--type", "udyn8", "--out", none.file.path}, base.path), "beyond the range of udyn8"));

    SmallModel large = model;
    large.wide[700] = 1e6f;
    large.save_gguf(base.path);
    CHECK(contains(error({"--type", "f16", "--out", none.file.path}, base.path),
                   "tensor 'blk.0.ffn_down.weight': element 700 is 1e+06, which is beyond the range of f16"));
    large.wide[700] = NAN;
    large.save_gguf(base.path);
    CHECK(contains(error({"--type", "q4_k", "--out", none.file.path}, base.path), "700"));

    model.save_gguf(base.path);
    const FileFunctions real = file_functions;
    file_functions.write = [](int, const void *, size_t) { return ENOSPC; };
    CHECK(contains(error({"--type", "nf4", "--out", none.file.path}, base.path), "cannot be written"));
    file_functions = real;
}

TEST_CASE("quantize: the bundled model in K and other blocks is a base that the fine-tuner takes as it is") {
    const Scratch out("", ".gguf");
    for (const std::string type : {"q4_k", "q6_k", "iq4_xs", "mxfp4", "nvfp4"}) {
        CAPTURE(type);
        const Result result = quantize_with(
            {"--model", bundled_model(), "--type", type, "--out", out.path, "--type-for", "token_embd.weight=q8_0"});
        REQUIRE(result.err == "");
        const Gguf file(out.path), before(bundled_model());
        CHECK(file.tensors().size() == before.tensors().size());
        CHECK(file.keys().size() >= before.keys().size());
        Device device("cpu", 2);
        const Model model(device, file, 0, 0);
        CHECK(model.linear_bits() < 9);
        CHECK(model.requantized() == 0);
    }
}

TEST_CASE("quantize: NVFP4 with a scale per tensor, as GGUF files hold it") {
    const SmallModel model;
    const Scratch base("", ".gguf"), scaled("", ".gguf"), kept("", ".gguf"), back("", ".gguf");
    const Absent safetensors(".safetensors");
    model.save_gguf(base.path);
    convert(base.path, scaled.path, {"--type", "nvfp4", "--tensor-scale"});
    const Gguf file(scaled.path);
    const GgufTensor &wide = file.tensor(model.wide_name);
    CHECK(std::string(wide.type->name) == "NVFP4");
    CHECK(file.find_tensor("blk.0.ffn_down.scale") != nullptr);
    CHECK(file.find_tensor("blk.0.attn_q.scale") == nullptr); // its columns do not divide: another format
    const StoredWeight stored = view_weight(file, wide);
    CHECK(stored.tensor_scale == recipe_tensor_scale(model.wide));
    const std::vector<float> values = decoded(stored);
    double signal = 0, noise = 0;
    for (size_t i = 0; i < values.size(); ++i) {
        signal += double(model.wide[i]) * double(model.wide[i]);
        noise += (double(values[i]) - double(model.wide[i])) * (double(values[i]) - double(model.wide[i]));
    }
    CHECK(10 * std::log10(signal / noise) > 18);
    convert(scaled.path, kept.path, {"--type", "keep"});
    CHECK(kept.read() == scaled.read());
    convert(scaled.path, back.path, {"--type", "f32"});
    const Gguf plain(back.path);
    CHECK(plain.find_tensor("blk.0.ffn_down.scale") == nullptr);
    CHECK(decoded(view_weight(plain, plain.tensor(model.wide_name))) == values);
    const Result refused = quantize_with({"--model", scaled.path, "--type", "keep", "--out", safetensors.file.path});
    CHECK(refused.code == 2);
    CHECK(contains(refused.err, "a scale per tensor goes to GGUF files only"));
}

TEST_CASE("quantize: scales per tensor that make no sense are refused") {
    const std::vector<float> values = values_of(128, 5);
    const std::vector<uint8_t> blocks(72, 1);
    const auto error = [&](uint32_t type, const void *data, float scale, uint64_t count) {
        const Scratch path("", ".gguf");
        const std::vector<float> scales(count, scale);
        GgufWriter writer;
        writer.add_tensor("blk.0.attn_q.weight", type, {64, 2}, data);
        writer.add_tensor("blk.0.attn_q.scale", type_f32, {count}, scales.data());
        writer.save(path.path);
        const Gguf file(path.path);
        return error_of([&] { view_weight(file, file.tensor("blk.0.attn_q.weight")); });
    };
    const uint32_t nvfp4 = 40;
    CHECK(error(nvfp4, blocks.data(), 0.5f, 1) == "");
    CHECK(error(type_f32, values.data(), 1.0f, 1) == "");
    CHECK(contains(error(type_f32, values.data(), 0.5f, 1), "supported for NVFP4 only"));
    CHECK(contains(error(nvfp4, blocks.data(), 1.0f, 2), "no scale of one F32 value"));
    for (float bad : {0.0f, -1.0f, HUGE_VALF, std::nanf("")})
        CHECK(contains(error(nvfp4, blocks.data(), bad, 1), "expected a scale above zero"));
}
