// qlora-finetune eval
#include "commands.h"
#include "error.h"

namespace finetune {

int command_eval(int, char **) { fail("eval is not built yet"); }

} // namespace finetune
