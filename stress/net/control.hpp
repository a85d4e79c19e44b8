// Commands, one per line of standard input, and their answers on standard output: lines of data, then "ok" or
// "error TEXT".
//
//   link FROM TO KEY VALUE ...   delay_ms jitter_ms rate_mbit queue_ms loss reorder
//   peer PEER KEY VALUE ...      up_mbit down_mbit up_queue_ms down_queue_ms
//   cut FROM TO    restore FROM TO    isolate PEER    reconnect PEER    heal
//   stats          quit
#pragma once
#include <string>

#include "network.hpp"

namespace wan {

class Control {
 public:
  explicit Control(Network& network) : network_(network) {}

  bool is_over() const { return over_; }
  // More of standard input; what to answer.
  std::string take(const std::string& text);

 private:
  std::string run(const std::string& line);
  std::string stats();

  Network& network_;
  std::string rest_;  // of a line that has not ended
  bool over_ = false;
};

}  // namespace wan
