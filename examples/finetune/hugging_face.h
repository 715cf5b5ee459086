// The directory form of a base model.
#pragma once

#include "base_model.h"
#include "model_config.h"

namespace finetune {

// All but whether the head is the embedding, which may be for the tensors to say.
ModelShape read_model_shape(const ModelConfig &config);

} // namespace finetune
