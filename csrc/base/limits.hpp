// Every maximum, with its reason. Decoders check these before they allocate anything.
#pragma once
#include <cstddef>
#include <cstdint>

namespace pccl::limits {

// Names (islands, hosts, tensors) are for people; longer ones are mistakes.
inline constexpr std::size_t name_bytes_max = 256;
// Error texts name two descriptors at most.
inline constexpr std::size_t text_bytes_max = 4096;
// A host has a handful of interfaces; a peer that offers more is not worth dialling one by one.
inline constexpr std::size_t addresses_max = 8;
// A view names every peer; thousands are the goal, and 1 << 16 of them still make a message of some MiB only.
inline constexpr std::size_t members_max = 1 << 16;
// Peers that are gone and whose reason is still told, and how long it may be: some hundred KiB in all.
inline constexpr std::size_t departures_max = 1 << 10;
inline constexpr std::size_t reason_bytes_max = 512;
// What went wrong in a run, kept for a page that shows the newest of it.
inline constexpr std::size_t failures_kept_max = 50;
// Names in one line for people; the rest is a number.
inline constexpr std::size_t names_told_max = 4;
// Operations that one peer may have open: each costs memory at the master.
inline constexpr std::size_t operations_open_max = 1 << 12;
// Shared states that one peer may offer at the same time: each offer names all its tensors.
inline constexpr std::size_t offers_open_max = 8;
// READYs of operations that this peer has not posted yet: as many as a peer may have open, and so many
// tensors in them.
inline constexpr std::size_t ready_tensors_max = 1 << 20;
// Tensors in one operation or one shared state.
inline constexpr std::size_t tensors_max = 1 << 14;
// Elements of one tensor: chunk numbers and byte counts stay far from overflow.
inline constexpr std::uint64_t elements_max = std::uint64_t{1} << 44;
// Verdicts that a peer remembers until everybody has them.
inline constexpr std::size_t records_max = 1 << 14;
// Peers named by one message (missing, donors, failing links).
inline constexpr std::size_t peers_named_max = 64;
// Breaks that a peer may report in a row while nothing commits: then it goes, so that the others get on.
inline constexpr std::uint32_t complaints_max = 16;
// Numbers that a peer shows of itself; each is a line of a page.
inline constexpr std::size_t figures_max = 32;
// One probe of one link: more tells nothing new, and all other peers wait for it.
inline constexpr std::uint32_t probe_ms_min = 20, probe_ms_max = 2000;
// Blocks of shared state on their way to one peer: far more than it asks for at a time.
inline constexpr std::size_t blocks_in_flight_max = 1 << 10;
// A control message: the largest is a view of members_max peers.
inline constexpr std::size_t message_bytes_max = 16u << 20;
// A message before the sender has proved who it is: nothing but a hello.
inline constexpr std::size_t hello_bytes_max = 4096;
// A chunk of tensor data: large enough for every path, small enough to bound what a link may hold.
inline constexpr std::size_t chunk_bytes_max = 4u << 20;
// Chunk size on fast paths: fits the L2 cache with its reduction's operands (measured: 256 KiB to 1 MiB are
// equal).
inline constexpr std::size_t chunk_bytes_default = 256u << 10;
// Below this a chunk costs more in headers and wake-ups than it gains in overlap.
inline constexpr std::size_t chunk_bytes_min = 4u << 10;
// Groups in which every peer has a link to every other: beyond, links and proofs grow faster than they gain.
inline constexpr std::size_t mesh_max = 16;
// Operations that everybody sends to everybody at once: one hop, and what it costs in bytes does not matter.
inline constexpr std::size_t exchange_bytes_max = 64u << 10;
inline constexpr std::size_t exchange_world_max = 8;
// Parts of sums that wait for other parts, in one operation.
inline constexpr std::size_t fold_bytes_max = 32u << 20;
// Operations up to this size are sent before the receiver said READY; it parks them if it is behind.
inline constexpr std::size_t eager_bytes = 64u << 10;
// Over long distances that much of a larger one leaves before the READY: what a fast line carries in half a
// round trip.
inline constexpr std::size_t head_start_bytes = 6u << 20;
// Larger operations do not fit into what streams send at once at their beginning, and keep each of them busy.
inline constexpr std::size_t bulk_bytes = 512u << 10;
// What a link may park: chunks of operations that are not posted yet, also of views that are not known yet.
// More is a broken peer.
inline constexpr std::size_t parked_bytes_max = 32u << 20;
// Eager operations in flight to a peer that has not posted them; beyond that the sender waits for READY.
inline constexpr std::size_t eager_operations_max = 32;
// Runs that one master serves: the subgroups and pairs of a large job.
inline constexpr std::size_t runs_max = 1 << 12;
// Connections that have not proved anything yet; and of these, from one address: half, so that others still
// get in while somebody takes what there is.
inline constexpr std::size_t strangers_max = 512, strangers_per_address_max = 256;
// Chunks that are offered to one peer of this host by their place and not taken yet: some MiB of messages.
inline constexpr std::size_t references_max = 1 << 10;
// Segments of shared memory that one process may have, and show: each costs a descriptor and a mapping.
inline constexpr std::size_t segments_max = 256;
// TCP streams of one link.
inline constexpr std::size_t stripes_max = 16;
// Of slots that one stripe keeps from being used until what was sent from them has come: a window's worth.
inline constexpr std::size_t held_bytes_max = 4u << 20;

}  // namespace pccl::limits
