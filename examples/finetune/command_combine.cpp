// qlora-finetune combine
#include "commands.h"
#include "error.h"

namespace finetune {

int command_combine(int, char **) { fail("combine is not built yet"); }

} // namespace finetune
