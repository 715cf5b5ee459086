// What a file or a directory is, as JSON: its kind, the model's shape, types of tensors, tokenizer, keys.
#pragma once

#include "json.h"

namespace finetune {

// {"path", "kind", "bytes", "parameters", "bits_per_weight", "types": [...], ...}; what does not apply is absent. A file that
// cannot be read is an Error.
Json inspect(const std::string &path);

} // namespace finetune
