// qlora-finetune doctor
#include "commands.h"
#include "error.h"

namespace finetune {

int command_doctor(int, char **) { fail("doctor is not built yet"); }

} // namespace finetune
