// The frozen tables, which a context keeps in device memory: as constants of 256 entries they would be slow to compile and
// slow to index. Numbers and places as in codebooks_vulkan.cpp. Thresholds are few and always indexed by constants.
const uint TABLE_NONE = 0u, TABLE_NF4 = 1u, TABLE_FP4 = 2u, TABLE_DYN8 = 3u, TABLE_UDYN8 = 4u;

layout(binding = 11, std430) readonly buffer Tables { uint table_words[]; };

uint table_entry(uint table, uint i) { return table_words[(table == TABLE_NF4 ? 0u : table == TABLE_FP4 ? 16u : table == TABLE_DYN8 ? 32u : 288u) + i]; }
