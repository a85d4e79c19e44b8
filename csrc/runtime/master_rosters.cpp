// Of MasterRuntime: its runs and their rosters, from a store or from who comes first, to when nobody is left.
#include <algorithm>

#include "runtime/master_runtime.hpp"

namespace pccl {

void MasterRuntime::each_roster(const std::function<void(Roster&)>& action) const {
  for (const auto& [name, run] : runs_)
    for (const auto& [role, roster] : run.rosters) action(*roster);
}

void MasterRuntime::say_unread(const MasterStore::Records& records) {
  constexpr std::size_t lines_max = 10;
  const auto count = records.unread.size();
  for (std::size_t i = 0; i < std::min(count, lines_max); ++i)
    log_line("a record of the store cannot be read: " + records.unread[i]);
  if (count > 0)
    log_line(std::to_string(count) + " of " + std::to_string(count + records.found.size()) +
             " records of the store cannot be read: the members of these runs are not waited for; make them "
             "readable and start this master again, or remove them");
}

// Those that the store knows, and the trainers of the run without a name.
std::optional<Error> MasterRuntime::restore_runs() {
  if (options_.store) {
    auto records = options_.store->load();
    if (!records) return records.error();
    say_unread(*records);
    for (const auto& bytes : records->found) {
      auto record = decode_run_record(bytes);
      if (!record) {
        log_line("a record of the store is damaged or of another version: its run is forgotten");
        continue;
      }
      auto& roster =
          *start_roster(record->run_name, {.timing = options_.timing,
                                           .rules = {},
                                           .role = record->role,
                                           .run = record->run,
                                           .next_run = record->run,
                                           .restarted = true,
                                           .stored = Stored{record->incarnation, std::move(record->view)}});
      roster.kept = true;
    }
  }
  if (auto trainers = roster_for("", Role::trainer); !trainers) return trainers.error();
  return std::nullopt;
}

// The first who names a run, or comes to it with a role, begins it.
Result<Roster*> MasterRuntime::roster_for(const std::string& run, Role role) {
  const auto known = runs_.find(run);
  if (known != runs_.end())
    if (const auto it = known->second.rosters.find(role); it != known->second.rosters.end())
      return it->second.get();
  if (known == runs_.end() && runs_.size() >= options_.runs_max)
    return Error{ErrorCode::refused, "this master serves " + std::to_string(options_.runs_max) +
                                         " runs already: leave some, or start another master"};
  return begin_roster(run, role);
}

// Where it is in doubt whether those of another role are the run, it waits for that.
Result<Roster*> MasterRuntime::begin_roster(const std::string& run, Role role) {
  auto nonce = net::random_nonce();
  if (!nonce) return nonce.error();
  const auto number = load_little<std::uint64_t>(nonce->data()) | 1;
  const bool older = runs_[run].doubt_of_others(role) != Doubt::none;
  return start_roster(run, {.timing = options_.timing,
                            .rules = {},
                            .role = role,
                            .run = older ? 0 : number,
                            .next_run = number,
                            .restarted = older,
                            .stored = {}});
}

Roster* MasterRuntime::start_roster(const std::string& run, MasterConfig config) {
  auto& roster = runs_[run].rosters[config.role];
  const bool restarted = config.restarted;
  roster = std::make_unique<Roster>(run, std::move(config), *hub_, options_.secret, monotonic_now());
  roster->awaited = restarted;
  roster->master.on_others(runs_[run].doubt_of_others(roster->role), monotonic_now());
  return roster.get();
}

// A member of a run that this master does not know: it was another process's, so its other members come too.
Roster* MasterRuntime::hear_of(Roster& roster, const Register& message) {
  if (!roster.over() || roster.master.run() == message.run) return &roster;
  roster.knocker.close_all();
  return start_roster(std::string(roster.run), {.timing = options_.timing,
                                                .rules = {},
                                                .role = roster.role,
                                                .run = 0,
                                                .next_run = message.run,
                                                .restarted = true,
                                                .stored = {}});
}

// Nobody is in its roster, and the run may be older than this process.
Result<Roster*> MasterRuntime::begin_again_in_doubt(Roster& roster) {
  const bool older = runs_.at(roster.run).doubt_of_others(roster.role) != Doubt::none;
  if (!older || !roster.over() || roster.kept) return &roster;
  roster.knocker.close_all();
  return begin_roster(std::string(roster.run), roster.role);
}

// By the first message, which says who it is. Null: refused.
Roster* MasterRuntime::roster_of(ConnectionId id, const ToMaster& message) {
  if (const auto it = roster_of_.find(id); it != roster_of_.end()) return it->second;
  std::string run;
  if (const auto* join = std::get_if<Join>(&message)) run = join->run_name;
  if (const auto* again = std::get_if<Register>(&message)) run = again->join.run_name;
  auto roster = roster_for(run, role_of(message));
  if (roster && std::holds_alternative<Join>(message)) roster = begin_again_in_doubt(**roster);
  if (!roster) {
    send(id, Refused{roster.error().code, roster.error().text});
    close(id);
    return nullptr;
  }
  if (const auto* again = std::get_if<Register>(&message)) roster = hear_of(**roster, *again);
  roster_of_[id] = *roster;
  ++(*roster)->connections;
  return *roster;
}

void MasterRuntime::forget_runs() {
  if (!std::exchange(somebody_went_, false)) return;
  for (auto it = runs_.begin(); it != runs_.end();) {
    for (const auto& [role, roster] : it->second.rosters)
      if (roster->over()) forget_roster(*roster);
    if (it->first.empty() || !it->second.over()) {
      ++it;
      continue;
    }
    for (const auto& [role, roster] : it->second.rosters) roster->knocker.close_all();
    const std::lock_guard lock(status_mutex_);
    status_.peers.erase(it->first);
    it = runs_.erase(it);
  }
}

// Nobody of it is left. One that heard too few of its last view lets nobody in: the next may begin now.
void MasterRuntime::forget_roster(Roster& roster) {
  if (options_.store && std::exchange(roster.kept, false)) options_.store->forget(roster.key());
  if (!roster.master.recovering()) return;
  roster.knocker.close_all();
  const auto run = roster.run;
  if (!begin_roster(run, roster.role)) somebody_went_ = true;  // no random numbers now: at the next departure
}

}  // namespace pccl
