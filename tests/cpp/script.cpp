#include "script.hpp"

#include <algorithm>
#include <map>
#include <memory>
#include <sstream>

#include "sim/world.hpp"

namespace pccl::sim {

namespace {

constexpr Duration a_while = 100 * millisecond;  // after each step, unless it says otherwise

using Words = std::vector<std::string>;

Words split(const std::string& text, char by) {
  Words words;
  std::istringstream in(text);
  for (std::string word; std::getline(in, word, by);)
    if (!word.empty()) words.push_back(word);
  return words;
}

std::uint64_t number(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 10); }

Duration duration(const std::string& text) {
  const auto value = Duration(number(text));
  return text.ends_with("ms") ? value * millisecond : value * second;
}

// WORD=VALUE pairs of a line.
class Settings {
 public:
  explicit Settings(const Words& words) {
    for (const auto& word : words)
      if (const auto at = word.find('='); at != std::string::npos)
        values_[word.substr(0, at)] = word.substr(at + 1);
  }
  std::string get(const char* name, const char* otherwise = "") const {
    const auto it = values_.find(name);
    return it == values_.end() ? otherwise : it->second;
  }
  bool has(const char* name) const { return values_.contains(name); }

 private:
  std::map<std::string, std::string> values_;
};

class Player {
 public:
  Player() { scenario_.store = false; }
  std::string play(const std::string& script);

 private:
  void command(const std::string& line);
  void begin(std::uint32_t islands, std::uint32_t island_size);
  void on_each(const Words& words);
  void one(const std::string& verb, Process& process, const Settings& settings);
  void post(Call call, Process& process, const Settings& settings);
  void wake(Process& process);
  void cut(Process& process);
  void break_what(const Words& words);
  void join(const Words& words);
  void join(const std::string& island, std::uint32_t rank, std::uint32_t size, bool reachable);
  void pass(Duration time);
  std::vector<std::string> opening() const;
  void drain_transcript();
  Process& process(const std::string& number_text) {
    return world_->process(std::uint32_t(number(number_text) - 1));
  }

  Scenario scenario_;
  std::unique_ptr<World> world_;
  std::map<std::uint32_t, OpKey> latest_;  // by process
  std::vector<std::string> said_;          // since the last step, in the form of the script
};

// ---- the transcript ----

bool interesting(const std::string& line) {
  for (const auto* noise : {" posts ", " starts ", "FAULT", " is started", " dies", " is admitted",
                            "lost the connection", " attempts "})
    if (line.find(noise) != std::string::npos) return false;
  return !(line[0] == 'p' && line.find(": view ") != std::string::npos);  // its master says so too
}

void Player::drain_transcript() {
  std::vector<std::pair<std::string, std::string>> groups;  // who, what
  for (const auto& line : world_->take_notes()) {
    if (!interesting(line)) continue;
    const auto at = line.find_first_of(" :");
    const auto who = line.substr(0, at), what = line.substr(at);
    const auto same =
        std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.second == what; });
    if (same != groups.end() && who[0] == 'p') {
      auto names = split(same->first, ',');
      names.push_back(who);
      std::sort(names.begin(), names.end());
      names.erase(std::unique(names.begin(), names.end()), names.end());
      same->first.clear();
      for (const auto& name : names) {
        if (!same->first.empty()) same->first += ',';
        same->first += name;
      }
    } else {
      groups.emplace_back(who, what);
    }
  }
  for (const auto& [who, what] : groups) said_.push_back("> " + who + what);
}

bool matches(const std::string& expected, const std::string& actual) {
  const auto gap = expected.find("...");
  if (gap == std::string::npos) return expected == actual;
  if (!actual.starts_with(expected.substr(0, gap))) return false;
  const auto rest = expected.substr(gap + 3);
  for (auto at = gap; at <= actual.size(); ++at)
    if (matches(rest, actual.substr(at))) return true;
  return false;
}

bool begins(const std::string& line) { return line.starts_with("peers ") || line.starts_with("islands "); }

