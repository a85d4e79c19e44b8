// Threads that work behind the training, which goes first.
#pragma once

namespace pccl {

// The calling thread gets a tenth of what the process's main thread gets on the same core, whatever priority
// that was given. What the system refuses is left as it is.
void step_behind_main_thread();

}  // namespace pccl
