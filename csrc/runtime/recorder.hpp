// The last events of a peer: a ring of entries of 64 bytes that is always written, and is the format of dumps
// too. The I/O thread writes; any thread, also while that one is stuck, takes a copy, and neither waits for
// the other. Where it lies in a file it survives the process.
#pragma once
#include <atomic>
#include <memory>
#include <string>

#include "base/bytes.hpp"
#include "base/clock.hpp"
#include "wire/types.hpp"

namespace pccl {

// What `peer`, `a` and `b` of an entry mean.
enum class EventKind : std::uint8_t {
  posted = 1,      // a: bytes of its tensors
  started,         // a: attempt, b: view (incarnation << 32 | number)
  ready,           // from `peer`: it has come to the call
  first_sent,      // to `peer`
  first_received,  // from `peer`
  last_sent,       // a: bytes in all, b: ns in which the link took no more
  last_received,   // a: bytes in all
  done,            // the result is whole here
  committed,       // a: ns since it was posted, b: attempts
  failed,          // a: error code, b: attempts
  dropped,         // the attempt is over, without a result
  view,            // a: incarnation << 32 | number, b: members
  master_found,    //
  master_lost,     //
  link_up,         // to `peer`
  link_lost,       // to `peer`
  waits,           // for `peer`; a: trouble, b: other peer
  boundary,        // update_topology: a: 0 entered, 1 passed, 2 failed
  ended,           // the run is over for this peer; a: error code
};

struct Event {
  EventKind kind = EventKind::posted;
  Instant at = 0;
  OpKey key{};
  Call call = Call::barrier;
  PeerId peer = no_peer;
  std::uint64_t a = 0, b = 0;
};

class Recorder {
 public:
  static constexpr std::size_t header_bytes = 192, entry_bytes = 64;
  static constexpr std::size_t events_max = 1 << 20;  // 64 MiB

  // `events`: 0 records nothing. `folder`: where its file is made; empty, or not to be written: in memory.
  Recorder(std::size_t events, const std::string& folder);
  ~Recorder();
  Recorder(const Recorder&) = delete;
  Recorder& operator=(const Recorder&) = delete;

  bool on() const { return events_ != 0 && !paused_.load(std::memory_order_relaxed); }
  void pause(bool paused) { paused_ = paused; }  // any thread
  void identify(std::uint64_t run, PeerId peer, const std::string& island);
  void note(const Event& event);
  std::uint64_t written() const { return written_; }

  // Any thread: header, and the entries that are whole, in any order.
  Bytes copy() const;
  const std::string& file() const { return file_; }    // empty: in memory
  const std::string& error() const { return error_; }  // why it is not in the folder that was named

 private:
  using Word = std::atomic_ref<std::uint64_t>;
  bool map_file(const std::string& folder, std::size_t bytes);
  void set(std::size_t word, std::uint64_t value) {
    Word(words_[word]).store(to_little(value), std::memory_order_relaxed);
  }
  void set_text(std::size_t word, const std::string& text);
  std::size_t slot_of(std::uint64_t number) const;  // word at which the event after so many begins

  std::size_t events_;
  std::atomic<bool> paused_ = false;
  std::uint64_t* words_ = nullptr;
  std::size_t mapped_bytes_ = 0;  // 0: in own_
  std::unique_ptr<std::uint64_t[]> own_;
  std::uint64_t written_ = 0;  // the writer's
  std::string file_, error_;
};

// A new file that only its owner may read. What went wrong; empty: it is there.
std::string write_trace(const std::string& path, const Bytes& copied);

}  // namespace pccl
