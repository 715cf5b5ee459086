// exp and log of our own: GLSL promises no accuracy that training could rest on. Both are good to about 2 ulp.

// exp(x); below 2^-126 it is 0, above the range it saturates near 2^127.
float exponential(float x) {
    x = clamp(x, -87.3, 88.3);
    float n = floor(x * 1.44269504 + 0.5);
    precise float high = x - n * 0.693359375;          // n times few bits: exact
    precise float r = high - n * -2.12194440e-4;       // x - n ln 2
    float p = 1.9875691500e-4;
    p = p * r + 1.3981999507e-3;
    p = p * r + 8.3334519073e-3;
    p = p * r + 4.1665795894e-2;
    p = p * r + 1.6666665459e-1;
    p = p * r + 5.0000001201e-1;
    return (p * r * r + r + 1.0) * uintBitsToFloat(uint(int(n) + 127) << 23);
}

// log(x) of a normal positive x.
float logarithm(float x) {
    uint bits = floatBitsToUint(x);
    int exponent = int(bits >> 23) - 126;
    float m = uintBitsToFloat((bits & 0x7fffffu) | 0x3f000000u); // in [0.5, 1)
    if (m < 0.707106781) { exponent -= 1; m = m + m; }
    m -= 1.0;
    float z = m * m, p = 7.0376836292e-2;
    p = p * m - 1.1514610310e-1;
    p = p * m + 1.1676998740e-1;
    p = p * m - 1.2420140846e-1;
    p = p * m + 1.4249322787e-1;
    p = p * m - 1.6668057665e-1;
    p = p * m + 2.0000714765e-1;
    p = p * m - 2.4999993993e-1;
    p = p * m + 3.3333331174e-1;
    float n = float(exponent), y = m * z * p + n * -2.12194440e-4 - 0.5 * z;
    return (m + y) + n * 0.693359375;
}

float sigmoid(float x) { return x < -88.0 ? 0.0 : 1.0 / (1.0 + exponential(-x)); } // where exp saturates, times x, would be seen

// {tanh(x), its slope 1 - tanh(x)^2}, each good to a few ulp: a series about 0, exp elsewhere.
vec2 hyperbolic_tangent(float x) {
    float e = exponential(-2.0 * abs(x)), inverse = 1.0 / (1.0 + e), far = (1.0 - e) * inverse, z = x * x;
    float p = -6.6037280449e-3;
    p = p * z + 2.1304944902e-2;
    p = p * z - 5.3908414297e-2;
    p = p * z + 1.3333105122e-1;
    p = p * z - 3.3333331809e-1;
    return vec2(abs(x) < 0.55 ? p * z * x + x : x < 0.0 ? -far : far, 4.0 * e * inverse * inverse);
}

// {the share of the normal distribution below x, its density at x}, the tail by a series for tail / density.
vec2 normal_distribution(float x) {
    float a = abs(x), density = a < 13.0 ? 3.98942280e-1 * exponential(-0.5 * x * x) : 0.0;
    float t = 1.0 / (1.0 + 0.3 * a), p = -5.242452596e-2;
    p = p * t + 2.858565734e-1;
    p = p * t - 5.816342294e-1;
    p = p * t + 4.936570796e-1;
    p = p * t - 2.099114500e-1;
    p = p * t + 2.468546129e-1;
    p = p * t + 1.944869408e-1;
    p = p * t + 2.767447459e-1;
    p = p * t + 2.996718299e-1;
    p = p * t + 3.000125558e-1;
    float tail = density * p * t;
    return vec2(x < 0.0 ? tail : 1.0 - tail, density);
}

// Cosine and sine of 2 pi * phase / 2^32, phase a fraction of a turn: the range reduction is a shift.
vec2 cosine_sine(uint phase) {
    uint quadrant = (phase + 0x20000000u) >> 30;
    float x = float(int(phase - (quadrant << 30))) * 1.46291807927e-9; // 2 pi / 2^32, |x| <= pi / 4
    float z = x * x;
    float sine = ((-1.9515295891e-4 * z + 8.3321608736e-3) * z - 1.6666654611e-1) * z * x + x;
    float cosine = ((2.443315711809948e-5 * z - 1.388731625493765e-3) * z + 4.166664568298827e-2) * z * z - 0.5 * z + 1.0;
    vec2 turned = (quadrant & 1u) != 0u ? vec2(-sine, cosine) : vec2(cosine, sine);
    return (quadrant & 2u) != 0u ? -turned : turned;
}
