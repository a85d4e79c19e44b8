#pragma once
// For threads that work beside a training, which goes first.

namespace pccl::staging {

// The calling thread alone: a low priority, as batch work, and a name of at most 15 characters. What the
// system refuses is left as it is.
void yield_to_others(const char* name);

}  // namespace pccl::staging
