#include "staging/capture.hpp"

#include <cstring>
#include <string>

#include "kernels/crc32.hpp"
#include "staging/fence.hpp"

namespace pccl::staging {
namespace {

constexpr unsigned threads_max = 64;
constexpr std::uint64_t page_bytes = 4096;
constexpr std::size_t slabs_at_sink = 4;  // keep any disk busy

Error wrong_with(const StagingPool& pool, const CaptureSpec& spec) {
  const auto usage = [](std::string text) { return Error{ErrorCode::usage, std::move(text)}; };
  if (!pool.ours()) return usage("a forked child has no staging memory: make a pool of its own in it");
  if (spec.block_bytes == 0 || spec.block_bytes % page_bytes != 0 ||
      pool.slab_bytes() % spec.block_bytes != 0)
    return usage("block_bytes is a multiple of 4096 that divides a slab's " +
                 std::to_string(pool.slab_bytes()) + " bytes, not " + std::to_string(spec.block_bytes));
  if (spec.threads == 0 || spec.threads > threads_max)
    return usage("1 to " + std::to_string(threads_max) + " threads copy, not " +
                 std::to_string(spec.threads));
  constexpr std::uint64_t bytes_max = std::uint64_t{1} << 50;
  std::uint64_t bytes = spec.header.size();
  for (std::size_t i = 0; i < spec.regions.size(); ++i) {
    if (spec.regions[i].bytes > bytes_max || (bytes += spec.regions[i].bytes) > bytes_max)
      return usage("region " + std::to_string(i) + ": the file would have more than 1 PiB");
  }
  for (const auto index : spec.foreign)
    if (index >= spec.regions.size()) return usage("foreign region " + std::to_string(index) + ": no such");
  for (std::size_t i = 0; i < spec.regions.size(); ++i)
    if (spec.regions[i].data == nullptr && spec.regions[i].bytes > 0 &&
        std::find(spec.foreign.begin(), spec.foreign.end(), i) == spec.foreign.end())
      return usage("region " + std::to_string(i) + " has no memory");
  return {};
}

std::vector<Region> with_header(const std::vector<std::byte>& header, const std::vector<Region>& regions) {
  std::vector<Region> all;
  all.reserve(regions.size() + 1);
  all.push_back({header.data(), header.size()});
  all.insert(all.end(), regions.begin(), regions.end());
  return all;
}

std::vector<bool> flags_of(const CaptureSpec& spec) {
  std::vector<bool> flags(spec.regions.size() + 1);
  for (const auto index : spec.foreign) flags[index + 1] = true;
  return flags;
}

}  // namespace

Result<std::shared_ptr<Capture>> Capture::make(std::shared_ptr<StagingPool> pool, std::shared_ptr<Sink> sink,
                                               CaptureSpec spec) {
  if (auto error = wrong_with(*pool, spec)) return error;
  std::shared_ptr<Capture> made(new Capture(std::move(pool), std::move(sink), std::move(spec)));
  if (made->pool_->in_place() && made->layout_.slabs() > made->pool_->slabs())
    return Error{ErrorCode::usage, "the file has " + std::to_string(made->layout_.bytes()) +
                                       " bytes, the memory where it is to stay " +
                                       std::to_string(made->pool_->bytes())};
  return made;
}

Capture::Capture(std::shared_ptr<StagingPool> pool, std::shared_ptr<Sink> sink, CaptureSpec spec)
    : pool_(std::move(pool)),
      sink_(std::move(sink)),
      header_(std::move(spec.header)),
      budget_(spec.threads),
      patience_(spec.patience),
      foreign_(flags_of(spec)),
      layout_(with_header(header_, spec.regions), spec.block_bytes, pool_->slab_bytes()),
      sums_(layout_),
      board_(layout_, foreign_) {}

Error Capture::start() {
  if (!ours()) return {ErrorCode::usage, "a capture belongs to the process that made it"};
  const Lock lock(monitor_.mutex);
  if (started_ || ended()) return {ErrorCode::usage, "a capture is started once"};
  if (pool_->closed()) return {ErrorCode::usage, "the staging pool was closed: make a new one"};
  if (auto error = threads_.want(budget_)) return error;
  started_ = true;
  begun_ = monotonic_now();
  ticket_ = pool_->enter(layout_.slabs());
  threads_.add(shared_from_this());
  return {};
}

bool Capture::work(Lock& lock, Who who) {
  if (is_over() || !started_ || (who == Who::thread && active_threads_ >= budget_)) return false;
  const auto job = board_.next(who == Who::thread ? take_warm_ : take_);
  if (!job) return false;
  run(*job, lock, who);
  return true;
}

// Memory that nobody has touched costs more than the wait for a slab that comes back soon, keeps the pool
// larger than it need be, and what comes back may still be in the cache. Not while somebody waits for copies,
// and never again once it took longer.
std::byte* Capture::take_warm(std::size_t slab) {
  if (!spares_ || waiting_ > 0 || board_.at_sink() < slabs_at_sink || !pool_->is_fresh_next())
    return pool_->take(ticket_, slab);
  if (spared_ == 0) spared_ = monotonic_now();
  return nullptr;
}

Capture::Waiting::Waiting(Capture& capture) : capture_(capture) {
  ++capture_.waiting_;
  if (capture_.spared_ != 0) capture_.monitor_.work.notify_all();
  capture_.spared_ = 0;
}

void Capture::run(const Job& job, Lock& lock, Who who) {
  ++active_;
  if (who == Who::thread) ++active_threads_;
  lock.unlock();
  carry_out(job);
  lock.lock();
  if (who == Who::caller && job.kind != Job::Kind::sum) callers_bytes_ += layout_.bytes_of_block(job.block);
  settle(job, lock);
  if (who == Who::thread) --active_threads_;
  --active_;
  if (ended()) monitor_.news.notify_all();  // who waits for quiet
}

void Capture::carry_out(const Job& job) {
  const auto& crc32 = kernels::best_crc32();
  using Fragment = FileLayout::Fragment;
  const auto source = [this](const Fragment& part) { return layout_.region(part.region).data + part.at; };
  if (job.kind == Job::Kind::copy) {
    layout_.for_fragments(job.block, [&](const Fragment& part) {
      if (!foreign_[part.region]) std::memcpy(job.memory + part.in_block, source(part), part.bytes);
    });
    return;
  }
  sums_.add(job.block, [&](const Fragment& part) {
    std::byte* const memory = job.memory + part.in_block;
    const bool there = job.kind == Job::Kind::sum || foreign_[part.region];
    return there ? crc32.of(memory, part.bytes) : crc32.copy(memory, source(part), part.bytes);
  });
}

void Capture::settle(const Job& job, Lock& lock) {
  const auto full = board_.finish(job);
  if (ended()) {
    if (full) pool_->give(board_.release(*full));
    give_back_unused();
    return;
  }
  if (board_.is_staged()) staged_ = monotonic_now();
  if (job.kind == Job::Kind::copy) monitor_.work.notify_all();  // it may be ready to be summed
  if (is_watched()) monitor_.news.notify_all();
  if (full) hand_over(*full, lock);
}

// Who waits for the end of a save is not woken a thousand times on the way: each time might be on the core of
// a thread that trains.
bool Capture::is_watched() { return waiting_ > 0 || board_.is_staged() || board_.has_waiting_parts(); }

void Capture::hand_over(std::size_t slab, Lock& lock) {
  std::byte* const memory = board_.memory(slab);
  const auto bytes = layout_.bytes_of_slab(slab);
  const auto offset = slab * pool_->slab_bytes();
  lock.unlock();
  if (const auto rest = bytes % page_bytes; rest != 0) std::memset(memory + bytes, 0, page_bytes - rest);
  sink_->write(offset, memory, bytes,
               [self = shared_from_this(), slab](const Error& error) { self->released(slab, error); });
  lock.lock();
}

void Capture::released(std::size_t slab, const Error& error) {
  if (!ours()) return;
  const Lock lock(monitor_.mutex);
  if (spared_ != 0) spares_ = monotonic_now() - spared_ <= patience_;
  spared_ = 0;
  pool_->give(board_.release(slab));
  if (error)
    end(error);
  else
    released_bytes_ += layout_.bytes_of_slab(slab);
  monitor_.news.notify_all();
}

void Capture::end(const Error& error) {
  if (ended()) return;
  error_ = error ? error : Error{ErrorCode::internal, "a capture ended without a reason"};
  pool_->leave(ticket_);
  give_back_unused();
  monitor_.notify();
}

void Capture::give_back_unused() {
  for (std::byte* const slab : board_.abandon()) pool_->give(slab);
}

void Capture::fail(const Error& error) {
  if (!ours()) return;
  const Lock lock(monitor_.mutex);
  end(error);
}

void Capture::cancel() {
  if (!ours()) return;
  Lock lock(monitor_.mutex);
  end({ErrorCode::checkpoint, "it was cancelled"});
  while (!quiet()) monitor_.news.wait(lock);
}

bool Capture::fence(Regions regions, Instant until) {
  if (!ours()) return true;
  return Fence(*this, regions).wait(until);
}

bool Capture::wait_staged(Instant until, Waits how) {
  if (!ours()) return true;
  Lock lock(monitor_.mutex);
  std::optional<Waiting> waiting;
  if (how == Waits::copying) waiting.emplace(*this);
  for (;;) {
    if (ended() ? quiet() : board_.is_staged()) return true;
    if (monotonic_now() >= until) return false;
    if (how == Waits::aside || !threads_.work(lock, Who::caller)) Monitor::wait(monitor_.news, lock, until);
  }
}

bool Capture::wait_released(Instant until) {
  if (!ours()) return true;
  Lock lock(monitor_.mutex);
  for (;;) {
    if (ended() ? quiet() : board_.is_released()) return true;
    if (!Monitor::wait(monitor_.news, lock, until)) return false;
  }
}

std::optional<ForeignPart> Capture::next_foreign(Instant until) {
  if (!ours()) return std::nullopt;
  Lock lock(monitor_.mutex);
  for (;;) {
    if (ended() || !board_.has_waiting_parts()) return std::nullopt;
    if (started_)
      if (auto part = board_.next_part(take_)) {
        --part->region;  // the header is no region of the caller's
        return part;
      }
    if (!Monitor::wait(monitor_.news, lock, until)) return std::nullopt;
  }
}

Error Capture::foreign_done(std::size_t region, std::uint64_t at) {
  if (!ours()) return {ErrorCode::usage, "a capture belongs to the process that made it"};
  const Lock lock(monitor_.mutex);
  if (!board_.part_done(region + 1, at))
    return {ErrorCode::usage, "no part of region " + std::to_string(region) + " at byte " +
                                  std::to_string(at) + " was handed out: pass what next_foreign gave, once"};
  if (ended()) give_back_unused();
  monitor_.notify();
  return {};
}

bool Capture::is_handed_out() {
  if (!ours()) return true;
  const Lock lock(monitor_.mutex);
  return ended() || !board_.has_waiting_parts();
}

bool Capture::is_staged() const {
  if (!ours()) return false;
  const Lock lock(monitor_.mutex);
  return board_.is_staged();
}

bool Capture::has_ended() const { return static_cast<bool>(error()); }

Error Capture::error() const {
  if (!ours()) return {ErrorCode::usage, "a capture belongs to the process that made it"};
  const Lock lock(monitor_.mutex);
  return error_;
}

CaptureProgress Capture::progress() const {
  if (!ours()) return {};
  const Lock lock(monitor_.mutex);
  return {board_.staged_bytes(), released_bytes_, layout_.bytes()};
}

double Capture::staged_seconds() const {
  if (!ours()) return 0;
  const Lock lock(monitor_.mutex);
  return staged_ == 0 ? 0 : static_cast<double>(staged_ - begun_) / second;
}

std::uint64_t Capture::stashed_bytes() const {
  if (!ours()) return 0;
  const Lock lock(monitor_.mutex);
  return stash_.bytes();
}

std::uint64_t Capture::callers_bytes() const {
  if (!ours()) return 0;
  const Lock lock(monitor_.mutex);
  return callers_bytes_;
}

std::vector<std::uint32_t> Capture::region_crcs() const {
  auto crcs = sums_.regions();
  crcs.erase(crcs.begin());
  return crcs;
}

}  // namespace pccl::staging
