// qlora-finetune merge
#include "commands.h"
#include "error.h"

namespace finetune {

int command_merge(int, char **) { fail("merge is not built yet"); }

} // namespace finetune
