// Peers of one host agree on how chunks stay where they are, and what hostile or unlucky ones make of it.
#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>

#include "check.hpp"
#include "collective/executor.hpp"
#include "runtime/plan_choice.hpp"
#include "runtime/same_host.hpp"
#include "runtime/slots.hpp"

namespace pccl {
namespace {

constexpr LocalWays both = read_process | map_segment;
constexpr std::size_t mebibyte = 1u << 20;

// Two peers, 1 and 2, of this process, that have told each other who they are.
struct Pair {
  SameHost one, two;
  explicit Pair(LocalWays a = both, LocalWays b = both, const std::string& label = "")
      : one(a, "here"), two(b, label.empty() ? "here" : label) {
    if (const auto hello = one.hello()) one.on_answer(2, two.on_hello(1, *hello));
    if (const auto hello = two.hello()) two.on_answer(1, one.on_hello(2, *hello));
  }
  // What `two` finds where `one` says that its bytes lie.
  SameHost::Source taken(const std::uint8_t* data, std::size_t bytes) {
    const auto offer = one.offer(2, data, bytes);
    if (!offer) return SameHost::Unreachable{};
    if (offer->show) CHECK(two.on_segment(1, *offer->show));
    return two.locate(1, chunk(*offer, bytes));
  }
  static ChunkAt chunk(const SameHost::Offer& offer, std::size_t bytes) {
    ChunkAt at;
    at.header.bytes = std::uint32_t(bytes);
    at.segment = offer.segment;
    at.at = offer.at;
    return at;
  }
};

bool unreachable(const SameHost::Source& source) {
  return std::holds_alternative<SameHost::Unreachable>(source);
}

class Shared {
 public:
  explicit Shared(std::size_t bytes) : data_(SharedMemory::instance().allocate(bytes)) {}
  ~Shared() {
    if (data_ != nullptr) SharedMemory::instance().free(data_);
  }
  Shared(const Shared&) = delete;
  std::uint8_t* data() const { return data_; }