// What every run says first.
std::vector<std::string> Player::opening() const {
  std::vector<std::string> lines;
  const auto trainers = world_->processes() - scenario_.keepers;
  const auto begin = [&](const std::string& whose, std::uint32_t first, std::uint32_t end) {
    std::string peers;
    for (auto i = first; i < end; ++i) {
      if (i > first) peers += ',';
      peers += numbered('p', i);
    }
    const auto at = lines.begin() + std::ptrdiff_t(lines.size() / 2);  // what the master says comes first
    lines.insert(at,
                 "> m1: " + whose + "view 1 of " + std::to_string(end - first) + " peers: the run begins");
    lines.push_back("> " + peers + " view 0.1[" + peers + "]");
  };
  begin("", 0, trainers);
  if (scenario_.keepers > 0) begin("keepers: ", trainers, world_->processes());
  return lines;
}

std::string Player::play(const std::string& script) {
  std::string transcript;
  std::vector<std::string> wanted;
  bool differs = false;
  const auto settle = [&] {
    if (world_) drain_transcript();
    differs |= !std::equal(wanted.begin(), wanted.end(), said_.begin(), said_.end(), matches);
    for (const auto& line : said_) transcript += "  " + line + "\n";
    wanted.clear();
    said_.clear();
  };
  for (const auto& raw : split(script, '\n')) {
    const auto from = raw.find_first_not_of(' ');
    if (from == std::string::npos) continue;
    const auto line = raw.substr(from);
    if (line[0] == '>') {
      wanted.push_back(line);
      continue;
    }
    if (!wanted.empty()) settle();
    transcript += "  " + line + "\n";
    command(line);
    if (begins(line)) wanted = opening();
  }
  settle();
  if (world_ && !world_->violation().empty()) return "violated: " + world_->violation() + "\n" + transcript;
  return differs ? "another transcript:\n" + transcript : "";
}

// ---- commands ----

void Player::command(const std::string& line) {
  const auto words = split(line, ' ');
  const Settings settings(words);
  if (words[0] == "option") {
    if (settings.has("deadline")) scenario_.timing.deadline_floor = duration(settings.get("deadline"));
    if (settings.has("heartbeat")) scenario_.timing.heartbeat = duration(settings.get("heartbeat"));
    scenario_.store = settings.get("store") == "yes";
    scenario_.keepers = std::uint32_t(number(settings.get("keepers", "0")));
    return;
  }
  const bool at_once = words.back() == "&";
  if (words[0] == "peers")
    begin(std::uint32_t(number(words[1])), 1);
  else if (words[0] == "islands")
    begin(std::uint32_t(number(split(words[1], 'x')[0])), std::uint32_t(number(split(words[1], 'x')[1])));
  else if (words[0] == "after")
    return pass(duration(words[1]));
  else if (words[0] == "break")
    break_what(words);
  else if (words[0] == "join")
    join(words);
  else if (line == "master dies")
    world_->end_master();
  else if (line == "master starts")
    world_->start_master(true);
  else
    on_each(words);
  if (!at_once) pass(a_while);
}

void Player::begin(std::uint32_t islands, std::uint32_t island_size) {
  scenario_.islands = islands;
  scenario_.island_size = island_size;
  scenario_.prompt = true;
  scenario_.data = scenario_.control = {100 * microsecond, 1, 1, 0};
  world_ = std::make_unique<World>(scenario_);
  world_->record();
  world_->start();
  for (std::uint32_t i = 0; i < world_->processes(); ++i) world_->process(i).scripted = true;
}

void Player::pass(Duration time) {
  const auto until = world_->now() + time;
  while (!world_->queue.empty() && world_->queue.next() <= until) world_->queue.step();
  world_->queue.advance(until);
}

void Player::on_each(const Words& words) {
  const Settings settings(words);
  const auto on = std::find(words.begin(), words.end(), "on");
  if (on == words.end() || on + 1 == words.end())
    return world_->violated("what does '" + words[0] + "' mean?");
  for (const auto& who : split(on[1], ',')) one(words[0], process(who), settings);
}

