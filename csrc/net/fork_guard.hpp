// Descriptors that a forked child must not keep: a killed trainer would look alive until its data-loader
// workers exit. Any thread. The child closes them before it returns from fork().
#pragma once

namespace pccl::net {

void guard_from_fork(int fd);
// Before others ask to be called at a fork: their locks are then taken before this one.
void install_fork_guard();
// False: it is not to be closed. In a forked child it is closed, and its number may be another's.
bool unguard(int fd);

}  // namespace pccl::net
