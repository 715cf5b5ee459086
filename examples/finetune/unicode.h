// Unicode's normalization form C: characters that can be written in several ways are written as one.
#pragma once

#include <string>
#include <string_view>

namespace finetune {

// Bytes that are no characters stay as they are. Most texts are in this form, which takes one look to see.
std::string composed(std::string_view text);

} // namespace finetune
