// What a fine-tune reads: tokenizers, chat templates, data. A program of its own, as it needs no device.
#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include "engine_support.h"
