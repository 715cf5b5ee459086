// qlora-finetune inspect
#include "commands.h"
#include "error.h"

namespace finetune {

int command_inspect(int, char **) { fail("inspect is not built yet"); }

} // namespace finetune
