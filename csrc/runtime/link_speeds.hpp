// What operations showed of the speed of this peer's links. Owned by the I/O thread.
#pragma once
#include <vector>

#include "runtime/links.hpp"

namespace pccl {

// Links that were kept full for long enough since they were last asked about, each once. Where several were
// full at the same time they may have shared a line: then each is at least so fast.
std::vector<MeasuredLink> take_speeds(Links& links);

// The shortest round trip that the kernel saw on the way to a peer; 0: none yet.
std::uint32_t round_trip_us(Links& links, PeerId peer);

// What was sent was no operation.
void forget_speeds(Links& links);

}  // namespace pccl
