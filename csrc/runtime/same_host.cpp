#include "runtime/same_host.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "runtime/this_host.hpp"

namespace pccl {

namespace {

// Below, telling where bytes lie, and being told that they were taken, costs more than sending them.
constexpr std::size_t offer_from = 64u << 10;

bool holds_token(const std::uint8_t* found, const Digest& token) {
  return found != nullptr && std::memcmp(found, token.data(), token.size()) == 0;
}

// It proves that the process of that number here is the one that speaks, and not one of the same number in
// another container.
bool can_read(const HostHello& hello) {
  Digest found{};
  return read_process_memory(int(hello.process), hello.token_at, found.data(), found.size()) &&
         holds_token(found.data(), hello.token);
}

bool can_map(const HostHello& hello) {
  const auto door = ForeignSegment::map(int(hello.process), hello.door, hello.token.size());
  return door != nullptr && holds_token(door->at(0, hello.token.size()), hello.token);
}

}  // namespace

std::optional<LocalWays> ways_of_transport(const std::string& name) {
  if (name == "auto") return LocalWays(read_process | map_segment);
  if (name == "tcp") return LocalWays(0);
  if (name == "cma") return read_process;
  if (name == "shm") return map_segment;
  return std::nullopt;
}

std::string name_of_ways(LocalWays ways) {
  if (ways == (read_process | map_segment)) return "shm+cma";
  return ways == read_process ? "cma" : ways == map_segment ? "shm" : "tcp";
}

SameHost::SameHost(LocalWays allowed, const std::string& label) : allowed_(allowed) {
  if (allowed_ == 0) return;
  const auto token = net::random_nonce();
  host_ = this_host();
  if (!token || host_.empty()) {
    allowed_ = 0;
    return;
  }
  host_ += "/" + label;
  host_.resize(std::min(host_.size(), limits::name_bytes_max));
  token_ = std::make_unique<net::Nonce>(token.value());
  if ((allowed_ & map_segment) != 0) door_ = std::make_unique<Door>(token_->data(), token_->size());
  if (door_ != nullptr && door_->fd() < 0) allowed_ = LocalWays(allowed_ & ~map_segment);
  if ((allowed_ & read_process) != 0) allow_readers();
}

std::optional<HostHello> SameHost::hello() const {
  if (allowed_ == 0) return std::nullopt;
  HostHello hello;
  hello.host = host_;
  hello.process = std::uint32_t(::getpid());
  hello.token = *token_;
  hello.token_at = reinterpret_cast<std::uintptr_t>(token_->data());
  hello.door = door_ != nullptr && door_->fd() >= 0 ? std::uint32_t(door_->fd()) : 0;
  hello.ways = allowed_;
  return hello;
}

HostAnswer SameHost::on_hello(PeerId peer, const HostHello& hello) {
  auto& neighbour = neighbours_[peer];
  neighbour.shows = neighbour.vain = 0;
  neighbour.mapped.clear();
  const bool here = allowed_ != 0 && hello.host == host_ && hello.process > 0 && hello.process <= INT32_MAX;
  if (!here) return {};
  neighbour.process = int(hello.process);
  const auto both = LocalWays(hello.ways & allowed_);
  if ((both & read_process) != 0 && can_read(hello)) neighbour.shows |= read_process;
  if ((both & map_segment) != 0 && can_map(hello)) neighbour.shows |= map_segment;
  neighbour.vain = LocalWays(both & ~neighbour.shows);
  return {neighbour.shows};
}

LocalWays SameHost::lacking(PeerId peer) {
  const auto it = neighbours_.find(peer);
  if (it == neighbours_.end() || it->second.vain == 0 || !told_.insert(peer).second) return 0;
  return it->second.vain;
}

void SameHost::on_answer(PeerId peer, const HostAnswer& answer) {
  neighbours_[peer].takes = LocalWays(answer.ways & allowed_);
}

LocalWays SameHost::ways(PeerId peer) const {
  const auto it = neighbours_.find(peer);
  return it == neighbours_.end() ? LocalWays(0) : it->second.takes;
}

// ---- giving ----

std::optional<SameHost::Offer> SameHost::offer(PeerId peer, const std::uint8_t* data, std::size_t bytes) {
  if (bytes < offer_from) return std::nullopt;
  const auto it = neighbours_.find(peer);
  if (it == neighbours_.end() || it->second.takes == 0) return std::nullopt;
  auto& neighbour = it->second;
  if ((neighbour.takes & map_segment) != 0)
    if (const auto place = SharedMemory::instance().find(data, bytes)) {
      Offer offer{place->segment.number, place->offset, std::nullopt};
      if (neighbour.shown.contains(place->segment.number)) return offer;
      if (neighbour.shown.size() < limits::segments_max) {
        neighbour.shown.insert(place->segment.number);
        offer.show = SegmentAt{place->segment.number, std::uint32_t(place->segment.fd), place->segment.bytes};
        return offer;
      }
    }
  if ((neighbour.takes & read_process) == 0) return std::nullopt;
  return Offer{0, reinterpret_cast<std::uintptr_t>(data), std::nullopt};
}

bool SameHost::may_read(PeerId peer, std::size_t bytes) const {
  return bytes >= offer_from && (ways(peer) & read_process) != 0;
}

void SameHost::show_again(PeerId peer) {
  if (const auto it = neighbours_.find(peer); it != neighbours_.end()) it->second.shown.clear();
}

void SameHost::failing(PeerId peer, LocalWays ways) {
  if (const auto it = neighbours_.find(peer); it != neighbours_.end())
    it->second.takes = LocalWays(it->second.takes & ~ways);
}

std::vector<std::pair<PeerId, SegmentGone>> SameHost::forgotten() {
  std::vector<std::pair<PeerId, SegmentGone>> gone;
  for (auto& [peer, neighbour] : neighbours_)
    std::erase_if(neighbour.shown, [&, to = peer](std::uint32_t segment) {
      if (SharedMemory::instance().exists(segment)) return false;
      gone.emplace_back(to, SegmentGone{segment});
      return true;
    });
  return gone;
}

// ---- taking ----

bool SameHost::on_segment(PeerId peer, const SegmentAt& shown) {
  auto& neighbour = neighbours_[peer];
  if ((neighbour.shows & map_segment) == 0 || shown.segment == 0) return false;
  if (neighbour.mapped.contains(shown.segment)) return true;  // said twice, as a stripe broke
  if (neighbour.mapped.size() >= limits::segments_max) return false;
  neighbour.mapped[shown.segment] = ForeignSegment::map(neighbour.process, shown.descriptor, shown.bytes);
  return true;
}

void SameHost::on_segment_gone(PeerId peer, const SegmentGone& gone) {
  if (const auto it = neighbours_.find(peer); it != neighbours_.end()) it->second.mapped.erase(gone.segment);
}

SameHost::Source SameHost::locate(PeerId peer, const ChunkAt& chunk) const {
  const auto it = neighbours_.find(peer);
  if (it == neighbours_.end()) return Unreachable{};
  const auto& neighbour = it->second;
  if (chunk.segment == 0) {
    if ((neighbour.shows & read_process) == 0) return Unreachable{read_process};
    return Remote{neighbour.process, chunk.at};
  }
  const auto found = neighbour.mapped.find(chunk.segment);
  if (found == neighbour.mapped.end()) return Unreachable{};  // what was to show it is on its way
  const auto* data = found->second == nullptr ? nullptr : found->second->at(chunk.at, chunk.header.bytes);
  if (data == nullptr) return Unreachable{map_segment};
  return Mapped{data, found->second};
}

}  // namespace pccl
