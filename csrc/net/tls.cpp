#include "net/tls.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <string_view>

namespace pccl::net {
namespace {

// Numbers of OpenSSL's headers.
constexpr int bio_source_sink = 0x0400, bio_flush = 11;
constexpr int bio_read_again = 0x01 | 0x08, bio_write_again = 0x02 | 0x08, bio_all_flags = 0x0f;
constexpr int ctrl_session_cache = 44, ctrl_set_groups = 92, ctrl_min_version = 123, ctrl_max_version = 124;
constexpr long session_cache_off = 0, tls_1_3 = 0x0304;
constexpr std::uint64_t op_no_ticket = 1u << 14;
constexpr int verify_peer = 1;
constexpr int error_want_read = 2, error_want_write = 3;
constexpr unsigned long reason_mask = 0x7fffff;
constexpr unsigned long reason_binder = 253;                                     // seen by who is dialled
constexpr unsigned long reason_told_illegal = 1047, reason_told_decrypt = 1051;  // and told to the dialler

constexpr char identity[] = "pccl_py";
constexpr std::string_view export_label = "EXPORTER-pccl_py records";
// Smaller parts are put together, larger ones are read where they are, and get records of their own: so the
// other side finds them where they belong.
constexpr std::size_t large_part_bytes = 16u << 10;

Error no_memory() { return {ErrorCode::internal, "OpenSSL has no memory for another connection"}; }

}  // namespace

// What OpenSSL calls: its sink and source are the machine's two buffers.
struct TlsCallbacks {
  static Tls& of(const TlsLibrary& library, bio_st* bio) {
    return *static_cast<Tls*>(library.BIO_get_data(bio));
  }
  static const TlsLibrary& library() { return *tls_library().value(); }

  static int read(bio_st* bio, char* to, int bytes) {
    const auto& all = library();
    auto& tls = of(all, bio);
    all.BIO_clear_flags(bio, bio_all_flags);
    const auto part = std::min(tls.in_end_ - tls.in_begin_, std::size_t(std::max(bytes, 0)));
    if (part == 0) {
      all.BIO_set_flags(bio, bio_read_again);
      return -1;
    }
    std::memcpy(to, tls.in_.get() + tls.in_begin_, part);
    tls.in_begin_ += part;
    return int(part);
  }

  static int write(bio_st* bio, const char* from, int bytes) {
    const auto& all = library();
    auto& tls = of(all, bio);
    all.BIO_clear_flags(bio, bio_all_flags);
    const auto room = Tls::out_bytes + Tls::out_spare - tls.out_end_;
    if (bytes <= 0 || std::size_t(bytes) > room) {
      all.BIO_set_flags(bio, bio_write_again);
      return -1;
    }
    std::memcpy(tls.out_.get() + tls.out_end_, from, std::size_t(bytes));
    tls.out_end_ += std::size_t(bytes);
    return bytes;
  }

  static long control(bio_st*, int command, long, void*) { return command == bio_flush ? 1 : 0; }

  static unsigned give_key(ssl_st* ssl, unsigned char* key, unsigned key_max) {
    const auto& all = library();
    const auto& mine = of(all, all.SSL_get_rbio(ssl)).key_;
    if (key_max < mine.size()) return 0;
    std::ranges::copy(mine, key);
    return unsigned(mine.size());
  }

  static unsigned key_of_client(ssl_st* ssl, const char*, char* name, unsigned name_max, unsigned char* key,
                                unsigned key_max) {
    if (name_max < sizeof identity) return 0;
    std::memcpy(name, identity, sizeof identity);
    return give_key(ssl, key, key_max);
  }

