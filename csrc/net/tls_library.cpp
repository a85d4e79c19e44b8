#include "net/tls_library.hpp"

#include <dlfcn.h>

#include <mutex>

namespace pccl::net {
namespace {

constexpr unsigned long oldest = 0x30000000, too_new = 0x40000000;
constexpr std::uint64_t init_no_atexit = 0x00080000;  // our threads may still run when exit() cleans up
constexpr int version_text = 0;

std::mutex name_mutex;  // guards name
std::string name = "libssl.so.3";

class Finder {
 public:
  explicit Finder(void* handle) : handle_(handle) {}
  // libcrypto's functions are found as well: libssl depends on it.
  template <class F> void operator()(const char* called, F& function) {
    function = reinterpret_cast<F>(::dlsym(handle_, called));
    if (function == nullptr && missing_.empty()) missing_ = called;
  }
  const std::string& missing() const { return missing_; }

 private:
  void* handle_;
  std::string missing_;
};

#define PCCL_FIND(name) find(#name, all.name)
void find_general(Finder& find, TlsLibrary& all) {
  PCCL_FIND(OpenSSL_version_num);
  PCCL_FIND(OpenSSL_version);
  PCCL_FIND(OPENSSL_init_crypto);
  PCCL_FIND(ERR_peek_error);
  PCCL_FIND(ERR_clear_error);
  PCCL_FIND(ERR_reason_error_string);
  PCCL_FIND(BIO_meth_new);
  PCCL_FIND(BIO_meth_set_read);
  PCCL_FIND(BIO_meth_set_write);
  PCCL_FIND(BIO_meth_set_ctrl);
  PCCL_FIND(BIO_get_new_index);
  PCCL_FIND(BIO_new);
  PCCL_FIND(BIO_set_init);
  PCCL_FIND(BIO_set_data);
  PCCL_FIND(BIO_get_data);
  PCCL_FIND(BIO_set_flags);
  PCCL_FIND(BIO_clear_flags);
}

void find_tls(Finder& find, TlsLibrary& all) {
  PCCL_FIND(TLS_method);
  PCCL_FIND(SSL_CTX_new);
  PCCL_FIND(SSL_CTX_free);
  PCCL_FIND(SSL_CTX_ctrl);
  PCCL_FIND(SSL_CTX_set_options);
  PCCL_FIND(SSL_CTX_set_ciphersuites);
  PCCL_FIND(SSL_CTX_set_num_tickets);
  PCCL_FIND(SSL_CTX_set_psk_client_callback);
  PCCL_FIND(SSL_CTX_set_psk_server_callback);
  PCCL_FIND(SSL_new);
  PCCL_FIND(SSL_free);
  PCCL_FIND(SSL_set_bio);
  PCCL_FIND(SSL_get_rbio);
  PCCL_FIND(SSL_set_connect_state);
  PCCL_FIND(SSL_set_accept_state);
  PCCL_FIND(SSL_set_verify);
  PCCL_FIND(SSL_do_handshake);
  PCCL_FIND(SSL_session_reused);
  PCCL_FIND(SSL_version);
  PCCL_FIND(SSL_get_error);
  PCCL_FIND(SSL_export_keying_material);
}

void find_cipher(Finder& find, TlsLibrary& all) {
  PCCL_FIND(EVP_aes_128_gcm);
  PCCL_FIND(EVP_CIPHER_CTX_new);
  PCCL_FIND(EVP_CIPHER_CTX_free);
  PCCL_FIND(EVP_CIPHER_CTX_ctrl);
  PCCL_FIND(EVP_CipherInit_ex);
  PCCL_FIND(EVP_CipherUpdate);
  PCCL_FIND(EVP_CipherFinal_ex);
}
#undef PCCL_FIND

Error unusable(const std::string& why) {
  return {ErrorCode::usage,
          "a secret needs OpenSSL 3, for encryption, and " + why +
              ": install it (Debian: apt-get install libssl3), or name its libssl in PCCL_LIBSSL"};
}

Result<TlsLibrary> load() {
  const std::lock_guard lock(name_mutex);
  // By its name it is the one that the process has already, if any: Python's ssl module brings its own.
  void* handle = ::dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
  if (handle == nullptr) {
    const char* why = ::dlerror();
    return unusable("it cannot be loaded (" + std::string(why != nullptr ? why : name) + ")");
  }
  TlsLibrary all{};
  Finder find(handle);
  find_general(find, all);
  if (all.OpenSSL_version_num != nullptr) {
    const auto version = all.OpenSSL_version_num();
    if (version < oldest || version >= too_new)
      return unusable(name + " is another version (" + all.OpenSSL_version(version_text) + ")");
  }
  find_tls(find, all);
  find_cipher(find, all);
  if (!find.missing().empty()) return unusable(name + " has no " + find.missing());
  all.OPENSSL_init_crypto(init_no_atexit, nullptr);
  return all;
}

const Result<TlsLibrary>& loaded() {
  static const auto* const once = new Result<TlsLibrary>(load());
  return *once;
}

}  // namespace

void name_tls_library(std::string path) {
  const std::lock_guard lock(name_mutex);
  if (!path.empty()) name = std::move(path);
}

Result<const TlsLibrary*> tls_library() {
  const auto& found = loaded();
  if (!found) return found.error();
  return &found.value();
}

std::string tls_library_name() {
  const auto& found = loaded();
  return found ? found.value().OpenSSL_version(version_text) : std::string();
}

}  // namespace pccl::net
