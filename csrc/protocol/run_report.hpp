// What a master knows of its run, copied for people: members, ring, links, operations in flight, and how many
// have ended how.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "protocol/link_matrix.hpp"
#include "protocol/recent_failures.hpp"
#include "wire/values.hpp"

namespace pccl {

// Since this master began.
struct Tally {
  std::uint64_t commits = 0, failures = 0, views = 0, removed = 0;
};

struct MemberReport {
  Member member;
  std::string host_name;
  std::uint32_t process = 0;
  Duration silent = 0;  // nothing was heard of it for so long
  bool connected = false;
  std::vector<Figure> figures;
  std::optional<Call> waits_in;  // the oldest call whose caller has waited for long
};

struct OperationReport {
  OpKey key;
  std::optional<Call> call;  // once somebody waits
  Duration age = 0;          // since the master first heard of it
  std::size_t done = 0, voters = 0;
  std::vector<PeerId> absent;  // who has not come to it, once somebody waits
  std::vector<Hindrance> hindrances;
};

struct FailureReport {
  RecentFailure::Kind kind;
  Duration age = 0;
  std::string text;
};

struct RunLink {
  PeerId from = no_peer, to = no_peer;
  Link link;
};

struct RunReport {
  std::uint64_t run = 0;
  ViewId view;
  std::uint32_t boundaries = 0, waiting = 0;
  const char* phase = "serving";
  std::string door;  // what those there wait for
  Tally tally;
  std::vector<MemberReport> members;
  std::map<std::uint32_t, std::vector<PeerId>> rings;  // by group
  std::vector<RunLink> links;                          // that were measured: at most links_shown_max
  std::vector<OperationReport> operations;             // the oldest first: at most operations_shown_max
  std::size_t operations_open = 0;
  std::vector<FailureReport> failures;  // the newest first

  static constexpr std::size_t links_shown_max = 1 << 12, operations_shown_max = 64;
};

}  // namespace pccl
