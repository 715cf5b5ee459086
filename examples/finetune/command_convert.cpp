// qlora-finetune convert
#include "commands.h"
#include "error.h"

namespace finetune {

int command_convert(int, char **) { fail("convert is not built yet"); }

} // namespace finetune
