// One tensor's step by the rules of qlora_optimizer_step(), element by element. What differs between calls is data, not code:
// a list of tensors of any types takes the same few pipelines.
const uint ADAMW = 1u, ADAM = 2u, STABLE_ADAMW = 3u, LION = 4u, MOMENTUM = 5u, RMSPROP = 6u, ADAGRAD = 7u, LAMB = 8u, LARS = 9u, ADEMAMIX = 10u;

layout(constant_id = 0) const uint SMALL = 0u; // 8-bit state

layout(binding = 0, std430) buffer Values { uint value_words[]; };
layout(binding = 1, std430) buffer Gradients { uint gradient_words[]; };
layout(binding = 2, std430) buffer State1 { uint state1_words[]; };
layout(binding = 3, std430) buffer State2 { uint state2_words[]; };
layout(binding = 4, std430) buffer State3 { uint state3_words[]; };
layout(binding = 5, std430) buffer Absmax1 { float absmax1[]; };
layout(binding = 6, std430) buffer Absmax2 { float absmax2[]; };
layout(binding = 7, std430) buffer Absmax3 { float absmax3[]; };
layout(binding = 8, std430) readonly buffer Table { uint table_of_pieces[]; };
layout(binding = 9, std430) readonly buffer Tensors { uint tensors[]; };

// As struct StepPush in optimizer_step_vulkan.cpp.
QLORA_PUSH
    uint first_piece, piece_count, algorithm, states;
    uint theirs, skip_zeros, zero_gradients, stochastic, first_momentum;
    uint seed_low, seed_high;
    float beta1, rest1, beta2, rest2, beta3, rest3, correction1, correction2, alpha, epsilon;
};

// A piece of a tensor, of which a workgroup takes a granule.
const uint PIECE_WORDS = 16u, TENSOR_WORDS = 8u, GRANULE = 4096u;
struct Piece {
    uint count, value, gradient, state[3], absmax[3], tensor, place_low, place_high, value_type, gradient_type, granule;
};
uint skipped;
float scale, factor, rate, decay; // of its tensor

// The piece of this workgroup, and the first element of its granule.
Piece find_piece(out uint first) {
    uint group = group_index(), low = 0u, high = piece_count;
    while (high - low > 1u) {
        uint middle = (low + high) / 2u;
        if (table_of_pieces[QLORA_BASE(8u) + (first_piece + middle) * PIECE_WORDS] <= group) low = middle;
        else high = middle;
    }
    uint at = QLORA_BASE(8u) + (first_piece + low) * PIECE_WORDS;
    Piece piece;
    first = (group - table_of_pieces[at]) * GRANULE;
    piece.count = table_of_pieces[at + 1u];
    piece.value = table_of_pieces[at + 2u];
    piece.gradient = table_of_pieces[at + 3u];
    [[unroll]] for (uint k = 0u; k < 3u; k++) {
        piece.state[k] = table_of_pieces[at + 4u + k];
        piece.absmax[k] = table_of_pieces[at + 7u + k];
    }
    piece.tensor = table_of_pieces[at + 10u];
    piece.place_low = table_of_pieces[at + 11u];
    piece.place_high = table_of_pieces[at + 12u];
    piece.value_type = table_of_pieces[at + 13u];
    piece.gradient_type = table_of_pieces[at + 14u];
    piece.granule = table_of_pieces[at + 15u] + (group - table_of_pieces[at]);
    uint tensor = QLORA_BASE(9u) + piece.tensor * TENSOR_WORDS;
    skipped = tensors[tensor];
    scale = uintBitsToFloat(tensors[tensor + 1u]);
    factor = uintBitsToFloat(tensors[tensor + 2u]);
    rate = uintBitsToFloat(tensors[tensor + 3u]);
    decay = uintBitsToFloat(tensors[tensor + 4u]);
    return piece;
}

uint value_bits(Piece piece, uint i) { return widen(piece.value_type, value_words[piece.value + (piece.value_type == F32 ? i : i >> 1)], i); }
uint gradient_bits(Piece piece, uint i) { return widen(piece.gradient_type, gradient_words[piece.gradient + (piece.gradient_type == F32 ? i : i >> 1)], i); }

