// Which linear layers have an adapter.
#pragma once

#include "adapter.h"

namespace finetune {

// Keeps those of the shape's linear layers that `names` lists, with commas: all, attention, feed-forward, the short names q, k, v,
// qkv, o, gate, up, gate_up, down, or Hugging Face's, as q_proj. Names that the architecture does not have are an Error.
void choose_targets(AdapterShape &shape, const std::string &names);

} // namespace finetune
