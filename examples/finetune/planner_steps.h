// What the planner can do about memory, one thing at a time, and what a run takes with it.
#pragma once

#include "planner.h"

namespace finetune {

struct Step {
    const char *what, *flag;
    bool allowed; // not decided on the command line
    void (*apply)(MemoryChoice &choice, const Task &task, uint64_t vocabulary);
};

// In the order of what they cost: nothing, little time in evaluations, time on the bus, precision of the head.
std::vector<Step> steps_of(const Task &task, const MemoryOptions &options);

// A plan without savings.
MemoryPlan dry_run(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice, const Budget &budget);
// The same, or nothing where the choice is none; and its bytes that the budget bounds, UINT64_MAX for nothing.
std::optional<MemoryPlan> possible_run(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice, const Budget &budget);
uint64_t bounded_bytes(Device &device, const BaseModel &base, const Task &task, const MemoryChoice &choice, const Budget &budget);

} // namespace finetune
