// qlora-finetune generate
#include "commands.h"
#include "error.h"

namespace finetune {

int command_generate(int, char **) { fail("generate is not built yet"); }

} // namespace finetune
