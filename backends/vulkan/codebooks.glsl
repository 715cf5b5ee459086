// The frozen tables as f32 bit patterns. Numbers of tables as in codebooks_vulkan.h.
const uint TABLE_NONE = 0u, TABLE_NF4 = 1u, TABLE_FP4 = 2u, TABLE_DYN8 = 3u, TABLE_UDYN8 = 4u;

const uint nf4_table[16] = uint[16](
#include "backends/codebooks/nf4.inc"
);
const uint nf4_thresholds[15] = uint[15](
#include "backends/codebooks/nf4_thresholds.inc"
);
const uint fp4_table[16] = uint[16](
#include "backends/codebooks/fp4.inc"
);
const uint fp4_thresholds[7] = uint[7](
#include "backends/codebooks/fp4_thresholds.inc"
);
const uint dyn8_table[256] = uint[256](
#include "backends/codebooks/dyn8.inc"
);
const uint udyn8_table[256] = uint[256](
#include "backends/codebooks/udyn8.inc"
);

uint table_entry(uint table, uint i) {
    if (table == TABLE_NF4) return nf4_table[i];
    if (table == TABLE_FP4) return fp4_table[i];
    if (table == TABLE_DYN8) return dyn8_table[i];
    return udyn8_table[i];
}
