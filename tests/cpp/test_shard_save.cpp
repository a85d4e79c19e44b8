// One save of one file, through a real folder and through disks that fail: the name appears only with the
// whole content, errors arrive, and slabs come back. (tests/unit/test_staging.py kills the process, too.)

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "check.hpp"
#include "disk/injected_disk.hpp"
#include "runtime/shard_save.hpp"
#include "staging_fixture.hpp"

using namespace pccl;
using namespace pccl::check;

namespace {

namespace fs = std::filesystem;

class Folder {
 public:
  Folder() {
    char name[] = "/tmp/pccl_save_XXXXXX";
    REQUIRE(::mkdtemp(name) != nullptr);
    path_ = name;
  }
  ~Folder() { fs::remove_all(path_); }
  std::string operator/(const char* name) const { return (path_ / name).string(); }
  std::size_t files() const {
    return static_cast<std::size_t>(std::distance(fs::directory_iterator(path_), fs::directory_iterator()));
  }

 private:
  fs::path path_;
};

std::vector<std::uint8_t> content(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

SaveSpec spec_of(const State& state, std::string path, std::string recycle = "") {
  return {.path = std::move(path), .recycle = std::move(recycle), .capture = state.spec()};
}

std::unique_ptr<ShardSave> started(const std::shared_ptr<StagingPool>& pool, disk::Disk& disk,
                                   SaveSpec spec) {
  auto save = ShardSave::make(pool, disk, std::move(spec));
  REQUIRE(bool(save));
  REQUIRE(!(*save)->start());
  return std::move(*save);
}

disk::InjectedDisk failing(const char* script) {
  auto faults = disk::parse_faults(script);
  REQUIRE(bool(faults));
  return disk::InjectedDisk(std::move(*faults));
}

// What a save over `disk` says in the end; all slabs are back then, and no file is left.
Error outcome(const char* script) {
  const Folder folder;
  const auto pool = make_pool(3);
  auto disk = failing(script);
  State state(std::vector<std::size_t>(12, 60'000), 3);
  const auto save = started(pool, disk, spec_of(state, folder / "a"));
  CHECK(save->capture().fence(std::nullopt, in_seconds(20)));
  state.overwrite_all();
  const auto receipt = save->wait_durable(in_seconds(20));
  CHECK_EQ(pool->free(), 3);
  CHECK_EQ(folder.files(), receipt ? 1 : 0);
  return receipt ? Error{} : receipt.error();
}

}  // namespace

TEST(the_file_and_its_receipt) {
  for (std::uint64_t seed = 1; seed <= 8; ++seed) {
    const Folder folder;
    const auto pool = make_pool(1 + seed % 3);
    State state(random_sizes(seed, 30, 60'000), seed);
    const auto save = started(pool, disk::system_disk(), spec_of(state, folder / "a"));
    CHECK(save->capture().fence(std::nullopt, in_seconds(20)));
    state.overwrite_all();
    const auto receipt = save->wait_durable(in_seconds(20));
    REQUIRE(bool(receipt) && receipt.value() != nullptr);
    CHECK(content(folder / "a") == state.expected);
    CHECK_EQ(folder.files(), 1);
    CHECK_EQ(receipt.value()->bytes, state.expected.size());
    CHECK(receipt.value()->block_crcs == save->capture().block_crcs());
    CHECK(receipt.value()->durable_seconds >= receipt.value()->staged_seconds);
    CHECK_EQ(pool->free(), pool->slabs());
    save->cancel();  // too late, and nothing happens
    CHECK(content(folder / "a") == state.expected);
  }
}

TEST(a_retired_file_is_used_again) {
  const Folder folder;
  const auto pool = make_pool(2);
  const State old_state(std::vector<std::size_t>(9, 60'000), 1), state({300'000}, 2);
  CHECK(bool(
      started(pool, disk::system_disk(), spec_of(old_state, folder / "old"))->wait_durable(in_seconds(20))));
  const auto save = started(pool, disk::system_disk(), spec_of(state, folder / "new", folder / "old"));
  const auto receipt = save->wait_durable(in_seconds(20));
  REQUIRE(bool(receipt) && receipt.value() != nullptr);
  CHECK(receipt.value()->recycled);
  CHECK(content(folder / "new") == state.expected);
  CHECK_EQ(folder.files(), 1);
}

TEST(errors_of_the_disk_arrive) {
  for (const char* script : {"open * EACCES", "pwrite 3+ ENOSPC", "pwrite * EIO", "fdatasync * EIO",
                             "close * EIO", "rename * EROFS", "allocate * ENOSPC"}) {
    const Error error = outcome(script);
    if (!error) std::printf("no error of %s\n", script);
    CHECK_EQ(error.code, ErrorCode::checkpoint);
    CHECK(error.text.find("/a") != std::string::npos);
  }
  CHECK(!outcome("pwrite * cut 5000"));
  CHECK(!outcome("pwrite * delay 1; open 1 delay 50"));
}

TEST(a_folder_is_made_and_one_whose_step_exists_is_left_alone) {
  const Folder folder;
  const auto pool = make_pool(2);
  const State state({300'000}, 2);
  const auto outcome_in = [&](const char* path, disk::Disk& disk, std::string recycle = "") {
    auto spec = spec_of(state, folder / path, std::move(recycle));
    spec.exists_by = "mark";
    const auto receipt = started(pool, disk, std::move(spec))->wait_durable(in_seconds(20));
    return receipt ? Error{} : receipt.error();
  };
  CHECK(!outcome_in("step/a", disk::system_disk()));
  CHECK(!outcome_in("step/b", disk::system_disk()));  // another rank's, in the same folder
  CHECK(content(folder / "step/a") == state.expected && content(folder / "step/b") == state.expected);
  std::ofstream(folder / "step/mark") << "it exists";
  std::ofstream(folder / "step/a") << "as it was";
  const auto error = outcome_in("step/a", disk::system_disk());
  CHECK(error.text.find("step exists already") != std::string::npos);
  CHECK_EQ(content(folder / "step/a").size(), 9);
  CHECK(!fs::exists(folder / "step/a.part"));

  auto full = failing("mkdir * ENOSPC");
  CHECK_EQ(outcome_in("next/a", full, folder / "step/b").code, ErrorCode::checkpoint);
  CHECK(!fs::exists(folder / "step/b"));  // nobody would write over it any more
  CHECK_EQ(pool->free(), 2);
}

TEST(cancelled_at_any_time) {
  for (int turn = 0; turn < 20; ++turn) {
    const Folder folder;
    const auto pool = make_pool(2);
    auto disk = failing("pwrite * delay 3; open * delay 2");
    State state(std::vector<std::size_t>(12, 60'000), 4);
    auto save = started(pool, disk, spec_of(state, folder / "a"));
    if (turn > 0) std::this_thread::sleep_for(std::chrono::milliseconds(turn));
    save->cancel();
    state.overwrite_all();
    if (turn % 2 == 0) {
      const auto receipt = save->wait_durable(in_seconds(20));
      CHECK(!receipt && receipt.error().text.find("cancelled") != std::string::npos);
    }
    save.reset();
    CHECK_EQ(folder.files(), 0);
    CHECK_EQ(pool->free(), 2);
  }
}

TEST(nobody_waits_beyond_the_deadline) {
  const Folder folder;
  const auto pool = make_pool(1);
  auto disk = failing("pwrite * delay 200");
  const State state(std::vector<std::size_t>(12, 60'000), 5);
  const auto save = started(pool, disk, spec_of(state, folder / "a"));
  const auto before = monotonic_now();
  CHECK(!save->capture().fence(std::nullopt, in_seconds(0.02)));
  const auto staged = save->wait_staged(in_seconds(0.02));
  CHECK(bool(staged) && !staged.value());
  const auto durable = save->wait_durable(in_seconds(0.02));
  CHECK(bool(durable) && durable.value() == nullptr);
  CHECK(monotonic_now() - before < 5 * second);
}
