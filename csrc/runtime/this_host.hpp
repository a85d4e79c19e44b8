// Which host this process runs on, as all its peers there say it.
#pragma once
#include <string>

namespace pccl {

// A digest of the kernel's boot id, which containers of a host share and no two hosts do; empty where it
// cannot be read.
std::string this_host();

}  // namespace pccl
