// The frozen tables and the values of small floats, which a context keeps in device memory: as constants of 256 entries they would be slow to compile and
// slow to index. Numbers and places as in codebooks_vulkan.cpp. Thresholds are few and always indexed by constants.
const uint TABLE_NONE = 0u, TABLE_NF4 = 1u, TABLE_FP4 = 2u, TABLE_DYN8 = 3u, TABLE_UDYN8 = 4u, TABLE_COUNT = 9u;
const uint table_places[TABLE_COUNT] = uint[TABLE_COUNT](0u, 0u, 16u, 32u, 288u, 544u, 800u, 1056u, 1120u);

layout(binding = 11, std430) readonly buffer Tables { uint table_words[]; };

uint table_entry(uint table, uint i) { return table_words[table_places[table] + i]; }
