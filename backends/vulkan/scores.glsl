// Which rows attend to which, and how, for every shader of attention. The includer has SEQUENCES, the binding of the table, and SCORES.

// {first q row, q rows, first k row, k rows}, emptied if it does not fit the tensors.
uvec4 sequence_at(uint s) {
    uint place = QLORA_BASE(SEQUENCES) + s * 4u;
    ivec4 row = ivec4(sequences[place], sequences[place + 1u], sequences[place + 2u], sequences[place + 3u]);
    bool fits = all(greaterThanEqual(row, ivec4(0))) && uint(row.x) + uint(row.y) <= q_rows && uint(row.z) + uint(row.w) <= k_rows && row.y <= row.w;
    return fits ? uvec4(row) : uvec4(0u);
}

// Bits of the includer's SCORES: what becomes of scaled products.
const uint SCORE_CAP = 1u, SCORE_SLOPES = 2u;

// {score, its slope by the scaled product} of a product q k^T. decay: the head's of SCORE_SLOPES; distance: keys that lie after.
vec2 score_of(float product, float decay, uint distance) {
    vec2 score = (SCORES & SCORE_CAP) != 0u ? hyperbolic_tangent(product * cap_scale) * vec2(soft_cap, 1.0) : vec2(scale * product, 1.0);
    if ((SCORES & SCORE_SLOPES) != 0u) score.x -= decay * float(distance);
    return score;
}
