#include "runtime/shard_save.hpp"

#include <pthread.h>

#include <cerrno>
#include <csignal>

#include "runtime/own_thread.hpp"

namespace pccl {

// Slabs wait here until the file is open, which takes its time, and are refused once it is not to be.
class ShardSave::Writing final : public staging::Sink {
 public:
  void write(std::uint64_t offset, const std::byte* memory, std::size_t bytes, Release release) override {
    std::unique_lock lock(mutex_);
    if (writer_ == nullptr && !refusal_) {
      waiting_.push_back({offset, memory, bytes, std::move(release)});
      return;
    }
    lock.unlock();  // both stay as they are now
    pass({offset, memory, bytes, std::move(release)});
  }
  void open(disk::ShardWriter& writer) {
    {
      const std::lock_guard lock(mutex_);
      writer_ = &writer;
    }
    pass_waiting();
  }
  void refuse(const Error& error) {
    {
      const std::lock_guard lock(mutex_);
      refusal_ = error;
    }
    pass_waiting();
  }

 private:
  struct Slab {
    std::uint64_t offset;
    const std::byte* memory;
    std::size_t bytes;
    Release release;
  };
  void pass(Slab slab) {
    if (refusal_)
      slab.release(refusal_);
    else
      writer_->write(slab.offset, slab.memory, slab.bytes, std::move(slab.release));
  }
  void pass_waiting() {
    std::vector<Slab> waiting;
    {
      const std::lock_guard lock(mutex_);
      waiting.swap(waiting_);
    }
    for (Slab& slab : waiting) pass(std::move(slab));
  }

