#include "architecture.h"

#include "qlora.h"

#include <cstring>

namespace finetune {

const char *const linear_gguf_names[linear_count] = {"attn_q",   "attn_k", "attn_v", "attn_qkv", "attn_output",
                                                     "ffn_gate", "ffn_up", "ffn_up", "ffn_down"};

namespace {

using Names = std::vector<Name>;

Names operator+(Names left, const Names &right) {
    left.insert(left.end(), right.begin(), right.end());
    return left;
}

const Names usual_model = {
    {"token_embd", "model.embed_tokens"}, {"output_norm", "model.norm"}, {"output", "lm_head"}};
const Names separate = {{"attn_q", "self_attn.q_proj"},
                        {"attn_k", "self_attn.k_proj"},
                        {"attn_v", "self_attn.v_proj"},
                        {"attn_output", "self_attn.o_proj"}};
const Names gated = {{"ffn_gate", "mlp.gate_proj"}, {"ffn_up", "mlp.up_proj"}, {"ffn_down", "mlp.down_proj"}};
const Names head_norms = {{"attn_q_norm", "self_attn.q_norm"}, {"attn_k_norm", "self_attn.k_norm"}};
const Names norms_before = {{"attn_norm", "input_layernorm"}, {"ffn_norm", "post_attention_layernorm"}};
const Names norms_after = {{"post_attention_norm", "post_attention_layernorm"},
                           {"post_ffw_norm", "post_feedforward_layernorm"}};
const Names norms_around = {{"attn_norm", "input_layernorm"}, {"ffn_norm", "pre_feedforward_layernorm"}};

const Naming llama = {"model.layers.", usual_model, separate + gated + norms_before};
const Naming qwen3 = {"model.layers.", usual_model, separate + gated + norms_before + head_norms};
const Naming olmo2 = {"model.layers.", usual_model, separate + gated + norms_after + head_norms};
const Naming gemma2 = {"model.layers.", usual_model, separate + gated + norms_around + norms_after};
const Naming gemma3 = {"model.layers.", usual_model, separate + gated + norms_around + norms_after + head_norms};
const Naming phi3 = {"model.layers.",
                     usual_model,
                     norms_before + Names{{"attn_qkv", "self_attn.qkv_proj"},
                                          {"attn_output", "self_attn.o_proj"},
                                          {"ffn_up", "mlp.gate_up_proj"},
                                          {"ffn_down", "mlp.down_proj"}}};
const Naming gptneox = {
    "gpt_neox.layers.",
    {{"token_embd", "gpt_neox.embed_in"}, {"output_norm", "gpt_neox.final_layer_norm"}, {"output", "embed_out"}},
    norms_before + Names{{"attn_qkv", "attention.query_key_value"},
                         {"attn_output", "attention.dense"},
                         {"ffn_up", "mlp.dense_h_to_4h"},
                         {"ffn_down", "mlp.dense_4h_to_h"}}};
const Naming gptj = {"transformer.h.",
                     {{"token_embd", "transformer.wte"}, {"output_norm", "transformer.ln_f"}, {"output", "lm_head"}},
                     {{"attn_norm", "ln_1"},
                      {"attn_q", "attn.q_proj"},
                      {"attn_k", "attn.k_proj"},
                      {"attn_v", "attn.v_proj"},
                      {"attn_output", "attn.out_proj"},
                      {"ffn_up", "mlp.fc_in"},
                      {"ffn_down", "mlp.fc_out"}}};
const Naming opt = {"model.decoder.layers.",
                    {{"token_embd", "model.decoder.embed_tokens"},
                     {"position_embd", "model.decoder.embed_positions"},
                     {"output_norm", "model.decoder.final_layer_norm"},
                     {"output", "lm_head"}},
                    {{"attn_norm", "self_attn_layer_norm"},
                     {"attn_q", "self_attn.q_proj"},
                     {"attn_k", "self_attn.k_proj"},
                     {"attn_v", "self_attn.v_proj"},
                     {"attn_output", "self_attn.out_proj"},
                     {"ffn_norm", "final_layer_norm"},
                     {"ffn_up", "fc1"},
                     {"ffn_down", "fc2"}}};
const Naming bloom = {"transformer.h.",
                      {{"token_embd", "transformer.word_embeddings"},
                       {"token_embd_norm", "transformer.word_embeddings_layernorm"},
                       {"output_norm", "transformer.ln_f"},
                       {"output", "lm_head"}},
                      norms_before + Names{{"attn_qkv", "self_attention.query_key_value"},
                                           {"attn_output", "self_attention.dense"},
                                           {"ffn_up", "mlp.dense_h_to_4h"},
                                           {"ffn_down", "mlp.dense_4h_to_h"}}};

const NormKind rms = NormKind::rms, layer = NormKind::layer;
const NormPlace before = NormPlace::before, after = NormPlace::after, both = NormPlace::both;
const HeadNorm none = HeadNorm::none, head = HeadNorm::head, width = HeadNorm::width;
const Residual sequential = Residual::sequential, parallel = Residual::parallel, shared = Residual::shared;
const Positions rotary = Positions::rotary, learned = Positions::learned, slopes = Positions::slopes;
const int32_t half = QLORA_ROPE_HALF, adjacent = QLORA_ROPE_ADJACENT;
const HeadOrder same = HeadOrder::same, paired = HeadOrder::paired, mixed = HeadOrder::interleaved;
const FeedForward gate = FeedForward::gated, fused = FeedForward::fused, plain = FeedForward::plain;
const int32_t silu = QLORA_ACTIVATION_SILU, gelu = QLORA_ACTIVATION_GELU, gelu_tanh = QLORA_ACTIVATION_GELU_TANH,
              relu = QLORA_ACTIVATION_RELU;

// clang-format off
// window, still: periods. caps: of attention and of logits. embedding, offset: scaled_embedding, offset_norms.
const std::vector<Traits> table = {
//   model_type      gguf       naming    norm   place   q, k   residual    positions layout    rows    feed forward      window still caps  embedding offset norm
    {"llama",        "llama",   &llama,   rms,   before, none,  sequential, rotary,  half,     paired, gate,  silu,      0, 0, 0,  0,  false, false, false},
    {"mistral",      "llama",   &llama,   rms,   before, none,  sequential, rotary,  half,     paired, gate,  silu,      1, 0, 0,  0,  false, false, false},
    {"qwen2",        "qwen2",   &llama,   rms,   before, none,  sequential, rotary,  half,     same,   gate,  silu,      0, 0, 0,  0,  false, false, false},
    {"qwen3",        "qwen3",   &qwen3,   rms,   before, head,  sequential, rotary,  half,     same,   gate,  silu,      0, 0, 0,  0,  false, false, false},
    {"smollm3",      "smollm3", &llama,   rms,   before, none,  sequential, rotary,  half,     paired, gate,  silu,      0, 4, 0,  0,  false, false, false},
    {"olmo2",        "olmo2",   &olmo2,   rms,   after,  width, sequential, rotary,  half,     same,   gate,  silu,      0, 0, 0,  0,  false, false, false},
    {"olmo3",        "olmo2",   &olmo2,   rms,   after,  width, sequential, rotary,  half,     same,   gate,  silu,      4, 0, 0,  0,  false, false, false},
    {"gemma2",       "gemma2",  &gemma2,  rms,   both,   none,  sequential, rotary,  half,     same,   gate,  gelu_tanh, 2, 0, 50, 30, true,  true,  false},
    {"gemma3_text",  "gemma3",  &gemma3,  rms,   both,   head,  sequential, rotary,  half,     same,   gate,  gelu_tanh, 6, 0, 0,  0,  true,  true,  false},
    {"phi3",         "phi3",    &phi3,    rms,   before, none,  sequential, rotary,  half,     same,   fused, silu,      1, 0, 0,  0,  false, false, false},
    {"gpt_neox",     "gptneox", &gptneox, layer, before, none,  parallel,   rotary,  half,     mixed,  plain, gelu,      0, 0, 0,  0,  false, false, false},
    {"gptj",         "gptj",    &gptj,    layer, before, none,  shared,     rotary,  adjacent, same,   plain, gelu_tanh, 0, 0, 0,  0,  false, false, false},
    {"opt",          "opt",     &opt,     layer, before, none,  sequential, learned, half,     same,   plain, relu,      0, 0, 0,  0,  false, false, false},
    {"bloom",        "bloom",   &bloom,   layer, before, none,  sequential, slopes,  half,     mixed,  plain, gelu_tanh, 0, 0, 0,  0,  false, false, true},
};
// clang-format on

const Traits *find(const char *Traits::*name, const std::string &value) {
    for (const Traits &traits : table)
        if (value == traits.*name) return &traits;
    return nullptr;
}

// Splits "blk.3.attn_q.weight" after "blk.": a number, a module, an ending.
bool split(const std::string &name, const std::string &begin, std::string *layer, std::string *rest) {
    if (name.rfind(begin, 0) != 0) return false;
    const size_t dot = name.find('.', begin.size());
    if (dot == std::string::npos || dot == begin.size()) return false;
    *layer = name.substr(begin.size(), dot - begin.size());
    *rest = name.substr(dot + 1);
    return layer->find_first_not_of("0123456789") == std::string::npos;
}

// The other name of a tensor of a module, with its ending; "" when no module has this name.
std::string translate(const Names &names, const std::string &name, const char *Name::*from, const char *Name::*to) {
    for (const char *ending : {".weight", ".bias"})
        for (const Name &known : names)
            if (name == std::string(known.*from) + ending) return std::string(known.*to) + ending;
    return "";
}

} // namespace

bool Traits::has(Linear linear) const {
    const bool wide = module(linear_qkv) != nullptr;
    switch (linear) {
    case linear_q:
    case linear_k:
    case linear_v:
        return !wide;
    case linear_qkv:
        return wide;
    case linear_gate:
        return feed_forward == FeedForward::gated;
    case linear_up:
        return feed_forward != FeedForward::fused;
    case linear_gate_up:
        return feed_forward == FeedForward::fused;
    default:
        return true;
    }
}

std::vector<Linear> Traits::linears() const {
    std::vector<Linear> all;
    for (int i = 0; i < linear_count; ++i)
        if (has(Linear(i))) all.push_back(Linear(i));
    return all;
}

const char *Traits::module(const std::string &gguf) const {
    for (const Name &name : naming->block)
        if (gguf == name.gguf) return name.hugging_face;
    return nullptr;
}

std::string Traits::gguf_name(const std::string &name) const {
    const std::string whole = translate(naming->model, name, &Name::hugging_face, &Name::gguf);
    std::string number, rest;
    if (!whole.empty() || !split(name, naming->layers, &number, &rest)) return whole;
    const std::string part = translate(naming->block, rest, &Name::hugging_face, &Name::gguf);
    return part.empty() ? "" : "blk." + number + "." + part;
}

bool Traits::knows(const std::string &gguf_name) const {
    std::string number, rest;
    const bool block = split(gguf_name, "blk.", &number, &rest);
    const std::string found = block ? translate(naming->block, rest, &Name::gguf, &Name::hugging_face)
                                    : translate(naming->model, gguf_name, &Name::gguf, &Name::hugging_face);
    return !found.empty();
}

const std::vector<Traits> &architectures() { return table; }
const Traits *find_model_type(const std::string &model_type) { return find(&Traits::model_type, model_type); }

const Traits *find_architecture(const std::string &gguf, bool windows) {
    for (const Traits &traits : table)
        if (windows && gguf == traits.gguf && traits.window_period != 0) return &traits;
    return find(&Traits::gguf, gguf);
}

const char *const text_part = "model.language_model.";

std::string name_in_text_part(const std::string &name) {
    const std::string older = "language_model.", newer = text_part;
    if (name.rfind(older, 0) == 0) return name.substr(older.size());
    return name.rfind(newer, 0) == 0 ? "model." + name.substr(newer.size()) : name;
}

std::string architecture_names(const char *Traits::*name) {
    std::string all, last;
    for (const Traits &traits : table) {
        if (last != traits.*name) all += (all.empty() ? "'" : ", '") + std::string(traits.*name) + "'";
        last = traits.*name;
    }
    return all;
}

std::vector<uint64_t> hugging_face_rows(HeadOrder order, uint64_t rows, uint32_t heads) {
    std::vector<uint64_t> from(rows);
    for (uint64_t row = 0; row < rows; ++row) from[row] = row;
    if (order == HeadOrder::same || heads == 0) return from;
    const uint64_t parts = order == HeadOrder::paired ? 2 : 3, size = rows / heads, each = size / parts;
    for (uint64_t head = 0; head < heads; ++head)
        for (uint64_t part = 0; part < parts; ++part)
            for (uint64_t i = 0; i < each; ++i) {
                const uint64_t to = order == HeadOrder::paired ? head * size + 2 * i + part
                                                              : (part * heads + head) * each + i;
                from[to] = head * size + part * each + i;
            }
    return from;
}

} // namespace finetune
