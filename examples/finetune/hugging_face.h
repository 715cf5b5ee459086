// The directory form of a base model.
#pragma once

#include "base_model.h"
#include "model_config.h"

namespace finetune {

// Model types that also see, and that of the part of them which is about text.
const std::pair<const char *, const char *> seeing_types[] = {{"gemma3", "gemma3_text"}, {"mistral3", "mistral"}};

// The file at `path`, with the keys that it leaves out and, of a model that also sees, those of its text part.
ModelConfig read_config(const std::string &path);

// All but whether the head is the embedding, which may be for the tensors to say.
ModelShape read_model_shape(const ModelConfig &config);

} // namespace finetune
