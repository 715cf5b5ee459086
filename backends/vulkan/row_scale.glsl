// What the two shaders that quantize rows to signed bytes share: elements of x[rows][cols], read as they are or times the
// scale of the weight's row that they meet (FOLD), and whether one belongs to an outlier column.
layout(constant_id = 0) const uint TYPE = 0x100u;   // of x
layout(constant_id = 1) const uint FOLD = 0u;       // x[r][c] counts times absmax[c] / 127, or absmax[0] / 127 with ONE_SCALE
layout(constant_id = 2) const uint ONE_SCALE = 0u;
layout(constant_id = 3) const uint OUTLIERS = 0u;   // columns with an element of at least threshold are left out

layout(binding = 0, std430) readonly buffer X { uint x_words[]; };
layout(binding = 1, std430) readonly buffer WeightScales { uint weight_scales[]; };
layout(binding = 2, std430) buffer Outliers { uint outlier_words[]; }; // a bit for each column

QLORA_PUSH
    uint rows, cols, x_stride, padded; // padded: bytes between rows of codes
    uint threshold;                    // f32 bits
};
QLORA_READ(read_x, x_words, 0u, TYPE)

const uint PART = 0x3c010204u; // 1 / 127

uint element(uint r, uint c) {
    uint bits = read_x_bits(r * x_stride + c);
    return FOLD != 0u ? exact_multiply(bits, exact_multiply(weight_scales[QLORA_BASE(1u) + (ONE_SCALE != 0u ? 0u : c)], PART)) : bits;
}
