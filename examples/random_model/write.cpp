#include "write.h"

#include "cpp/qlora.hpp"
#include "file.h"
#include "format_choice.h"
#include "json.h"
#include "packed.h"
#include "rng.h"

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <memory>
#include <thread>
#include <unistd.h>

namespace random_model {
namespace {

using finetune::fail;

bool ends_with(const std::string &text, const std::string &ending) {
    return text.size() >= ending.size() && text.compare(text.size() - ending.size(), ending.size(), ending) == 0;
}

// Nearly normal: sums of four uniform numbers have its bulk and are made from one word of random bits.
void fill(std::vector<float> &values, float deviation, uint64_t seed, uint32_t threads) {
    const uint64_t piece = 1 << 20, pieces = (values.size() + piece - 1) / piece;
    const auto work = [&](uint64_t first) {
        for (uint64_t p = first; p < pieces; p += threads) {
            finetune::Random random(seed, p);
            for (uint64_t i = p * piece; i < std::min<uint64_t>(values.size(), (p + 1) * piece); ++i) {
                const uint64_t word = random.next();
                const int32_t sum = int32_t(word & 0xffff) + int32_t(word >> 16 & 0xffff) + int32_t(word >> 32 & 0xffff) + int32_t(word >> 48);
                values[i] = float(sum - 131070) * (deviation / 37837); // 65536 / sqrt(3)
            }
        }
    };
    std::vector<std::thread> others;
    for (uint32_t t = 1; t < threads; ++t) others.emplace_back(work, t);
    work(0);
    for (std::thread &other : others) other.join();
}

class Maker {
public:
    explicit Maker(const Job &job)
        : job_(job), threads_(job.threads != 0 ? job.threads : std::max(1u, std::thread::hardware_concurrency())),
          context_(QLORA_BACKEND_CPU) {}

