// qlora-finetune chat
#include "commands.h"
#include "error.h"

namespace finetune {

int command_chat(int, char **) { fail("chat is not built yet"); }

} // namespace finetune
