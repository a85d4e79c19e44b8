#include "disk/shard_reader.hpp"
namespace pccl::disk {
Result<ReadStats> read_verified(Disk&, const ReadPlan& plan, unsigned) {
  return Error{ErrorCode::internal, "reading is not built yet: " + plan.path};
}
}  // namespace pccl::disk
