// What the two products share: y[m][n] = alpha * sum_k x w + bias[n] + beta * old y, extended by scale * xa b over the rank of an
// adapter. Operands are rounded once to the compute type, sums are f32. Bindings 0 to 3 are the weight.
layout(constant_id = 8) const uint X_TYPE = 0x100u;
layout(constant_id = 9) const uint Y_TYPE = 0x100u;
layout(constant_id = 10) const uint COMPUTE = 0x100u;
layout(constant_id = 11) const uint ACCUMULATE = 0u;
layout(constant_id = 12) const uint BIAS = 0u;
layout(constant_id = 13) const uint EXTENSION = 0u;
layout(constant_id = 14) const uint B_TYPE = 0x100u;
layout(constant_id = 15) const uint W_OCTETS = 0u;   // rows of w are whole octets
layout(constant_id = 16) const uint X_VECTORS = 0u;  // rows of x are whole octets at multiples of 16 bytes

layout(binding = 4, std430) readonly buffer X { uint x_words[]; };
layout(binding = 4, std430) readonly buffer XVectors { uvec4 x_vectors[]; };
layout(binding = 5, std430) buffer Y { uint y_words[]; };
layout(binding = 6, std430) readonly buffer Bias { float bias_values[]; };
layout(binding = 7, std430) readonly buffer Xa { float xa_values[]; };
layout(binding = 8, std430) readonly buffer B { uint b_words[]; };

QLORA_READ(read_x, x_words, 4u, X_TYPE)
QLORA_READ(read_y, y_words, 5u, Y_TYPE)
QLORA_WRITE(write_y, y_words, 5u, Y_TYPE)
QLORA_READ(read_b, b_words, 8u, B_TYPE)

// x[r][c .. c + 7], zero outside of rows and cols.
void load_x(uint r, uint c, uint rows, uint cols, out float values[8]) {
    uint i = x_begin + r * x_stride + c;
    if (X_VECTORS != 0u) {
        bool inside = r < rows && c < cols;
        uint place = (QLORA_BASE(4u) + (X_TYPE == F32 ? i : i >> 1)) >> 2;
        uvec4 low = inside ? x_vectors[place] : uvec4(0u), high = inside && X_TYPE == F32 ? x_vectors[place + 1u] : uvec4(0u);
        [[unroll]] for (uint e = 0u; e < 8u; e++)
            values[e] = uintBitsToFloat(X_TYPE == F32 ? (e < 4u ? low[e & 3u] : high[e & 3u]) : widen(X_TYPE, low[e >> 1], e));
    } else {
        [[dont_unroll]] for (uint e = 0u; e < 8u; e++) values[e] = r < rows && c + e < cols ? read_x(i + e) : 0.0;
    }
    if (COMPUTE != F32 && COMPUTE != X_TYPE)
        [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = round_to(COMPUTE, values[e]);
}

// w[r][c .. c + 7], likewise.
void load_w_bits(uint r, uint c, uint rows, uint cols, out uint bits[8]) { // before their rounding
    bits = uint[8](0u, 0u, 0u, 0u, 0u, 0u, 0u, 0u);
    if (W_OCTETS != 0u) {
        if (r < rows && c < cols) decode8(r, c, bits);
    } else {
        [[dont_unroll]] for (uint e = 0u; e < 8u; e++)
            if (r < rows && c + e < cols) bits[e] = decode(r, c + e);
    }
}
void load_w(uint r, uint c, uint rows, uint cols, out float values[8]) {
    uint bits[8];
    load_w_bits(r, c, rows, cols, bits);
    [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = uintBitsToFloat(bits[e]);
    if (COMPUTE != F32 && !(CODEC == CODEC_FLOAT && FORMAT == COMPUTE))
        [[unroll]] for (uint e = 0u; e < 8u; e++) values[e] = round_to(COMPUTE, values[e]);
}

// The adapter's left operand xa[m][k], scaled and rounded.
float load_xa(uint m, uint k) { return m < m_count && k < rank ? round_to(COMPUTE, xa_scale * xa_values[QLORA_BASE(7u) + m * rank + k]) : 0.0; }

// What y[m][n] becomes, before its rounding.
float finish(float sum, uint m, uint n) {
    sum *= alpha;
    if (BIAS != 0u) sum += bias_values[QLORA_BASE(6u) + n];
    if (ACCUMULATE != 0u) sum += beta * read_y(y_begin + m * y_stride + n);
    return sum;
}

// Writes y[m][n] and its right neighbour.
void write_results(uint m, uint n, float first, float second) {
    if (m >= m_count || n >= n_count) return;
    uint i = y_begin + m * y_stride + n;
    first = finish(first, m, n);
    if (n + 1u < n_count) write_y_pair(i, first, finish(second, m, n + 1u));
    else write_y(i, first);
}
