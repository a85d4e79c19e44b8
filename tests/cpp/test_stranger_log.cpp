#include "check.hpp"
#include "runtime/stranger_log.hpp"

using namespace pccl;

TEST(many_strangers_make_one_line_per_second) {
  std::vector<std::string> lines;
  StrangerLog log([&](const std::string& line) { lines.push_back(line); });
  Instant now = 100 * second;
  CHECK_EQ(log.next_deadline(), never);
  log.gone("10.0.0.1:5", "connection reset", now);
  CHECK_EQ(lines, (std::vector<std::string>{"a stranger at 10.0.0.1:5 went away: connection reset"}));
  CHECK_EQ(log.next_deadline(), never);
  for (int i = 0; i < 500; ++i) log.gone("10.0.0.2:6", "it sent garbage", now += millisecond);
  CHECK_EQ(lines.size(), std::size_t{1});
  CHECK_EQ(log.next_deadline(), 101 * second);
  log.tick(101 * second - 1);
  CHECK_EQ(lines.size(), std::size_t{1});
  log.tick(101 * second);
  CHECK_EQ(lines.size(), std::size_t{2});
  CHECK_EQ(lines.back(),
           "500 strangers came and went; the last one at 10.0.0.2:6 went away: it sent garbage");
  CHECK_EQ(log.next_deadline(), never);
  log.gone("10.0.0.3:7", "bye", 103 * second);
  CHECK_EQ(lines.size(), std::size_t{3});
  CHECK_EQ(lines.back(), "a stranger at 10.0.0.3:7 went away: bye");
}