  static unsigned key_of_server(ssl_st* ssl, const char* name, unsigned char* key, unsigned key_max) {
    if (name == nullptr || std::strcmp(name, identity) != 0) return 0;
    return give_key(ssl, key, key_max);
  }
};

namespace {

// What all connections of the process share; never freed, as threads may still run when the process ends.
struct Shared {
  const TlsLibrary* library = nullptr;
  ssl_ctx_st* context = nullptr;
  bio_method_st* buffers = nullptr;
};

// One version, one cipher, no certificate that could be accepted, no tickets, nothing before the handshake.
bool configure(const TlsLibrary& all, ssl_ctx_st* context) {
  char groups[] = "X25519:P-256";
  all.SSL_CTX_set_options(context, op_no_ticket);
  all.SSL_CTX_ctrl(context, ctrl_session_cache, session_cache_off, nullptr);
  all.SSL_CTX_set_psk_client_callback(context, &TlsCallbacks::key_of_client);
  all.SSL_CTX_set_psk_server_callback(context, &TlsCallbacks::key_of_server);
  return all.SSL_CTX_ctrl(context, ctrl_min_version, tls_1_3, nullptr) == 1 &&
         all.SSL_CTX_ctrl(context, ctrl_max_version, tls_1_3, nullptr) == 1 &&
         all.SSL_CTX_ctrl(context, ctrl_set_groups, 0, groups) == 1 &&
         all.SSL_CTX_set_ciphersuites(context, "TLS_AES_128_GCM_SHA256") == 1 &&
         all.SSL_CTX_set_num_tickets(context, 0) == 1;
}

Result<Shared> make_shared_part() {
  const auto found = tls_library();
  if (!found) return found.error();
  const auto& all = *found.value();
  Shared shared{&all, all.SSL_CTX_new(all.TLS_method()),
                all.BIO_meth_new(all.BIO_get_new_index() | bio_source_sink, "pccl_py")};
  if (shared.context == nullptr || shared.buffers == nullptr) return no_memory();
  all.BIO_meth_set_read(shared.buffers, &TlsCallbacks::read);
  all.BIO_meth_set_write(shared.buffers, &TlsCallbacks::write);
  all.BIO_meth_set_ctrl(shared.buffers, &TlsCallbacks::control);
  if (!configure(all, shared.context))
    return Error{ErrorCode::usage, tls_library_name() +
                                       " refuses TLS 1.3 with AES-128-GCM and a pre-shared key: is it "
                                       "configured (openssl.cnf) to forbid one of them?"};
  return shared;
}

const Result<Shared>& shared_part() {
  static const auto* const once = new Result<Shared>(make_shared_part());
  return *once;
}

}  // namespace

Error Tls::available() { return shared_part() ? Error{} : shared_part().error(); }

Result<std::unique_ptr<Tls>> Tls::create(Side side, const Key& key) {
  const auto& shared = shared_part();
  if (!shared) return shared.error();
  const auto& all = *shared.value().library;
  auto tls = std::unique_ptr<Tls>(new Tls(all, side, key));
  tls->ssl_ = all.SSL_new(shared.value().context);
  bio_st* bio = tls->ssl_ == nullptr ? nullptr : all.BIO_new(shared.value().buffers);
  if (bio == nullptr) return no_memory();
  all.BIO_set_data(bio, tls.get());
  all.BIO_set_init(bio, 1);
  all.SSL_set_bio(tls->ssl_, bio, bio);
  if (side == Side::dialler) {
    all.SSL_set_connect_state(tls->ssl_);
    all.SSL_set_verify(tls->ssl_, verify_peer, nullptr);  // by authorities, of which there is none
  } else {
    all.SSL_set_accept_state(tls->ssl_);
  }
  return tls;
}

Tls::~Tls() {
  if (ssl_ != nullptr) library_.SSL_free(ssl_);
  for (volatile auto& byte : key_) byte = 0;
}

// ---- buffers ----

iovec Tls::room() {
  if (in_begin_ != 0) std::memmove(in_.get(), in_.get() + in_begin_, in_end_ - in_begin_);
  in_end_ -= in_begin_;
  in_begin_ = 0;
  return {in_.get() + in_end_, in_bytes - in_end_};
}

std::size_t Tls::arrived_now(ByteView bytes) {
  const auto free = room();
  const auto part = std::min(bytes.size(), free.iov_len);
  std::copy_n(bytes.begin(), part, static_cast<std::uint8_t*>(free.iov_base));
  arrived(part);
  return part;
}

void Tls::sent(std::size_t bytes) {
  out_begin_ += bytes;
  if (out_begin_ == out_end_) out_begin_ = out_end_ = 0;
}

void Tls::put_plain(ByteView bytes) {
  const auto part = std::min(bytes.size(), out_bytes - out_end_);
  std::copy_n(bytes.begin(), part, out_.get() + out_end_);
  out_end_ += part;
}

// ---- the machine ----

// OpenSSL's own reason, and what it means here.
Error Tls::failed(const char* what) {
  const auto code = library_.ERR_peek_error();
  const auto reason = code & reason_mask;
  const char* text = library_.ERR_reason_error_string(code);
  const std::string why = text != nullptr ? text : "no reason given";
  library_.ERR_clear_error();
  if (reason == reason_binder || reason == reason_told_illegal || reason == reason_told_decrypt)
    return {ErrorCode::authentication, "the two sides were given different secrets"};
  return {ErrorCode::authentication, std::string(what) + ": " + why};
}

Result<bool> Tls::handshake() {
  if (done_) return true;
  const auto before = in_begin_;
  library_.ERR_clear_error();
  const int outcome = library_.SSL_do_handshake(ssl_);
  handshake_bytes_ += in_begin_ - before;
  if (outcome == 1) {
    // A key of both is the only thing that counts: no certificate is asked for, and none is trusted.
    if (library_.SSL_session_reused(ssl_) != 1 || library_.SSL_version(ssl_) != tls_1_3)
      return Error{ErrorCode::authentication, "the other side did not prove that it knows the secret"};
    if (auto error = begin_records()) return error;
    return done_ = true;
  }
  const int error = library_.SSL_get_error(ssl_, outcome);
  if (error != error_want_read && error != error_want_write)
    return failed("the encrypted connection could not be begun");
  if (handshake_bytes_ > handshake_bytes_max)
    return Error{ErrorCode::protocol,
                 "the other side says too much before it proves that it knows the secret"};
  return false;
}

// From here on OpenSSL's connection is not needed any more.
Error Tls::begin_records() {
  std::array<std::uint8_t, 2 * sizeof(Records::Secret)> both;  // the dialler's, the acceptor's
  if (library_.SSL_export_keying_material(ssl_, both.data(), both.size(), export_label.data(),
                                          export_label.size(), nullptr, 0, 0) != 1)
    return failed("the encrypted connection gave no keys");
  Records::Secret mine, theirs;
  const auto half = both.begin() + sizeof mine;
  std::copy(both.begin(), half, (side_ == Side::dialler ? mine : theirs).begin());
  std::copy(half, both.end(), (side_ == Side::dialler ? theirs : mine).begin());
  seals_ = Records::create(library_, mine, Records::Way::seal);
  opens_ = Records::create(library_, theirs, Records::Way::open);
  for (volatile auto& byte : both) byte = 0;
  for (auto* secret : {&mine, &theirs})
    for (volatile auto& byte : *secret) byte = 0;
  library_.SSL_free(ssl_);
  ssl_ = nullptr;
  return seals_ != nullptr && opens_ != nullptr ? Error{} : no_memory();
}

// Plain bytes of the record that begins the buffer; 0: it has not come whole. The buffer holds several.
std::size_t Tls::next_record() const {
  const auto have = in_end_ - in_begin_;
  if (have < Records::header_bytes) return 0;
  const auto plain = Records::plain_bytes(in_.get() + in_begin_);
  return have >= plain + Records::overhead ? plain : 0;
}

// Out of a record that did not fit into the parts that there were.
std::size_t Tls::take_opened(iovec& part) {
  const auto bytes = std::min(opened_bytes_, part.iov_len);
  std::memcpy(part.iov_base, in_.get() + in_begin_, bytes);
  in_begin_ += bytes;
  opened_bytes_ -= bytes;
  if (opened_bytes_ == 0) in_begin_ += Records::tag_bytes;
  return bytes;
}

Result<std::size_t> Tls::open(const iovec* parts, int count) {
  std::size_t all = 0, offset = 0;
  for (int i = 0; i < count;) {
    iovec part{static_cast<std::uint8_t*>(parts[i].iov_base) + offset, parts[i].iov_len - offset};
    std::size_t got = 0;
    if (part.iov_len == 0) {
      ++i, offset = 0;
      continue;
    }
    if (opened_bytes_ != 0) {
      got = take_opened(part);
    } else if (!error_ && in_end_ - in_begin_ >= Records::header_bytes) {
      auto* record = in_.get() + in_begin_;
      const auto plain = next_record();
      if (plain == 0 && Records::plain_bytes(record) != 0) return all;
      const bool fits = plain <= part.iov_len;
      // Where it does not, there may be a better place for it when what came before is understood.
      if (!fits && all != 0) return all;
      if (plain == 0 || !opens_->open(record, fits ? static_cast<std::uint8_t*>(part.iov_base)
                                                   : record + Records::header_bytes)) {
        error_ = {ErrorCode::protocol, "the encrypted stream was changed on its way"};
        continue;
      }
      in_begin_ += fits ? plain + Records::overhead : Records::header_bytes;
      got = fits ? plain : 0;
      opened_bytes_ = fits ? 0 : plain;
    } else {
      break;
    }
    all += got;
    offset += got;
  }
  if (error_ && all == 0) return error_;
  return all;
}

Result<std::size_t> Tls::seal(const iovec* parts, int count) {
  std::size_t all = 0, offset = 0;
  for (int i = 0; i < count && out_end_ + Records::plain_bytes_max + Records::overhead <= out_bytes;) {
    auto* to = out_.get() + out_end_;
    ByteView plain{static_cast<const std::uint8_t*>(parts[i].iov_base) + offset, parts[i].iov_len - offset};
    if (plain.size() >= large_part_bytes) {
      plain = plain.first(std::min(plain.size(), Records::plain_bytes_max));
      offset += plain.size();
      if (offset == parts[i].iov_len) ++i, offset = 0;
    } else {
      std::size_t have = 0;
      for (; i < count && parts[i].iov_len - offset < large_part_bytes &&
             have + parts[i].iov_len - offset <= Records::plain_bytes_max;
           ++i, offset = 0) {
        const auto bytes = parts[i].iov_len - offset;
        if (bytes == 0) continue;  // of no memory, perhaps
        std::memcpy(to + Records::header_bytes + have,
                    static_cast<const std::uint8_t*>(parts[i].iov_base) + offset, bytes);
        have += bytes;
      }
      plain = {to + Records::header_bytes, have};
    }
    if (plain.empty()) continue;
    if (!seals_->seal(plain, to)) return Error{ErrorCode::internal, "the stream could not be encrypted"};
    out_end_ += plain.size() + Records::overhead;
    all += plain.size();
  }
  return all;
}

}  // namespace pccl::net