void Player::one(const std::string& verb, Process& process, const Settings& settings) {
  const std::map<std::string, Call> calls = {{"all_reduce", Call::all_reduce},
                                             {"broadcast", Call::broadcast},
                                             {"barrier", Call::barrier},
                                             {"sync_state", Call::sync_state}};
  auto& session = process.session;
  const auto now = world_->now();
  session.set_stuck(true);  // a script's peers have one thread, which waits in the call
  if (const auto call = calls.find(verb); call != calls.end()) return post(call->second, process, settings);
  if (verb == "kill") return process.end(false);
  if (verb == "silence") return process.end(true);
  const auto& identity = process.session.identity();
  if (verb == "again") return join(identity.island, identity.island_rank, identity.island_size, true);
  if (verb == "oversleep")
    process.oversleeps = true;
  else if (verb == "wake")
    wake(process);
  else if (verb == "cut")
    cut(process);
  else if (verb == "mend")
    process.cut_off = false;
  else if (verb == "leave")
    session.leave(now);
  else if (verb == "leave_boundary")
    session.leave_boundary(now);
  else if (verb == "cancel")
    session.abandon(latest_[process.index], ErrorCode::cancelled, process.name() + " cancelled it", now);
  else if (verb == "update_topology") {
    const auto timeout = settings.has("timeout") ? duration(settings.get("timeout")) : never;
    const auto entered =
        session.enter_boundary(std::uint32_t(number(settings.get("islands", "0"))), timeout, now);
    if (!entered) world_->note(process.name() + " may not: " + entered.error().text);
  } else {
    world_->violated("what does '" + verb + "' mean?");
  }
  process.drain();
}

void Player::post(Call call, Process& process, const Settings& settings) {
  Intent intent;
  intent.call = call;
  if (call == Call::all_reduce || call == Call::broadcast)
    intent.tensors = {{DType::float32, number(settings.get("count", "1000"))}};
  if (settings.has("tag"))
    intent.name = std::uint32_t(number(settings.get("tag")) + 1);  // 0 is the automatic one
  intent.root = std::uint32_t(number(settings.get("root", "1")) - 1);
  if (settings.get("scope") == "run") intent.scope = Scope::run;
  if (settings.get("on_loss") == "raise") intent.on_loss = OnLoss::raise;
  if (settings.get("on_loss") == "remake") intent.on_loss = OnLoss::remake;
  if (settings.has("timeout")) intent.timeout = duration(settings.get("timeout"));
  const auto key = process.post(intent);
  if (key)
    latest_[process.index] = key.value();
  else
    world_->note(process.name() + " may not: " + key.error().text);
}

void Player::wake(Process& process) {
  process.oversleeps = false;
  for (const auto& key : std::exchange(process.overslept, {})) process.complete(key);
}

void Player::cut(Process& process) {
  process.cut_off = true;
  if (process.control != UINT32_MAX) world_->controls.lose(process.control);
}

void Player::break_what(const Words& words) {
  const auto ends = split(words[2], '-');
  auto& first = process(ends[0]);
  const auto link = first.links.find(process(ends[1]).session.peer());
  if (link == first.links.end()) return world_->violated("there is no link " + words[2]);
  const bool both = words[1] == "link", dialled = world_->links.at(link->second).ends[0].process == &first;
  world_->links.lose(link->second, both || dialled, both || !dialled);
}

void Player::join(const Words& words) {
  if (words.size() == 4)
    join(words[1], std::uint32_t(number(words[2])), std::uint32_t(number(words[3])), true);
  else
    join("", 0, 1, words.size() == 1);
}

void Player::join(const std::string& island, std::uint32_t rank, std::uint32_t size, bool reachable) {
  auto& joiner = world_->add_process(island, std::uint16_t(rank), std::uint16_t(size), 1);
  joiner.scripted = true;
  joiner.reaches_others = reachable;
  world_->controls.dial(joiner);
}

}  // namespace

std::string play(const std::string& script) { return Player().play(script); }

}  // namespace pccl::sim
