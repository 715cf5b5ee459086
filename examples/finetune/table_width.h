// The first OPT models keep their embedding narrower than their hidden states, with a product between the two on the way
// in and one on the way out.
#pragma once

#include "base_model.h"

namespace finetune {

// What the two products leave of a table [vocabulary][width] of token rows, f32: rows times `in` [hidden][width] transposed,
// which is an embedding as every other model has it, and rows times `out` [width][hidden], which is a head.
StoredWeight widened_embedding(const StoredWeight &table, const StoredWeight &in);
StoredWeight widened_head(const StoredWeight &table, const StoredWeight &out);

} // namespace finetune