 private:
  std::uint8_t* data_;
};

TEST(each_end_decides_what_it_can_take) {
  CHECK(Pair(both, both).one.ways(2) == both);
  CHECK(Pair(both, read_process).one.ways(2) == read_process);
  CHECK(Pair(map_segment, both).two.ways(1) == map_segment);
  CHECK(Pair(map_segment, read_process).one.ways(2) == 0);
  CHECK(Pair(both, 0).one.ways(2) == 0);
  CHECK(Pair(both, both, "elsewhere").one.ways(2) == 0);
  CHECK(!SameHost(0, "").hello().has_value());
  Pair pair;
  pair.one.link_lost(2);
  CHECK(pair.one.ways(2) == 0);
}

TEST(a_token_that_is_not_there) {
  SameHost one(both, ""), two(both, "");
  const auto lies = [&](auto change) {
    auto hello = *one.hello();
    change(hello);
    return two.on_hello(1, hello).ways;
  };
  CHECK(lies([](HostHello&) {}) == both);
  CHECK(lies([](HostHello& h) { h.token[3] ^= 1; }) == 0);
  CHECK(two.lacking(1) == both);
  CHECK(two.lacking(1) == 0);  // said once
  CHECK(lies([](HostHello& h) { h.token_at = 8; }) == map_segment);
  CHECK(lies([](HostHello& h) { h.token_at = ~std::uint64_t{0} - 3; }) == map_segment);
  CHECK(lies([](HostHello& h) { h.door = 1 << 20; }) == read_process);
  CHECK(lies([](HostHello& h) { h.process = 0; }) == 0);
  CHECK(lies([](HostHello& h) { h.process = UINT32_MAX; }) == 0);
  CHECK(lies([](HostHello& h) { h.process = 1; }) == 0);
  CHECK(lies([](HostHello& h) { h.host += "x"; }) == 0);
  CHECK(lies([](HostHello& h) { h.ways = 0xff; }) == both);
}

TEST(private_memory_is_read_and_shared_memory_is_mapped) {
  Pair pair;
  std::vector<std::uint8_t> own(mebibyte, 7);
  const auto source = pair.taken(own.data(), own.size());
  REQUIRE(std::holds_alternative<SameHost::Remote>(source));
  const auto& remote = std::get<SameHost::Remote>(source);
  std::vector<std::uint8_t> copy(mebibyte);
  CHECK(read_process_memory(remote.process, remote.address, copy.data(), copy.size()));
  CHECK(copy == own);

  const Shared large(3 * mebibyte), small(200 << 10);
  REQUIRE(large.data() != nullptr && small.data() != nullptr);
  for (const auto* memory : {large.data(), small.data()}) {
    const_cast<std::uint8_t*>(memory)[100] = 42;
    const auto found = pair.taken(memory + 100, 100 << 10);
    REQUIRE(std::holds_alternative<SameHost::Mapped>(found));
    const auto* data = std::get<SameHost::Mapped>(found).data;
    CHECK(data != memory + 100 && data[0] == 42);
    const_cast<std::uint8_t*>(memory)[100] = 43;
    CHECK(data[0] == 43);
  }
  CHECK(!pair.one.offer(2, own.data(), 1000).has_value());  // sending it is cheaper
  pair.one.failing(2, read_process);
  CHECK(!pair.one.offer(2, own.data(), own.size()).has_value());
  CHECK(pair.one.offer(2, large.data(), mebibyte).has_value());
}

TEST(places_outside_of_what_was_shown) {
  Pair pair;
  const Shared memory(2 * mebibyte);
  const auto offer = pair.one.offer(2, memory.data(), mebibyte);
  REQUIRE(offer && offer->show);
  CHECK(!pair.one.offer(2, memory.data(), mebibyte)->show);  // once
  CHECK(unreachable(pair.two.locate(1, Pair::chunk(*offer, mebibyte))));
  CHECK(pair.two.on_segment(1, *offer->show));
  CHECK(pair.two.on_segment(1, *offer->show));  // said again
  pair.one.show_again(2);
  CHECK(pair.one.offer(2, memory.data(), mebibyte)->show == offer->show);
  const auto at = [&](std::uint64_t offset, std::size_t bytes) {
    return pair.two.locate(1, Pair::chunk({offer->segment, offset, {}}, bytes));
  };
  CHECK(!unreachable(at(0, 2 * mebibyte)));
  CHECK(unreachable(at(1, 2 * mebibyte)));
  CHECK(unreachable(at(2 * mebibyte + 1, 0)));
  CHECK(unreachable(at(~std::uint64_t{0}, mebibyte)));
  CHECK(unreachable(pair.two.locate(9, Pair::chunk(*offer, mebibyte))));
  pair.two.on_segment_gone(1, {offer->segment});
  CHECK(unreachable(at(0, mebibyte)));
}

TEST(nobody_maps_without_bound) {
  Pair pair;
  const Shared memory(mebibyte);
  const auto offer = pair.one.offer(2, memory.data(), mebibyte);
  REQUIRE(offer && offer->show);
  auto shown = *offer->show;
  std::size_t accepted = 0;
  for (shown.segment = 1000; accepted <= limits::segments_max && pair.two.on_segment(1, shown);
       ++shown.segment)
    ++accepted;
  CHECK(accepted == limits::segments_max);
  shown.segment = 0;
  CHECK(!Pair().two.on_segment(1, shown));
  CHECK(!Pair(read_process, read_process).two.on_segment(1, *offer->show));
}

// Memory that its owner could make shorter under our feet is not mapped.
TEST(only_sealed_memory_is_mapped) {
  const auto maps = [](int fd, std::uint64_t bytes) {
    return ForeignSegment::map(::getpid(), std::uint32_t(fd), bytes) != nullptr;
  };
  const int fd = ::memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  REQUIRE(fd >= 0);
  REQUIRE(::ftruncate(fd, 8192) == 0);
  CHECK(!maps(fd, 8192));
  REQUIRE(::fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
  CHECK(maps(fd, 8192));
  CHECK(!maps(fd, 8193));
  CHECK(!maps(fd, 0));
  CHECK(::ftruncate(fd, 0) != 0);
  ::close(fd);
  int ends[2];
  REQUIRE(::pipe(ends) == 0);
  CHECK(!maps(ends[0], 1));
  ::close(ends[0]);
  ::close(ends[1]);
  const int file = ::open("/proc/self/exe", O_RDONLY | O_CLOEXEC);
  CHECK(!maps(file, 1));
  ::close(file);
}

TEST(segments_come_and_go) {
  auto& memory = SharedMemory::instance();
  const auto before = memory.bytes();
  Pair pair;
  std::uint32_t number = 0;
  {
    const Shared tensor(mebibyte);
    const auto offer = pair.one.offer(2, tensor.data(), mebibyte);
    REQUIRE(offer && offer->show);
    number = offer->segment;
    CHECK(memory.exists(number) && pair.one.forgotten().empty());
    CHECK(!memory.find(tensor.data() + 1, mebibyte).has_value());
  }
  CHECK(!memory.exists(number) && memory.bytes() == before);
  const auto gone = pair.one.forgotten();
  REQUIRE(gone.size() == 1);
  CHECK(gone[0].first == 2 && gone[0].second.segment == number);
  CHECK(pair.one.forgotten().empty());
}

TEST(a_process_that_is_gone) {
  int ready[2];
  REQUIRE(::pipe(ready) == 0);
  std::uint64_t word = 77;
  const auto child = ::fork();
  if (child == 0) {
    word = 78;
    [[maybe_unused]] const auto told = ::write(ready[1], "x", 1);
    for (;;) ::pause();
  }
  char told = 0;
  REQUIRE(::read(ready[0], &told, 1) == 1);
  std::uint64_t found = 0;
  const auto address = reinterpret_cast<std::uintptr_t>(&word);
  CHECK(read_process_memory(child, address, &found, sizeof found));
  CHECK(found == 78);
  CHECK(!read_process_memory(child, 16, &found, sizeof found));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  CHECK(!read_process_memory(child, address, &found, sizeof found));
  ::close(ready[0]);
  ::close(ready[1]);
}

TEST(a_borrowed_slot_is_given_back_once) {
  SlotPool slots;
  const std::uint8_t theirs[4] = {1, 2, 3, 4};
  const auto keep = std::make_shared<int>(0);
  const auto id = slots.borrow(1, {theirs, keep, 5, 6});
  CHECK(slots.read(id) == theirs && slots.take_given_back().empty());
  auto* own = slots.write(id, 4);
  CHECK(own != theirs && slots.read(id) == own);
  CHECK(keep.use_count() == 2);  // readable until it is said that it was taken
  const auto back = slots.take_given_back();
  REQUIRE(back.size() == 1);
  CHECK(back[0].peer == 5 && back[0].number == 6);
  slots.give(id);
  CHECK(slots.take_given_back().empty());
  slots.borrow(2, {theirs, keep, 5, 7});
  slots.give_all(2);
  CHECK(slots.take_given_back().size() == 1 && slots.used() == 0);
}

TEST(one_place_is_one_host_of_those_who_take_part) {
  View view;
  for (PeerId peer = 1; peer <= 3; ++peer) {
    Member member;
    member.peer = peer;
    member.host = 4;
    member.in_place = true;
    view.members.push_back(member);
  }
  CHECK(in_one_place(view, {1, 2, 3}));
  CHECK(!in_one_place(view, {}));
  CHECK(!in_one_place(view, {1, 9}));
  view.members[2].in_place = false;
  CHECK(!in_one_place(view, {1, 2, 3}) && in_one_place(view, {1, 2}));
  view.members[1].host = 5;
  CHECK(!in_one_place(view, {1, 2}));
  view.members[0].host = view.members[1].host = 0;  // not known
  CHECK(!in_one_place(view, {1, 2}));
}

TEST(a_chunk_that_was_to_land_can_be_sent_again) {
  Executor executor(plan_direct_all_reduce(0, 3, false), Layout({{DType::float32, 3000}}, 3, 4096, false),
                    {});
  std::vector<Work> work;
  executor.start(work);
  const auto& steps = executor.plan().steps;
  std::uint16_t collect = 0;
  while (steps[collect].merge != Merge::collect) ++collect;
  const auto chunk = executor.layout().segment_begin(0);
  const auto bytes = executor.chunk_bytes(chunk, Wire::element);
  const auto lands = [&] {
    return executor.land(std::uint32_t(steps[collect].from), collect, chunk, bytes).kind ==
           Landing::Kind::slot;
  };
  CHECK(executor.parts_missing(collect, chunk) == 2);
  CHECK(lands() && !lands());
  executor.unland(collect, chunk);
  CHECK(lands());
  executor.arrived(collect, chunk, 0, work);
  CHECK(executor.parts_missing(collect, chunk) == 1);
  executor.unland(collect, chunk);
  CHECK(!lands());
  CHECK(executor.parts_missing(std::uint16_t(collect + 2), chunk) == 0);  // the sum itself
}

}  // namespace
}  // namespace pccl
