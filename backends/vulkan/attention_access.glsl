// Access to four neighbouring dimensions of a head, for attention.

// Defines vec4 name(i, left): elements i .. i + 3 of the span at a binding, zero from left on.
#define QLORA_READ4(name, read, vectors, halves, binding, type)                                               \
    vec4 name(uint i, uint left) {                                                                            \
        if (VECTORS != 0u && (type) == F32) return uintBitsToFloat(vectors[(QLORA_BASE(binding) + i) >> 2]);  \
        if (VECTORS != 0u) {                                                                                  \
            uvec2 pair = halves[(QLORA_BASE(binding) + (i >> 1)) >> 1];                                       \
            return uintBitsToFloat(uvec4(widen(type, pair.x, 0u), widen(type, pair.x, 1u), widen(type, pair.y, 0u), widen(type, pair.y, 1u))); \
        }                                                                                                     \
        return vec4(read(i), left > 1u ? read(i + 1u) : 0.0, left > 2u ? read(i + 2u) : 0.0, left > 3u ? read(i + 3u) : 0.0); \
    }

// Defines name(i, left, value): writes elements i .. i + 3, those below left.
#define QLORA_WRITE4(name, write)                                                                             \
    void name(uint i, uint left, vec4 value) {                                                                \
        if (left > 1u) write##_pair(i, value.x, value.y);                                                     \
        else write(i, value.x);                                                                               \
        if (left > 3u) write##_pair(i + 2u, value.z, value.w);                                                \
        else if (left > 2u) write(i + 2u, value.z);                                                           \
    }