  std::mutex mutex_;
  std::vector<Slab> waiting_;
  disk::ShardWriter* writer_ = nullptr;  // one of these two is set, once
  Error refusal_;
};

ShardSave::ShardSave(disk::Disk& disk, SaveSpec spec)
    : disk_(disk),
      path_(std::move(spec.path)),
      recycle_(std::move(spec.recycle)),
      exists_by_(std::move(spec.exists_by)),
      write_threads_(spec.write_threads),
      direct_(spec.direct),
      writing_(std::make_shared<Writing>()) {}

Result<std::unique_ptr<ShardSave>> ShardSave::make(std::shared_ptr<staging::StagingPool> pool,
                                                   disk::Disk& disk, SaveSpec spec) {
  if (spec.path.empty()) return Error{ErrorCode::usage, "a save needs the path of its file"};
  auto what = std::move(spec.capture);
  std::unique_ptr<ShardSave> save(new ShardSave(disk, std::move(spec)));
  auto capture = staging::Capture::make(std::move(pool), save->writing_, std::move(what));
  if (!capture) return capture.error();
  save->capture_ = std::move(*capture);
  return save;
}

ShardSave::~ShardSave() {
  if (keeper_ == nullptr) return;
  if (!capture_->ours()) {  // a forked child has no such thread, nor anything of the parent's to end
    static_cast<void>(keeper_.release());
    return;
  }
  end();
}

void ShardSave::end() {
  cancel();
  if (keeper_ != nullptr && keeper_->joinable()) keeper_->join();
}

Error ShardSave::start() {
  if (keeper_ != nullptr) return {ErrorCode::usage, "a save is started once"};
  begun_ = monotonic_now();
  if (auto error = capture_->start()) return error;
  auto keeper = start_thread([this] { keep(); });
  if (keeper) {
    keeper_ = std::move(*keeper);
    return {};
  }
  capture_->cancel();
  writing_->refuse(keeper.error());
  return {ErrorCode::checkpoint, keeper.error().text};
}

void ShardSave::keep() {
  sigset_t all;
  sigfillset(&all);
  pthread_sigmask(SIG_BLOCK, &all, nullptr);  // signals are for the user's threads
  pthread_setname_np(pthread_self(), "pccl-save");
  const Error error = write_all();
  const std::lock_guard lock(mutex_);
  error_ = error;
  done_ = true;
  ended_.notify_all();
}

// Here, and not in start(): a disk takes its time for it, and the training would wait for that.
Error ShardSave::make_folder() const {
  if (exists_by_.empty()) return {};
  const auto folder = path_.substr(0, path_.rfind('/'));
  const auto made = disk_.mkdir(folder);
  if (made.error == 0) return {};
  if (made.error != EEXIST) return disk::failure(disk::Call::mkdir, disk::Purpose::write, folder, made.error);
  const auto mark = folder + "/" + exists_by_;
  const auto opened = disk_.open(mark, disk::Purpose::read);
  if (opened.error == ENOENT) return {};
  if (opened.error != 0) return disk::failure(disk::Call::open, disk::Purpose::read, mark, opened.error);
  disk_.close(int(opened.value));
  return {ErrorCode::checkpoint, folder + " exists already: save under another number, or remove it first"};
}

Result<std::unique_ptr<disk::ShardWriter>> ShardSave::open() {
  if (auto error = capture_->error()) return error;  // given up already: no folder is left behind
  if (auto error = make_folder()) {
    if (!recycle_.empty()) disk_.unlink(recycle_);  // nobody else knows of it
    return error;
  }
  const disk::WriteTarget target{path_ + ".part", recycle_, capture_->bytes(), direct_};
  return disk::ShardWriter::open(disk_, target, write_threads_);
}

Error ShardSave::write_all() {
  auto writer = open();
  if (!writer) {
    capture_->fail(writer.error());
    writing_->refuse(writer.error());
    return capture_->error();  // an earlier one wins
  }
  writing_->open(**writer);
  capture_->wait_released(never);
  if (const Error error = capture_->error()) {
    (*writer)->abandon();
    return error;
  }
  return finish(**writer);
}

Error ShardSave::finish(disk::ShardWriter& writer) {
  const bool direct = writer.direct(), recycled = writer.recycled();
  if (auto error = writer.finish()) return error;
  const auto part = path_ + ".part";
  if (const auto renamed = disk_.rename(part, path_); renamed.error != 0) {
    disk_.unlink(part);
    return disk::failure(disk::Call::rename, disk::Purpose::write, path_, renamed.error);
  }
  receipt_ = {.bytes = capture_->bytes(),
              .block_crcs = capture_->block_crcs(),
              .region_crcs = capture_->region_crcs(),
              .direct = direct,
              .recycled = recycled,
              .staged_seconds = capture_->staged_seconds(),
              .durable_seconds = static_cast<double>(monotonic_now() - begun_) / second,
              .stashed_bytes = capture_->stashed_bytes(),
              .callers_bytes = capture_->callers_bytes()};
  return {};
}

Error ShardSave::told(const Error& error) const {
  if (error.text.find(path_) != std::string::npos) return error;
  return {error.code, "the save of " + path_ + " has failed: " + error.text};
}

Result<bool> ShardSave::wait_staged(Instant until, staging::Capture::Waits how) {
  if (!capture_->wait_staged(until, how)) return false;
  if (const Error error = capture_->error()) return told(error);
  return true;
}

Result<const SaveReceipt*> ShardSave::wait_durable(Instant until) {
  if (!capture_->ours()) return told({ErrorCode::usage, "it belongs to the process that started it"});
  if (keeper_ == nullptr) return told({ErrorCode::usage, "it was not started"});
  std::unique_lock lock(mutex_);
  const std::chrono::steady_clock::time_point limit{std::chrono::nanoseconds(until)};
  const auto over = [this] { return done_; };
  if (until == never)
    ended_.wait(lock, over);
  else if (!ended_.wait_until(lock, limit, over))
    return nullptr;
  if (error_) return told(error_);
  return &receipt_;
}

void ShardSave::cancel() {
  {
    const std::lock_guard lock(mutex_);
    if (done_) return;
  }
  capture_->cancel();
}

}  // namespace pccl
