#include "sim/flavours.hpp"

#include <algorithm>

namespace pccl::sim {

namespace {

// Weights of faults, in the order of FaultKind.
using Weights = std::vector<double>;

Flavour make(const char* name, std::uint32_t faults_min, std::uint32_t faults_max, Weights weights) {
  Flavour flavour;
  flavour.name = name;
  flavour.faults_min = faults_min;
  flavour.faults_max = faults_max;
  flavour.weights = std::move(weights);
  return flavour;
}

// Broadcasts: their root holds the result while the others still depend on its frames.
Flavour links() {
  auto flavour = make("links", 3, 8, {0, 0, 0, 1, 4, 1, 0, 0, 0, 0, 0});
  flavour.island_runs = 0;
  flavour.shape.broadcast = 0.6;
  return flavour;
}

Flavour joins() {
  auto flavour = make("joins", 3, 8, {0.5, 0, 0, 0, 0, 1, 0.3, 0, 4, 0.3, 0, 2});
  flavour.shape.sloppy = 0.5;
  flavour.shape.raise = 0.3;
  return flavour;
}

// Masters that die and come back, or another one that some come to; also with keepers.
Flavour masters() {
  auto flavour = make("masters", 1, 5, {1, 0, 0, 0, 0, 2, 3, 1, 1, 0, 0});
  flavour.keepers = 0.4;
  return flavour;
}

Flavour slow() {
  auto flavour = make("slow", 2, 6, {1, 1, 6, 1, 1, 3, 0.5, 0, 2, 0.3, 0.3, 1});
  flavour.tail_max = 3 * second;
  flavour.tail_chance_max = 0.2;
  flavour.slow_control = 0.6;
  return flavour;
}

// Synchronizations of a shared state, whose donors die.
Flavour state() {
  auto flavour = make("state", 0, 6, {3, 0.5, 0.5, 2, 2, 1, 0.5, 0, 1.5, 0.2, 0.5});
  flavour.shape.sync_state = 0.6;
  flavour.shape.broadcast = flavour.shape.barrier = 0.05;
  return flavour;
}

// Links are measured all the time, and every other boundary brings another order and other hints.
Flavour topology() {
  auto flavour = make("topology", 1, 6, {2, 0.5, 1, 1, 1.5, 1.5, 0.5, 0, 2, 0.3, 0.3, 1});
  flavour.peers_min = 3;
  flavour.peers_max = 5;
  flavour.shape.report = 0.7;
  flavour.shape.probe = 0.4;
  return flavour;
}

// Calls in blocks and transfers, whose peers die, over links that are made for them and break.
Flavour blocks() {
  auto flavour = make("blocks", 0, 6, {3, 0.5, 0.5, 2, 2, 1, 0.5, 0, 1.5, 0.2, 0.5, 0.5});
  flavour.peers_max = 5;
  flavour.shape.broadcast = flavour.shape.barrier = flavour.shape.sync_state = 0.03;
  flavour.shape.blocks = 0.6;
  flavour.shape.transfers = 0.6;
  return flavour;
}

// Trainers and keepers with one master, of which only the ones or only the others are struck.
Flavour keepers() {
  auto flavour = make("keepers", 1, 6, {3, 1, 1, 2, 2, 2, 0, 0, 2, 0.3, 0.5, 1});
  flavour.keepers = 1;
  flavour.one_role = true;
  flavour.tail_max = 200 * millisecond;
  auto& shape = flavour.shape;
  shape.cancel = shape.timeout = shape.raise = shape.impatient = shape.leave = 0;
  return flavour;
}

}  // namespace

const std::vector<Flavour>& flavours() {
  static const std::vector<Flavour> all = {
      make("mixed", 0, 4, {3, 1, 1, 2, 2, 2, 2, 0.5, 2, 0.3, 0.5, 0.5}),
      links(),
      joins(),
      masters(),
      slow(),
      state(),
      topology(),
      blocks(),
      keepers(),
  };
  return all;
}

const Flavour& flavour_named(const std::string& name) {
  return *std::find_if(flavours().begin(), flavours().end(),
                       [&](const Flavour& f) { return f.name == name; });
}

std::vector<NumberedRule> numbered_rules() {
  return {
      {"drop_older_views", &Rules::drop_older_views, "mixed"},
      {"park_newer", &Rules::park_newer, "mixed"},
      {"view_restarts_all", &Rules::view_restarts_all, "mixed"},
      {"commits_precede_view", &Rules::commits_precede_view, "masters"},
      {"all_members_done", &Rules::all_members_done, "mixed"},
      {"lost_link_ends_view", &Rules::lost_link_ends_view, "links"},
      {"recover_commits_first", &Rules::recover_commits_first, "masters"},
      {"order_by_incarnation", &Rules::order_by_incarnation, "masters"},
      {"quorum", &Rules::quorum, "masters"},
      {"roles_doubt_together", &Rules::roles_doubt_together, "masters"},
      {"waiting_is_recorded", &Rules::waiting_is_recorded, "joins"},
      {"skip_only_on_shared_record", &Rules::skip_only_on_shared_record, "joins"},
      {"no_boundary_in_flight", &Rules::no_boundary_in_flight, "joins"},
      {"resend_boundary", &Rules::resend_boundary, "mixed"},
      {"undo", &Rules::undo, "mixed"},
      {"ask_to_remake", &Rules::ask_to_remake, "mixed"},
  };
}

}  // namespace pccl::sim
