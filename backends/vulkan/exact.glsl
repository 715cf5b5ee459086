// f32 arithmetic on bit patterns that is correctly rounded on every device. Vulkan rounds products and sums correctly but
// may flush subnormals, and divides to 2.5 ulp only; quantized bytes must not depend on either.

// top * 2^exponent, plus something less than one unit if sticky, as the bits of the nearest f32 (ties to even).
uint exact_compose(uint sign, uint top, int exponent, bool sticky) {
    int drop = max(findMSB(top) - 23, -149 - exponent);
    uint kept;
    if (drop <= 0) {
        kept = top << uint(-drop);
    } else {
        uint rest, half_way = 1u << min(uint(drop - 1), 31u);
        if (drop > 32) { kept = 0u; rest = 0u; }
        else if (drop == 32) { kept = 0u; rest = top; }
        else { kept = top >> uint(drop); rest = top & ((1u << uint(drop)) - 1u); }
        if (rest > half_way || (rest == half_way && (sticky || (kept & 1u) != 0u))) kept += 1u;
    }
    int unit = exponent + drop; // of kept
    if (unit + 150 > 254 && kept >= 0x800000u) return sign | 0x7f800000u;
    return sign | ((uint(unit + 149) << 23) + kept);
}

// A finite non-zero magnitude as mantissa * 2^exponent with 24 bits of mantissa.
uint exact_mantissa(uint magnitude, out int exponent) {
    uint field = magnitude >> 23, fraction = magnitude & 0x7fffffu;
    if (field != 0u) { exponent = int(field) - 150; return fraction | 0x800000u; }
    int shift = 23 - findMSB(fraction);
    exponent = -149 - shift;
    return fraction << uint(shift);
}

uint exact_multiply(uint a, uint b) {
    uint fields = ((a >> 23) & 255u) + ((b >> 23) & 255u);
    bool ordinary = (a & 0x7f800000u) != 0u && (b & 0x7f800000u) != 0u && fields >= 130u; // the product is normal, or more
    if (ordinary) {
        precise float product = uintBitsToFloat(a) * uintBitsToFloat(b);
        return floatBitsToUint(product);
    }
    uint sign = (a ^ b) & 0x80000000u;
    a &= 0x7fffffffu;
    b &= 0x7fffffffu;
    if (a >= 0x7f800000u || b >= 0x7f800000u) return a == 0u || b == 0u || max(a, b) > 0x7f800000u ? 0x7fc00000u : sign | 0x7f800000u;
    if (a == 0u || b == 0u) return sign;
    int a_exponent, b_exponent;
    uint high, low, a_mantissa = exact_mantissa(a, a_exponent), b_mantissa = exact_mantissa(b, b_exponent);
    umulExtended(a_mantissa, b_mantissa, high, low); // 2^46 to 2^48
    return exact_compose(sign, (high << 16) | (low >> 16), a_exponent + b_exponent + 16, (low & 0xffffu) != 0u);
}

uint exact_divide(uint a, uint b) {
    uint sign = (a ^ b) & 0x80000000u;
    a &= 0x7fffffffu;
    b &= 0x7fffffffu;
    if (a > 0x7f800000u || b > 0x7f800000u || (a == 0x7f800000u && b == a) || (a == 0u && b == 0u)) return 0x7fc00000u;
    if (a == 0u || b == 0x7f800000u) return sign;
    if (b == 0u || a == 0x7f800000u) return sign | 0x7f800000u;
    int a_exponent, b_exponent;
    uint rest = exact_mantissa(a, a_exponent), divisor = exact_mantissa(b, b_exponent), quotient = 0u;
    for (int i = 0; i < 27; i++) {
        quotient <<= 1;
        if (rest >= divisor) { rest -= divisor; quotient |= 1u; }
        rest <<= 1;
    }
    return exact_compose(sign, quotient, a_exponent - b_exponent - 26, rest != 0u);
}

// Times 2^64, exact and without subnormals, for magnitudes below 2^-60.
float exact_lift(uint bits) {
    if ((bits & 0x7f800000u) != 0u) return uintBitsToFloat(bits + (64u << 23));
    float value = float(bits & 0x7fffffu) * uintBitsToFloat((127u - 85u) << 23);
    return (bits & 0x80000000u) != 0u ? -value : value;
}

uint exact_add(uint a, uint b) {
    if ((a & 0x7fffffffu) >= 0x21800000u || (b & 0x7fffffffu) >= 0x21800000u) {
        precise float sum = uintBitsToFloat(a) + uintBitsToFloat(b);
        return floatBitsToUint(sum);
    }
    precise float lifted = exact_lift(a) + exact_lift(b);
    uint bits = floatBitsToUint(lifted), magnitude = bits & 0x7fffffffu;
    if (magnitude >= (65u << 23)) return bits - (64u << 23);
    // A sum below 2^-126 is a multiple of 2^-149, hence exact.
    return (bits & 0x80000000u) | uint(uintBitsToFloat(magnitude) * uintBitsToFloat((127u + 85u) << 23));
}
