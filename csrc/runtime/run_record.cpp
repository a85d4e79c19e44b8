#include "runtime/run_record.hpp"

#include "base/crc32c.hpp"
#include "wire/codec.hpp"

namespace pccl {

namespace {
// The view's fields are those of the wire, so a store of another protocol version is not read.
constexpr std::uint64_t magic = 0x6e75726c63636370;  // "pcclrun" and a "n"

struct Envelope {
  std::uint64_t magic_number = magic;
  std::uint32_t version = protocol_version;
  std::string run_name;
  Role role = Role::trainer;
  std::uint64_t run = 0;
  std::uint32_t incarnation = 0;
  View view;
  template <class V> void fields(V&& v) {
    v(magic_number), v(version), v(run_name, limits::name_bytes_max), v(role), v(run), v(incarnation),
        v(view);
  }
};
}  // namespace

Bytes encode_run_record(const RunRecord& record) {
  Envelope envelope{.run_name = record.run_name,
                    .role = record.role,
                    .run = record.run,
                    .incarnation = record.incarnation,
                    .view = record.view};
  Bytes bytes;
  bytes.reserve(256);
  wire::Encoder{bytes}(envelope);
  auto sum = crc32c(bytes);
  wire::Encoder{bytes}(sum);
  return bytes;
}

std::optional<RunRecord> decode_run_record(ByteView bytes) {
  std::uint32_t sum = 0;
  if (bytes.size() < sizeof(sum)) return std::nullopt;
  const auto body = bytes.first(bytes.size() - sizeof(sum));
  wire::Decoder{bytes.subspan(body.size())}(sum);
  if (sum != crc32c(body)) return std::nullopt;
  Envelope envelope;
  wire::Decoder decoder{body};
  decoder(envelope);
  const bool ours = envelope.magic_number == magic && envelope.version == protocol_version;
  if (!decoder.complete() || !ours || !envelope.view.consistent()) return std::nullopt;
  if (!envelope.view.members.empty() && envelope.view.members.front().role != envelope.role)
    return std::nullopt;
  return RunRecord{std::move(envelope.run_name), envelope.role, envelope.run, envelope.incarnation,
                   std::move(envelope.view)};
}

}  // namespace pccl
