// Where a master keeps what must outlive it: of each run and role the run's number, and the last view that
// anybody was told. Called on the master's thread, before the view is sent: while a call lasts, no run of
// this master hears anything, so each ends within a heartbeat or two, or says that it failed.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "base/bytes.hpp"
#include "base/result.hpp"

namespace pccl {

class MasterStore {
 public:
  struct Records {
    std::vector<Bytes> found;         // as they were kept
    std::vector<std::string> unread;  // of each that is there and cannot be had: which one, and why
  };
  struct Outcome {
    enum class Kind : std::uint8_t { kept, failed, fenced } kind = Kind::kept;
    std::string why;  // failed: the view goes out all the same; fenced: another master serves, this one ends
  };

  virtual ~MasterStore() = default;
  virtual Result<Records> load() = 0;
  virtual Outcome keep(const std::string& key, ByteView record) = 0;
  virtual void forget(const std::string& key) = 0;
};

}  // namespace pccl