    // The tensor with its values, in host memory until the next call.
    const qlora::Weight &make(const Tensor &tensor, uint64_t number) {
        const uint64_t rows = std::max<uint64_t>(1, tensor.rows);
        values_.assign(rows * tensor.cols, 1.0f);
        if (tensor.deviation > 0) fill(values_, tensor.deviation, job_.seed * 1000003 + number, threads_);
        weight_ = std::make_unique<qlora::Weight>(context_, tensor.format, rows, tensor.cols);
        auto args = qlora::make<qlora_quantize_args>();
        args.weight = weight_->get();
        args.src = qlora::tensor(QLORA_FORMAT_F32, rows, tensor.cols, {reinterpret_cast<uint64_t>(values_.data()), 0, values_.size() * 4});
        const uint64_t scratch = context_.operation_scratch(QLORA_OP_QUANTIZE, args);
        if (scratch_.size() < scratch) scratch_ = qlora::Buffer(context_, scratch);
        args.scratch = scratch_.span();
        context_.check(qlora_weight_quantize(context_.get(), &args));
        return *weight_;
    }

private:
    const Job &job_;
    uint32_t threads_;
    qlora::Context context_;
    qlora::Buffer scratch_;
    std::vector<float> values_;
    std::unique_ptr<qlora::Weight> weight_;
};

const char hole = 0; // stands for zeros of any number
const auto write_bytes = finetune::file_functions.write;

int write_or_skip(int file, const void *data, size_t size) {
    if (data != &hole) return write_bytes(file, data, size);
    const off_t end = lseek(file, static_cast<off_t>(size), SEEK_CUR);
    return end < 0 || ftruncate(file, end) != 0 ? errno : 0;
}

uint64_t write_gguf(const Job &job, const std::vector<Tensor> &tensors) {
    const Shape &shape = job.shape;
    finetune::GgufWriter writer;
    writer.add_string("general.architecture", "llama");
    writer.add_string("general.name", std::string("random ") + shape.name);
    writer.add_u32("llama.block_count", shape.layers);
    writer.add_u32("llama.context_length", shape.context);
    writer.add_u32("llama.embedding_length", shape.embedding);
    writer.add_u32("llama.feed_forward_length", shape.feed_forward);
    writer.add_u32("llama.attention.head_count", shape.heads);
    writer.add_u32("llama.attention.head_count_kv", shape.kv_heads);
    writer.add_f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
    writer.add_u32("llama.rope.dimension_count", shape.embedding / shape.heads);
    writer.add_f32("llama.rope.freq_base", shape.rope_base);
    writer.add_u32("llama.vocab_size", shape.vocabulary);
    std::unique_ptr<finetune::Gguf> tokenizer;
    if (!job.tokenizer.empty()) {
        tokenizer = std::make_unique<finetune::Gguf>(job.tokenizer);
        for (std::string_view key : tokenizer->keys())
            if (key.rfind("tokenizer.", 0) == 0) writer.add_entry(tokenizer->entry(key));
    }
    for (const Tensor &tensor : tensors) {
        if (tensor.format < QLORA_FORMAT_F32) fail("--type ", job.type, ": GGUF has no such type; let --out be a directory");
        std::vector<uint64_t> sizes = {tensor.cols};
        if (tensor.rows > 0) sizes.push_back(tensor.rows);
        writer.add_tensor(tensor.gguf_name, uint32_t(tensor.format - QLORA_FORMAT_F32), sizes, nullptr);
    }
    Maker maker(job);
    std::vector<uint8_t> bytes;
    if (job.empty) finetune::file_functions.write = write_or_skip;
    writer.save(job.out, [&](size_t i) -> const void * {
        if (job.empty) return &hole;
        bytes = maker.make(tensors[i], i).read_plane(QLORA_PLANE_CODE);
        return bytes.data();
    });
    return writer.file_bytes();
}

void write_config(const Job &job) {
    const Shape &shape = job.shape;
    finetune::Json config = {{"architectures", {"LlamaForCausalLM"}}, {"model_type", "llama"}, {"hidden_act", "silu"}, {"hidden_size", shape.embedding},
                             {"intermediate_size", shape.feed_forward}, {"num_hidden_layers", shape.layers}, {"num_attention_heads", shape.heads},
                             {"num_key_value_heads", shape.kv_heads}, {"vocab_size", shape.vocabulary}, {"max_position_embeddings", shape.context},
                             {"rms_norm_eps", 1e-5}, {"rope_theta", shape.rope_base}, {"tie_word_embeddings", false}, {"bos_token_id", 1}, {"eos_token_id", 2},
                             {"torch_dtype", "float16"}};
    const bool nested = job.type == "nf4-dq" || job.type == "fp4-dq";
    if (nested || job.type == "nf4" || job.type == "fp4")
        config["quantization_config"] = {{"quant_method", "bitsandbytes"}, {"load_in_4bit", true}, {"bnb_4bit_quant_type", job.type.substr(0, 3)},
                                         {"bnb_4bit_use_double_quant", nested}, {"bnb_4bit_compute_dtype", "bfloat16"}};
    const std::string text = config.dump(2) + "\n";
    finetune::NewFile file(job.out + "/config.json");
    file.write(text.data(), text.size());
    file.commit();
}

uint64_t write_directory(const Job &job, const std::vector<Tensor> &tensors) {
    if (job.empty) fail("--empty: is for GGUF files; let --out end in .gguf");
    if (!job.tokenizer.empty()) fail("--tokenizer: goes into a GGUF file; put a tokenizer.model beside config.json instead");
    struct Piece {
        size_t tensor;
        finetune::PackedPart part;
    };
    std::vector<Piece> pieces;
    finetune::SafeTensorsWriter writer;
    for (size_t i = 0; i < tensors.size(); ++i) {
        const Tensor &tensor = tensors[i];
        if (tensor.format >= QLORA_FORMAT_F32 && !finetune::is_float(tensor.format))
            fail("--type ", job.type, ": is for GGUF files; let --out end in .gguf");
        for (finetune::PackedPart &part : finetune::packed_parts(tensor.hugging_face_name, tensor.format, 0, std::max<uint64_t>(1, tensor.rows), tensor.cols)) {
            if (tensor.rows == 0) part.shape = {tensor.cols};
            writer.add(part.name, part.dtype, part.shape, nullptr);
            pieces.push_back({i, std::move(part)});
        }
    }
    std::error_code error;
    std::filesystem::create_directories(job.out, error);
    if (error) fail(job.out, ": cannot be made: ", error.message());
    write_config(job);
    Maker maker(job);
    const qlora::Weight *made = nullptr;
    std::vector<uint8_t> bytes;
    writer.save(job.out + "/model.safetensors", [&](size_t i) -> const void * {
        if (i == 0 || pieces[i].tensor != pieces[i - 1].tensor) made = &maker.make(tensors[pieces[i].tensor], pieces[i].tensor);
        bytes = finetune::packed_bytes(pieces[i].part, *made, QLORA_FORMAT_F16);
        return bytes.data();
    });
    return writer.file_bytes();
}

} // namespace

uint64_t write_model(const Job &job) {
    const std::vector<Tensor> tensors = plan_tensors(job.shape, job.type);
    return ends_with(job.out, ".gguf") ? write_gguf(job, tensors) : write_directory(job, tensors);
}

} // namespace random_model
