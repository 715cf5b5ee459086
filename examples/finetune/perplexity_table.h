// What each storage format costs and loses on a model: bits per weight beside perplexity.
#pragma once

#include "options.h"

namespace finetune {

// Prints a row for every format of options.perplexity_table, linear layers only, as soon as it is measured.
void print_perplexity_table(const Options &options);

} // namespace finetune
