// The shared decoders of interleaved blocks and small floats, over plain memory.
#pragma once
#include "backends/ref/ref.h"

namespace qlora {
namespace ref {

#define QLORA_FUNCTION inline
#define QLORA_PLACE const uint8_t *
#define QLORA_BYTE(place) uint(*(place))
#define QLORA_FLOAT(bits) float_of(bits)
#include "backends/narrow.inc"
#include "backends/blocks.inc"
#include "backends/block_rows.inc"
#undef QLORA_FUNCTION
#undef QLORA_PLACE
#undef QLORA_BYTE
#undef QLORA_FLOAT

} // namespace ref
} // namespace qlora
