#include <doctest/doctest.h>
TEST_SUITE_BEGIN("int8");
TEST_SUITE_END();
