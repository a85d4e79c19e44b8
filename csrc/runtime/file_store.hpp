// A master's store in a folder: one file for each run, replaced whole. One master at a time has it.
#pragma once
#include "runtime/master_store.hpp"

namespace pccl {

class FileStore final : public MasterStore {
 public:
  // Makes the folder where it is missing. An error: it cannot be written, or another master has it.
  static Result<std::unique_ptr<FileStore>> open(const std::string& folder);
  ~FileStore() override;
  FileStore(const FileStore&) = delete;
  FileStore& operator=(const FileStore&) = delete;

  Result<Records> load() override;
  Outcome keep(const std::string& run_name, ByteView record) override;
  void forget(const std::string& run_name) override;

 private:
  FileStore(std::string folder, int folder_fd, int lock_fd)
      : folder_(std::move(folder)), folder_fd_(folder_fd), lock_fd_(lock_fd) {}

  std::string folder_;
  int folder_fd_, lock_fd_;
};

}  // namespace pccl
