#include "control.hpp"

#include <sstream>

namespace wan {
namespace {

bool set_link(Link& link, const std::string& key, double value) {
  if (key == "delay_ms") return link.delay_ms = value, true;
  if (key == "jitter_ms") return link.jitter_ms = value, true;
  if (key == "rate_mbit") return link.line.rate_mbit = value, true;
  if (key == "queue_ms") return link.line.queue_ms = value, true;
  if (key == "loss") return link.loss = value, true;
  if (key == "reorder") return link.reorder = value != 0, true;
  return false;
}

bool set_peer(Peer& peer, const std::string& key, double value) {
  if (key == "up_mbit") return peer.up.rate_mbit = value, true;
  if (key == "down_mbit") return peer.down.rate_mbit = value, true;
  if (key == "up_queue_ms") return peer.up.queue_ms = value, true;
  if (key == "down_queue_ms") return peer.down.queue_ms = value, true;
  return false;
}

template <class Set> std::string set_all(std::istringstream& words, Set set) {
  std::string key;
  double value = 0;
  while (words >> key) {
    if (!(words >> value) || !(value >= 0) || !set(key, value)) return "error no setting: " + key + "\n";
  }
  return "ok\n";
}

}  // namespace

std::string Control::take(const std::string& text) {
  rest_ += text;
  std::string answers;
  for (std::size_t end = rest_.find('\n'); end != std::string::npos; end = rest_.find('\n')) {
    answers += run(rest_.substr(0, end));
    rest_.erase(0, end + 1);
  }
  return answers;
}

std::string Control::run(const std::string& line) {
  std::istringstream words(line);
  std::string command;
  words >> command;
  if (command == "stats") return stats() + "ok\n";
  if (command == "quit") return over_ = true, "ok\n";
  if (command == "heal") {
    for (std::size_t i = 0; i < network_.size(); ++i) {
      network_.peer(i).isolated = false;
      for (std::size_t j = 0; j < network_.size(); ++j) network_.link(i, j).set_cut(false);
    }
    return "ok\n";
  }
  std::size_t first = 0, second = 0;
  if (!(words >> first) || first >= network_.size()) return "error no peer in: " + line + "\n";
  if (command == "isolate") return network_.isolate(first), "ok\n";
  if (command == "reconnect") return network_.peer(first).isolated = false, "ok\n";
  if (command == "peer") {
    return set_all(words,
                   [&](auto& key, double value) { return set_peer(network_.peer(first), key, value); });
  }
  if (!(words >> second) || second >= network_.size()) return "error no link in: " + line + "\n";
  Link& link = network_.link(first, second);
  if (command == "cut" || command == "restore") return link.set_cut(command == "cut"), "ok\n";
  if (command != "link") return "error no command: " + line + "\n";
  return set_all(words, [&](auto& key, double value) { return set_link(link, key, value); });
}

// link FROM TO PACKETS BYTES LOST DROPPED CUT, then the network as a whole.
std::string Control::stats() {
  std::ostringstream out;
  for (std::size_t i = 0; i < network_.size(); ++i) {
    for (std::size_t j = 0; j < network_.size(); ++j) {
      const LinkCounters& n = network_.link(i, j).counters;
      if (i == j) continue;
      out << "link " << i << ' ' << j << ' ' << n.packets << ' ' << n.bytes << ' ' << n.lost << ' '
          << n.dropped << ' ' << n.cut << '\n';
    }
  }
  const Lateness& late = network_.lateness();
  const Nanoseconds mean = late.packets ? late.sum / static_cast<Nanoseconds>(late.packets) : 0;
  out << "network " << network_.on_their_way() << ' ' << network_.refused() << ' ' << mean << ' ' << late.max
      << '\n';
  return out.str();
}

}  // namespace wan
