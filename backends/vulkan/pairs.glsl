// Pairs of f32 whose sum is a value, high part first; and what they are good for where a device's own division and square root,
// which Vulkan allows to be off by some units, would be seen. Without overflow inside: magnitudes below 2^115.

vec2 exact_sum(float a, float b) {
    precise float sum = a + b;
    precise float part = sum - a;
    precise float rest = (a - (sum - part)) + (b - part);
    return vec2(sum, rest);
}
vec2 normal(float high, float low) {
    precise float sum = high + low;
    precise float rest = low - (sum - high);
    return vec2(sum, rest);
}
vec2 exact_product(float a, float b) { // Dekker's, since fma() need not be fused
    precise float product = a * b;
    precise float a_scaled = a * 4097.0, a_high = a_scaled - (a_scaled - a), a_low = a - a_high;
    precise float b_scaled = b * 4097.0, b_high = b_scaled - (b_scaled - b), b_low = b - b_high;
    precise float rest = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low;
    return vec2(product, rest);
}

bool is_number(uint bits) { return (bits & 0x7f800000u) != 0x7f800000u; }

// a / b to the last bit or nearly so.
float divide(float a, float b) {
    precise float quotient = a / b;
    vec2 product = exact_product(quotient, b);
    precise float rest = (a - product.x) - product.y;
    precise float better = quotient + rest / b;
    return is_number(floatBitsToUint(better)) ? better : quotient;
}
float square_root(float x) {
    precise float root = sqrt(x);
    vec2 square = exact_product(root, root);
    precise float rest = (x - square.x) - square.y;
    precise float better = root + rest / (2.0 * root);
    return root > 0.0 && is_number(floatBitsToUint(better)) ? better : root;
}
