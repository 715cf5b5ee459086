// Memory of the machine itself.
#pragma once

#include <cstdint>

namespace finetune {

// Bytes that a program may take without pushing others out, of this machine or of the group of processes that bounds this
// one; 0: not known.
uint64_t free_host_memory();

} // namespace finetune
