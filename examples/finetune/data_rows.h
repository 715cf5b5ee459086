// What every reader of rows does with one.
#pragma once

#include "data.h"

namespace finetune {

// Applies the limit on length, and keeps the row unless it is dropped.
void add_row(Dataset &data, Row row, const DataLimits &limits, const std::string &where);
// Throws Error when no row is left; else counts.
void check_not_empty(Dataset &data);

} // namespace finetune
