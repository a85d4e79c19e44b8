#include "protocol/cost.hpp"

#include <algorithm>
#include <array>

namespace pccl {

namespace {

using u128 = unsigned __int128;

// Sending and receiving one message, with the wake-up (measured on loopback: 8-12 us).
constexpr Duration message_time = 10 * microsecond;
// One stream's window where buffers have their usual limits: 4 MiB less the kernel's overhead.
constexpr std::uint64_t stream_window_bytes = 3'600'000;
// From here on a path is a WAN: below, switches and not distances make the round trip.
constexpr std::uint32_t wan_rtt_us = 2'000;
// Faster than this, one stream keeps a core busy.
constexpr std::uint64_t ten_gigabit = 1'250'000'000;
// Flows that share an access line never share it evenly, and the slowest decides: per flow beyond the first,
// in sixteenths of the time for the bytes, up to a quarter.
constexpr std::uint32_t sharing_loss_max = 4;
// A chunk on a WAN occupies the line for about so long.
constexpr std::uint64_t wan_chunks_per_second = 500;
constexpr std::uint32_t wan_chunk_max = 64u << 10;
// Smaller parts than this gain nothing by being cut: messages cost more than the overlap saves. But over long
// paths a stream sends little before the first answer, about ten packets and those not at once: what is small
// leaves on several.
constexpr std::uint32_t chunk_worth_cutting = 32u << 10;
constexpr std::uint32_t wan_ways = 8;

// What counts where nothing was measured.
struct Assumed {
  std::uint64_t bandwidth;
  std::uint32_t rtt_us;
};
constexpr std::uint32_t assumed_cpu_ps_per_byte = 260;
constexpr Assumed assumed_host{5'000'000'000, 30};
constexpr Assumed assumed_lan{ten_gigabit, 200};

Duration saturated(u128 nanoseconds) {
  constexpr u128 most = 1'000'000u * u128(second);  // sums of some of these stay far from overflow
  return Duration(std::min(nanoseconds, most));
}

Duration wire_time(u128 bytes, std::uint64_t bandwidth) {
  return saturated((bytes * second + bandwidth - 1) / bandwidth);
}

// What hops and bytes cost on links of one kind. The wire and the processors work at the same time.
struct Lane {
  std::uint64_t bandwidth;
  std::uint32_t rtt_us, cpu_ps_per_byte;
  std::uint32_t loss_sixteenths = 0;

  Duration time(std::uint64_t hops, std::uint64_t messages, u128 bytes) const {
    const auto busy = std::max(wire_time(bytes, bandwidth), saturated(bytes * cpu_ps_per_byte / 1000));
    return saturated(u128(hops) * rtt_us * (microsecond / 2)) + saturated(u128(messages) * message_time) +
           busy / 16 * (16 + loss_sixteenths);
  }
};

std::uint32_t sharing_loss(std::uint32_t peers) {
  return std::min(peers > 2 ? peers - 2 : 0, sharing_loss_max);
}

// Unmeasured values become those of a usual host or local network; what peers cannot have measured is
// bounded.
GroupPaths completed(GroupPaths paths) {
  const auto usual = paths.hosts == 1 ? assumed_host : assumed_lan;
  const auto fill = [](auto& value, auto other) { value = value == 0 ? other : value; };
  fill(paths.ring_bandwidth, paths.mesh_bandwidth);
  fill(paths.ring_bandwidth, usual.bandwidth);
  fill(paths.mesh_bandwidth, paths.ring_bandwidth);
  fill(paths.ring_rtt_us, paths.mesh_rtt_us);
  fill(paths.ring_rtt_us, usual.rtt_us);
  fill(paths.mesh_rtt_us, paths.ring_rtt_us);
  fill(paths.cpu_ps_per_byte, assumed_cpu_ps_per_byte);
  fill(paths.local_bandwidth, assumed_host.bandwidth);
  fill(paths.local_rtt_us, assumed_host.rtt_us);
  return paths;
}

// A link that all its stripes cannot fill is as fast as their windows allow.
std::uint64_t reachable(std::uint64_t bandwidth, std::uint32_t rtt_us) {
  const auto stripes = stripes_of(rtt_us < wan_rtt_us ? Path::lan : Path::wan, bandwidth, rtt_us);
  const auto windows = u128(stripes) * stream_window_bytes * 1'000'000 / std::max(rtt_us, 1u);
  return std::uint64_t(std::max<u128>(std::min<u128>(bandwidth, windows), 1));
}

Lane ring_lane(const GroupPaths& paths) {
  return {reachable(paths.ring_bandwidth, paths.ring_rtt_us), paths.ring_rtt_us, paths.cpu_ps_per_byte};
}
Lane mesh_lane(const GroupPaths& paths, std::uint32_t flows) {
  return {reachable(paths.mesh_bandwidth, paths.mesh_rtt_us), paths.mesh_rtt_us, paths.cpu_ps_per_byte,
          sharing_loss(flows)};
}
Lane local_lane(const GroupPaths& paths) {
  return {paths.local_bandwidth, paths.local_rtt_us, paths.cpu_ps_per_byte, 0};
}

u128 share(std::uint64_t bytes, std::uint32_t peers) { return u128(bytes) * (peers - 1) / peers; }

std::uint64_t sent_bytes(const PlanRequest& request) {
  return request.encoded_bytes != 0 ? request.encoded_bytes : request.bytes;
}

Duration ring_time(const GroupPaths& paths, const PlanRequest& request) {
  const auto others = request.peers - 1;
  if (request.call == Call::broadcast) return ring_lane(paths).time(others, others, sent_bytes(request));
  const auto partial = request.partial_bytes != 0 ? request.partial_bytes : request.bytes;
  const auto bytes = share(partial, request.peers) + share(request.bytes, request.peers);
  return ring_lane(paths).time(2 * std::uint64_t{others}, 2 * std::uint64_t{others}, bytes);
}

// To the owners and from the owners; every contribution goes as elements. A broadcast is cut among the
// others, who then tell each other: the same two hops.
Duration direct_time(const GroupPaths& paths, const PlanRequest& request) {
  const auto lane = mesh_lane(paths, request.peers);
  const auto bytes = 2 * share(sent_bytes(request), request.peers);
  return lane.time(2, 2 * std::uint64_t{request.peers - 1}, bytes);
}

Duration exchange_time(const GroupPaths& paths, const PlanRequest& request) {
  const auto others = request.peers - 1;
  return mesh_lane(paths, request.peers).time(1, others, u128(sent_bytes(request)) * others);
}

// Inside each host to owners, across hosts between those who own the same part, and back inside. The access
// line of a host carries its own copy once, whatever the number of peers behind it.
Duration two_level_time(const GroupPaths& paths, const PlanRequest& request) {
  const std::uint32_t hosts = paths.hosts, inside = paths.host_peers;
  const auto bytes = sent_bytes(request);
  const auto local = local_lane(paths).time(2, 2 * std::uint64_t{inside - 1}, 2 * share(bytes, inside));
  return local + mesh_lane(paths, hosts).time(2, 2 * std::uint64_t{hosts - 1}, 2 * share(bytes, hosts));
}

// Few bytes, or two peers: each sends to the other as many bytes as any plan would, and one hop is what
// counts over long paths.
bool exchangeable(const GroupPaths& paths, const PlanRequest& request) {
  if (request.peers == 2 && request.call == Call::all_reduce && path_of(paths) == Path::wan) return true;
  return request.peers <= limits::exchange_world_max && sent_bytes(request) <= limits::exchange_bytes_max;
}

bool usable(const GroupPaths& paths, const PlanRequest& request, Algorithm algorithm) {
  if ((request.available & only(algorithm)) == 0) return false;
  switch (algorithm) {
    case Algorithm::ring:
    case Algorithm::direct:
      return true;
    case Algorithm::exchange:
      return exchangeable(paths, request);
    case Algorithm::two_level:
      return paths.hosts >= 2 && paths.host_peers >= 2 && request.call == Call::all_reduce;
    case Algorithm::automatic:
      break;
  }
  return false;
}

// Ties go to the first: the plan that needs the fewest links.
constexpr std::array candidates{Algorithm::ring, Algorithm::direct, Algorithm::exchange,
                                Algorithm::two_level};

Algorithm choose_algorithm(const GroupPaths& paths, const PlanHints& hints, const PlanRequest& request) {
  for (const auto wanted : {request.algorithm, hints.algorithm})
    if (usable(paths, request, wanted)) return wanted;
  // Each contribution is quantized once, and each sum once: a ring would do it at every hop.
  if (request.encoded_bytes != 0 && usable(paths, request, Algorithm::direct)) return Algorithm::direct;
  auto best = Algorithm::ring;
  auto least = Duration{INT64_MAX};
  for (const auto algorithm : candidates) {
    const auto predicted = predict(paths, request, algorithm);
    if (!predicted || *predicted >= least) continue;
    least = *predicted;
    best = algorithm;
  }
  return best;
}

std::uint8_t choose_stripes(const GroupPaths& paths, const PlanHints& hints, const PlanRequest& request,
                            Algorithm algorithm) {
  const auto most = std::uint32_t(limits::stripes_max);
  if (hints.stripes != 0) return std::uint8_t(std::min<std::uint32_t>(hints.stripes, most));
  const bool ring = algorithm == Algorithm::ring;
  const auto bandwidth = ring ? paths.ring_bandwidth : paths.mesh_bandwidth;
  const auto stripes = stripes_of(path_of(paths), bandwidth, ring ? paths.ring_rtt_us : paths.mesh_rtt_us);
  if (ring) return stripes;
  // The flows to the other peers are stripes of the access line already.
  const auto flows = std::max((algorithm == Algorithm::two_level ? paths.hosts : request.peers) - 1, 1u);
  return std::uint8_t((stripes + flows - 1) / flows);
}

// The part of the bytes that one flow carries in one step.
std::uint64_t segment_bytes(const PlanRequest& request, Algorithm algorithm) {
  const auto bytes = sent_bytes(request);
  const bool whole =
      algorithm == Algorithm::exchange || (algorithm == Algorithm::ring && request.call == Call::broadcast);
  return whole ? bytes : (bytes + request.peers - 1) / request.peers;
}

std::uint32_t choose_chunk(const GroupPaths& paths, const PlanHints& hints, const PlanRequest& request,
                           Algorithm algorithm, std::uint8_t stripes) {
  std::uint64_t chunk = limits::chunk_bytes_default;
  if (path_of(paths) == Path::wan) {
    const auto bandwidth = algorithm == Algorithm::ring ? paths.ring_bandwidth : paths.mesh_bandwidth;
    chunk = std::clamp<std::uint64_t>(bandwidth / wan_chunks_per_second, chunk_worth_cutting, wan_chunk_max);
  }
  if (hints.chunk_bytes != 0) chunk = hints.chunk_bytes;
  const std::uint64_t lanes = path_of(paths) == Path::host ? 1 : stripes;  // there the others are spares
  const auto segment = segment_bytes(request, algorithm);
  const auto quarter = segment / (4 * lanes);
  const auto least = path_of(paths) == Path::wan
                         ? std::min<std::uint64_t>((segment + wan_ways - 1) / wan_ways, chunk_worth_cutting)
                         : chunk_worth_cutting;
  chunk = std::min(chunk, std::max<std::uint64_t>(quarter, least));
  chunk = std::clamp<std::uint64_t>(chunk, limits::chunk_bytes_min, limits::chunk_bytes_max / 2);
  return std::uint32_t(chunk / 64 * 64);
}

}  // namespace

Path path_of(const GroupPaths& paths) {
  const auto rtt = std::max(paths.ring_rtt_us, paths.mesh_rtt_us);
  if (rtt >= wan_rtt_us) return Path::wan;  // namespaces of one kernel may be far apart
  return paths.hosts == 1 ? Path::host : Path::lan;
}

std::uint8_t stripes_of(Path path, std::uint64_t bandwidth, std::uint32_t rtt_us) {
  if (path == Path::host) return 2;
  if (path == Path::lan) return bandwidth > ten_gigabit ? 4 : 2;
  const auto in_flight = u128(bandwidth) * rtt_us / 1'000'000;
  const auto windows = (in_flight + stream_window_bytes - 1) / stream_window_bytes;
  return std::uint8_t(std::clamp<u128>(4 * windows, 4, limits::stripes_max));
}

std::uint8_t bulk_stripes(std::uint64_t bandwidth, std::uint32_t rtt_us, std::size_t links) {
  if (links < 2) return limits::stripes_max;
  const std::size_t all = bandwidth == 0 ? limits::stripes_max : stripes_of(Path::wan, bandwidth, rtt_us);
  return std::uint8_t(std::max<std::size_t>((all + links - 1) / links, 2));
}

GroupPaths paths_of(const PlanHints& hints, std::uint32_t group) {
  const auto it = std::ranges::find(hints.paths, group, &GroupPaths::group);
  if (it != hints.paths.end()) return *it;
  GroupPaths unknown;
  unknown.group = group;
  return unknown;
}

std::optional<Duration> predict(const GroupPaths& measured, const PlanRequest& request, Algorithm algorithm) {
  const auto paths = completed(measured);
  if (!usable(paths, request, algorithm)) return std::nullopt;
  if (request.peers < 2) return 0;
  switch (algorithm) {
    case Algorithm::direct:
      return direct_time(paths, request);
    case Algorithm::exchange:
      return exchange_time(paths, request);
    case Algorithm::two_level:
      return two_level_time(paths, request);
    case Algorithm::ring:
    case Algorithm::automatic:
      break;
  }
  return ring_time(paths, request);
}

PlanChoice choose_plan(const PlanHints& hints, std::uint32_t group, const PlanRequest& asked) {
  auto request = asked;
  request.peers = std::max(request.peers, 1u);
  if (!hints.mesh) request.available &= only(Algorithm::ring);
  const auto paths = completed(request.deterministic ? GroupPaths{.group = group} : paths_of(hints, group));
  PlanChoice choice;
  choice.algorithm = choose_algorithm(paths, hints, request);
  choice.stripes = choose_stripes(paths, hints, request, choice.algorithm);
  choice.chunk_bytes = choose_chunk(paths, hints, request, choice.algorithm, choice.stripes);
  choice.predicted = predict(paths, request, choice.algorithm).value_or(0);
  return choice;
}

}  // namespace pccl
