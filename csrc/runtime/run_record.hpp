// What a master's store holds of one run and role, as bytes: a version, the run, its last view, a checksum.
#pragma once
#include <optional>

#include "base/bytes.hpp"
#include "wire/types.hpp"

namespace pccl {

struct RunRecord {
  std::string run_name;
  Role role = Role::trainer;
  std::uint64_t run = 0;
  std::uint32_t incarnation = 0;
  View view;
};

Bytes encode_run_record(const RunRecord& record);

// Bytes of a store are as hostile as those of a wire. None: damaged, or of another version.
std::optional<RunRecord> decode_run_record(ByteView bytes);

}  // namespace pccl
