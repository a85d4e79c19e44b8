#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <thread>
#include <vector>

#include "check.hpp"
#include "runtime/recorder.hpp"

using namespace pccl;

namespace {

struct Entry {
  std::uint64_t number, at, a, b;
};

std::vector<Entry> entries_of(const Bytes& copied) {
  std::vector<Entry> all;
  for (auto at = Recorder::header_bytes; at + Recorder::entry_bytes <= copied.size();
       at += Recorder::entry_bytes) {
    const auto word = [&](std::size_t i) { return load_little<std::uint64_t>(copied.data() + at + 8 * i); };
    all.push_back({word(0), word(1), word(6), word(7)});
  }
  return all;
}

Event event(std::uint64_t number) {
  return {EventKind::posted, Instant(number), {}, Call::barrier, 1, number * 3, number * 5};
}

struct Folder {
  char path[32] = "/tmp/pccl_recorder_XXXXXX";
  Folder() { REQUIRE(::mkdtemp(path) != nullptr); }
};

}  // namespace

TEST(the_last_events_are_kept) {
  Recorder recorder(8, "");
  for (std::uint64_t i = 1; i <= 21; ++i) recorder.note(event(i));
  auto all = entries_of(recorder.copy());
  std::ranges::sort(all, {}, &Entry::number);
  CHECK_EQ(all.size(), std::size_t{8});
  for (std::size_t i = 0; i < all.size(); ++i) {
    CHECK_EQ(all[i].number, 14 + i);
    CHECK_EQ(all[i].a, 3 * (14 + i));
  }
}

TEST(none_are_recorded_where_there_is_no_room) {
  Recorder recorder(0, "");
  recorder.note(event(1));
  CHECK(recorder.copy().empty());
}

TEST(copies_made_meanwhile_hold_whole_entries) {
  Recorder recorder(16, "");
  std::atomic<bool> stop{false};
  std::thread writer([&] {
    for (std::uint64_t i = 1; !stop; ++i) recorder.note(event(i));
  });
  for (std::uint64_t latest = 0; latest < 200'000;)
    for (const auto& entry : entries_of(recorder.copy())) {
      latest = std::max(latest, entry.number);
      CHECK_EQ(entry.at, entry.number);
      CHECK_EQ(entry.a, entry.number * 3);
      CHECK_EQ(entry.b, entry.number * 5);
    }
  stop = true;
  writer.join();
}

TEST(its_file_holds_what_was_recorded_when_nobody_closes_it) {
  const Folder folder;
  Recorder recorder(4, folder.path);
  REQUIRE(!recorder.file().empty());
  recorder.identify(7, 9, "east");
  recorder.note(event(1));
  std::ifstream file(recorder.file(), std::ios::binary);
  const Bytes held{std::istreambuf_iterator<char>(file), {}};
  CHECK_EQ(held.size(), Recorder::header_bytes + 4 * Recorder::entry_bytes);
  CHECK_EQ(std::string(held.begin(), held.begin() + 8), "PCTRACE1");
  CHECK_EQ(entries_of(held).front().a, std::uint64_t{3});
  const auto dump = recorder.file() + ".1";
  CHECK_EQ(write_trace(dump, recorder.copy()), "");
  CHECK(!write_trace(dump, recorder.copy()).empty());  // it is there: not written over
  ::unlink(dump.c_str());
  ::unlink(recorder.file().c_str());
  ::rmdir(folder.path);
}

TEST(a_folder_that_is_not_there_leaves_it_in_memory) {
  Recorder recorder(4, "/nonexistent/folder");
  CHECK(!recorder.error().empty());
  CHECK(recorder.file().empty());
  recorder.note(event(1));
  CHECK_EQ(entries_of(recorder.copy()).size(), std::size_t{1});
}