// Tables of 8-bit state: DYN8, which states 1 and 3 use, then UDYN8.
shared float state_table[SMALL != 0u ? 512u : 1u];
void tables_begin() {
    if (SMALL == 0u) return;
    for (uint i = gl_LocalInvocationIndex; i < 256u; i += gl_WorkGroupSize.x) {
        state_table[i] = uintBitsToFloat(table_entry(TABLE_DYN8, i));
        state_table[256u + i] = uintBitsToFloat(table_entry(TABLE_UDYN8, i));
    }
    barrier();
}
uint state_word(uint k, uint place) { return k == 0u ? state1_words[place] : k == 1u ? state2_words[place] : state3_words[place]; }
float state_value(Piece piece, uint k, uint i) {
    if (SMALL == 0u) return uintBitsToFloat(state_word(k, piece.state[k] + i));
    uint code = (state_word(k, piece.state[k] + (i >> 2)) >> ((i & 3u) * 8u)) & 255u, block = piece.absmax[k] + (i >> 8);
    return state_table[(k == 1u ? 256u : 0u) + code] * (k == 0u ? absmax1[block] : k == 1u ? absmax2[block] : absmax3[block]);
}

float gradient_rounded(Piece piece, float g) { return theirs != 0u && SMALL == 0u && piece.gradient_type != F32 ? round_to(piece.gradient_type, g) : g; }
float gradient_of(Piece piece, float raw, float p, bool with_decay) {
    float g = gradient_rounded(piece, raw * scale);
    bool decays = algorithm == ADAM || algorithm == MOMENTUM || algorithm == RMSPROP || algorithm == ADAGRAD;
    if (!with_decay || !decays || decay == 0.0) return g;
    // One rounding, since the two may cancel; with f32 state bitsandbytes has two.
    vec2 loss = exact_product(decay, p);
    precise float sum = g + loss.x;
    precise float with_rest = sum + loss.y;
    return gradient_rounded(piece, theirs != 0u && SMALL == 0u ? sum : with_rest);
}

void advance(float g, float p, inout float s[3]) {
    if (algorithm == LION) s[0] = beta2 * s[0] + rest2 * g;
    else if (algorithm == MOMENTUM) s[0] = first_momentum != 0u ? g : beta1 * s[0] + g;
    else if (algorithm == RMSPROP) s[0] = beta1 * s[0] + rest1 * g * g;
    else if (algorithm == ADAGRAD) s[0] = s[0] + g * g;
    else if (algorithm == LARS) s[0] = beta1 * s[0] + factor * (g + decay * p);
    else {
        s[0] = beta1 * s[0] + rest1 * g;
        s[1] = beta2 * s[1] + rest2 * g * g;
        if (algorithm == ADEMAMIX) s[2] = beta3 * s[2] + rest3 * g;
    }
}

// u of p -= rate u; raw and g differ for bitsandbytes alone, old is state 1 before.
float direction(float raw, float g, float p, float s[3], float old) {
    if (algorithm == LION) {
        float c = beta1 * old + rest1 * g;
        uint bits = floatBitsToUint(c);
        return (bits & 0x7fffffffu) > 0x7f800000u ? c : (bits & 0x7fffffffu) == 0u ? 0.0 : bits < 0x80000000u ? 1.0 : -1.0;
    }
    if (algorithm == MOMENTUM || algorithm == LARS) return s[0];
    if (algorithm == RMSPROP || algorithm == ADAGRAD) return divide(theirs != 0u && SMALL != 0u ? raw : g, square_root(s[0]) + epsilon);
    float m = divide(s[0], correction1);
    if (algorithm == ADEMAMIX) m += alpha * s[2];
    float u = divide(m, divide(square_root(s[1]), correction2) + epsilon);
    return algorithm == LAMB ? u + decay * p : u;
}

float move(Piece piece, float p, float u) {
    bool first = algorithm == ADAMW || algorithm == STABLE_ADAMW || algorithm == LION || algorithm == ADEMAMIX;
    float scaled = algorithm == LARS ? rate : rate * factor, loss = first ? (algorithm == STABLE_ADAMW ? scaled : rate) * decay : 0.0;
    if (theirs == 0u) return (p - loss * p) - scaled * u;
    if (algorithm == LION) return round_to(piece.value_type, p * (1.0 - loss)) - (SMALL != 0u ? round_to(piece.gradient_type, rate) : rate) * u;
    float stepped = p - scaled * u;
    return decay > 0.0 && first ? round_to(piece.value_type, stepped) * (1.0 - loss) : stepped;
}
