// What a master's store gives back: any bytes, and such whose checksum is right.
#include <algorithm>

#include "base/crc32c.hpp"
#include "fuzz/target.hpp"
#include "generate.hpp"
#include "runtime/run_record.hpp"

namespace pccl::fuzz {
namespace {

void same_again(ByteView bytes) {
  const auto record = decode_run_record(bytes);
  if (record) HOLDS(std::ranges::equal(encode_run_record(*record), bytes));
}

void run_record(ByteView bytes) {
  same_again(bytes);
  Bytes sealed(bytes.begin(), bytes.end());
  const auto sum = crc32c(sealed);
  sealed.resize(sealed.size() + sizeof sum);
  store_little(sealed.data() + bytes.size(), sum);
  same_again(sealed);
}

// Without its checksum, which comes by itself.
Bytes some_record(Rng& rng) {
  check::Generate generate(rng);
  RunRecord record{"run", rng.next() % 2 == 0 ? Role::trainer : Role::keeper, rng.next(), 3, {}};
  record.view.id = {3, 7};
  for (PeerId peer = 1; peer <= rng.below(4); ++peer) {
    auto member = generate.value<Member>();
    member.peer = peer;
    member.role = record.role;
    record.view.members.push_back(member);
  }
  auto bytes = encode_run_record(record);
  bytes.resize(bytes.size() - sizeof(std::uint32_t));
  return bytes;
}

FUZZ_TARGET(run_record, run_record, some_record);

}  // namespace
}  // namespace pccl::fuzz
