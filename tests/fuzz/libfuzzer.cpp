// What libFuzzer calls, in place of tests/cpp/main.cpp: the decoder that PCCL_FUZZ_TARGET names. A check that
// fails ends the program, as libFuzzer wants it. Without a name all of them are listed.
// PCCL_FUZZ_SEEDS=folder: valid inputs are drawn and written there, and nothing else happens.
#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "fuzz/target.hpp"

namespace pccl::check {

void fail(const std::source_location& where, const std::string& what) {
  std::fprintf(stderr, "%s:%u: %s\n", where.file_name(), static_cast<unsigned>(where.line()), what.c_str());
  std::abort();
}

}  // namespace pccl::check

namespace {

constexpr int seeds_drawn = 40;
const pccl::fuzz::Target* target = nullptr;

void write_seeds(const std::string& folder) {
  pccl::Rng rng(1);
  for (int i = 0; i < seeds_drawn; ++i) {
    const auto seed = target->seed(rng);
    std::ofstream out(folder + "/seed-" + std::to_string(i), std::ios::binary);
    out.write(reinterpret_cast<const char*>(seed.data()), std::streamsize(seed.size()));
  }
}

}  // namespace

extern "C" int LLVMFuzzerInitialize(int*, char***) {
  const auto* name = std::getenv("PCCL_FUZZ_TARGET");
  if (name != nullptr) target = pccl::fuzz::target_named(name);
  if (const auto* folder = std::getenv("PCCL_FUZZ_SEEDS"); target != nullptr && folder != nullptr) {
    write_seeds(folder);
    std::exit(0);
  }
  if (target != nullptr) return 0;
  for (const auto& one : pccl::fuzz::targets()) std::printf("%s\n", one.name.c_str());
  std::exit(name == nullptr ? 0 : 2);
}

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  target->run({data, size});
  return 0;
}
