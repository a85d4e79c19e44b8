#pragma once
// One file of a checkpoint: regions of memory staged while their owner waits for nothing, written and made
// durable behind its back under a temporary name, which becomes the file's name only then. Any thread may
// call; destroying it cancels what is not finished and waits for that.

#include <condition_variable>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "disk/shard_writer.hpp"
#include "staging/capture.hpp"

namespace pccl {

struct SaveSpec {
  // The file appears under this name once it is durable; until then "<path>.part" is written. Its folder is
  // the committer's to synchronize.
  std::string path;
  std::string recycle;  // see disk::WriteTarget
  // "": the folder is there. Else it is made, and this is the name of a file in it by which its step exists:
  // where it is there the save fails, and what is in the folder stays.
  std::string exists_by{};
  staging::CaptureSpec capture;
  unsigned write_threads = 2;
  bool direct = true;
};

struct SaveReceipt {
  std::uint64_t bytes = 0;
  std::vector<std::uint32_t> block_crcs, region_crcs;
  bool direct = false, recycled = false;
  double staged_seconds = 0, durable_seconds = 0;  // since start()
  std::uint64_t stashed_bytes = 0;                 // small regions that were kept aside for a fence
  std::uint64_t callers_bytes = 0;                 // copied by callers who waited
};

class ShardSave {
 public:
  // `disk` outlives it.
  static Result<std::unique_ptr<ShardSave>> make(std::shared_ptr<staging::StagingPool> pool, disk::Disk& disk,
                                                 SaveSpec spec);
  ~ShardSave();
  ShardSave(const ShardSave&) = delete;
  ShardSave& operator=(const ShardSave&) = delete;

  Error start();  // once; touches no disk
  staging::Capture& capture() { return *capture_; }

  // False: the time was over. An error: the save has failed or was cancelled.
  Result<bool> wait_staged(Instant until, staging::Capture::Waits how = staging::Capture::Waits::copying);
  // Null: the time was over.
  Result<const SaveReceipt*> wait_durable(Instant until);
  // Afterwards nobody reads the regions; the temporary file is removed in the background. Nothing happens to
  // a file that is durable.
  void cancel();
  // cancel(), and waits until the disk is through with it: however long a call of it takes. One thread, last
  // of all; else the destructor does it, on whichever thread that comes to be.
  void end();

 private:
  class Writing;  // the capture's sink

  ShardSave(disk::Disk& disk, SaveSpec spec);
  void keep();  // on the keeper's thread, from opening the file to its end
  Error write_all();
  Error make_folder() const;
  Result<std::unique_ptr<disk::ShardWriter>> open();
  Error finish(disk::ShardWriter& writer);
  Error told(const Error& error) const;

  disk::Disk& disk_;
  const std::string path_, recycle_, exists_by_;
  const unsigned write_threads_;
  const bool direct_;
  std::shared_ptr<Writing> writing_;
  std::shared_ptr<staging::Capture> capture_;
  std::unique_ptr<std::thread> keeper_;
  Instant begun_ = 0;
  SaveReceipt receipt_;  // the keeper's, until it is done

  mutable std::mutex mutex_;  // guards all below
  std::condition_variable ended_;
  bool done_ = false;
  Error error_;
};

}  // namespace pccl
