#pragma once
// One file's bytes on their way out of memory that its owner wants to change: regions are copied into slabs,
// with checksums, and full slabs go to a sink. start() returns at once; copy threads work while the owner
// leaves the regions alone, and a fence returns when given regions may be changed. Any thread may call.
//
// What a waiting caller can rely on: each wait ends when what it waits for has happened, when the capture has
// ended, or at its deadline. A pool smaller than the state only means waiting for the sink. Nobody reads a
// region once a fence for it, or cancel(), has returned, or is_over() and no wait is under way.

#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "staging/board.hpp"
#include "staging/copy_threads.hpp"
#include "staging/pool.hpp"
#include "staging/sink.hpp"
#include "staging/stash.hpp"
#include "staging/sums.hpp"

namespace pccl::staging {

struct CaptureSpec {
  std::vector<std::byte> header;       // the file's first bytes
  std::vector<Region> regions;         // what follows; memory that outlives the copy
  std::vector<std::uint32_t> foreign;  // indices of regions that somebody else fills in (see next_foreign)
  std::uint64_t block_bytes = std::uint64_t{1} << 20;  // the slab is a multiple of it
  unsigned threads = 1;                                // that may copy at the same time beside callers
  Duration patience =
      10 * millisecond;  // for used slabs to come back, before copy threads touch fresh memory
};

struct CaptureProgress {
  std::uint64_t staged = 0, released = 0, total = 0;  // bytes
};

class Capture final : public Copying, public std::enable_shared_from_this<Capture> {
 public:
  using Regions = std::optional<std::span<const std::uint32_t>>;  // nothing: all of them

  static Result<std::shared_ptr<Capture>> make(std::shared_ptr<StagingPool> pool, std::shared_ptr<Sink> sink,
                                               CaptureSpec spec);

  Error start();  // once

  // True: these regions may be changed; so they may where the capture has ended, with whatever result. False:
  // the time was over, and they must stay as they are. The caller copies along, and waits where slabs are
  // short. Small regions far apart are kept aside instead of copying all that lies between them.
  bool fence(Regions regions, Instant until);
  // All is copied and summed; or it has ended: see error(). False: the time was over. The caller copies
  // along, or waits aside: then it costs nobody anything, and copies are no more urgent than they were.
  enum class Waits : std::uint8_t { copying, aside };
  bool wait_staged(Instant until, Waits how = Waits::copying);
  // All slabs were given back by the sink; or it has ended, and nobody copies or calls the sink any more.
  bool wait_released(Instant until);

  // The next part of a foreign region to be filled by the caller, who says when it is: foreign_done(). Also
  // after an end: the slab is not used again before. Nothing: the time was over, none is left, or it ended.
  // On another thread than fences: where the pool is short, these wait for slabs that wait for parts.
  std::optional<ForeignPart> next_foreign(Instant until);
  Error foreign_done(std::size_t region, std::uint64_t at);
  bool is_handed_out();  // no part is left to be given out, or it has ended

  void fail(const Error& error);  // ends it; the first error stays. Waits for nobody
  void cancel();                  // fail(), and waits until no thread copies; not for callbacks of the sink

  bool is_staged() const;
  bool has_ended() const;  // by an error
  Error error() const;
  CaptureProgress progress() const;
  std::uint64_t bytes() const { return layout_.bytes(); }
  double staged_seconds() const;  // from start() to all staged; 0: not yet
  std::uint64_t stashed_bytes() const;
  std::uint64_t callers_bytes() const;  // copied by callers of fences

  // Once it is staged.
  const std::vector<std::uint32_t>& block_crcs() const { return sums_.blocks(); }
  std::vector<std::uint32_t> region_crcs() const;  // of the regions given, without the header

  bool ours() const { return monitor_.ours(); }

  bool work(Lock& lock, Who who) override;
  bool is_over() const override { return ended() || board_.is_staged(); }
  void stop() override { cancel(); }

 private:
  friend class Fence;
  // Of a caller, under the lock: copies are urgent.
  class Waiting {
   public:
    explicit Waiting(Capture& capture);
    ~Waiting() { --capture_.waiting_; }
    Waiting(const Waiting&) = delete;

   private:
    Capture& capture_;
  };
  Capture(std::shared_ptr<StagingPool> pool, std::shared_ptr<Sink> sink, CaptureSpec spec);

  // All below: under the lock, which those that take one give up meanwhile.
  void run(const Job& job, Lock& lock, Who who);
  void settle(const Job& job, Lock& lock);
  bool is_watched();               // somebody waits for single blocks
  void carry_out(const Job& job);  // without it
  void hand_over(std::size_t slab, Lock& lock);
  void released(std::size_t slab, const Error& error);  // takes it
  void end(const Error& error);
  void give_back_unused();
  std::byte* take_warm(std::size_t slab);
  bool ended() const { return static_cast<bool>(error_); }
  bool quiet() const { return active_ == 0; }

  CopyThreads& threads_ = CopyThreads::here();
  Monitor& monitor_ = threads_.monitor();
  const std::shared_ptr<StagingPool> pool_;
  const std::shared_ptr<Sink> sink_;
  const std::vector<std::byte> header_;
  const unsigned budget_;
  const Duration patience_;
  const std::vector<bool> foreign_;  // by region, of which the header is the first
  FileLayout layout_;
  Sums sums_;
  Board board_;
  Stash stash_;
  const Board::Take take_ = [this](std::size_t slab) { return pool_->take(ticket_, slab); };
  const Board::Take take_warm_ = [this](std::size_t slab) { return take_warm(slab); };
  StagingPool::Ticket ticket_ = 0;
  unsigned waiting_ = 0;  // callers, for copies
  Instant spared_ = 0;    // since then fresh memory was left alone; 0: it is not
  bool spares_ = true;
  bool started_ = false;
  unsigned active_ = 0;          // threads and callers at a job, or in the sink's write()
  unsigned active_threads_ = 0;  // of these the copy threads
  std::uint64_t released_bytes_ = 0, callers_bytes_ = 0;
  Instant begun_ = 0, staged_ = 0;
  Error error_;
};

}  // namespace pccl::staging
