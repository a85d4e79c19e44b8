// OpenSSL 3, found at run time and loaded when the first secret is given: a build needs nothing of it, and a
// run without a secret never touches it. Names, types and numbers are those of its manual pages. Any thread;
// once loaded it stays until the process ends.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/result.hpp"

// OpenSSL's own types, which nobody looks into.
struct ssl_st;
struct ssl_ctx_st;
struct ssl_method_st;
struct bio_st;
struct bio_method_st;
struct evp_cipher_ctx_st;
struct evp_cipher_st;

namespace pccl::net {

struct TlsLibrary {
  using BioRead = int (*)(bio_st*, char* to, int bytes);
  using BioWrite = int (*)(bio_st*, const char* from, int bytes);
  using BioControl = long (*)(bio_st*, int command, long number, void* pointer);
  using KeyOfClient = unsigned (*)(ssl_st*, const char* hint, char* identity, unsigned identity_max,
                                   unsigned char* key, unsigned key_max);
  using KeyOfServer = unsigned (*)(ssl_st*, const char* identity, unsigned char* key, unsigned key_max);

  unsigned long (*OpenSSL_version_num)();
  const char* (*OpenSSL_version)(int);
  int (*OPENSSL_init_crypto)(std::uint64_t, const void*);
  unsigned long (*ERR_peek_error)();
  void (*ERR_clear_error)();
  const char* (*ERR_reason_error_string)(unsigned long);

  bio_method_st* (*BIO_meth_new)(int, const char*);
  int (*BIO_meth_set_read)(bio_method_st*, BioRead);
  int (*BIO_meth_set_write)(bio_method_st*, BioWrite);
  int (*BIO_meth_set_ctrl)(bio_method_st*, BioControl);
  int (*BIO_get_new_index)();
  bio_st* (*BIO_new)(const bio_method_st*);
  void (*BIO_set_init)(bio_st*, int);
  void (*BIO_set_data)(bio_st*, void*);
  void* (*BIO_get_data)(bio_st*);
  void (*BIO_set_flags)(bio_st*, int);
  void (*BIO_clear_flags)(bio_st*, int);

  const ssl_method_st* (*TLS_method)();
  ssl_ctx_st* (*SSL_CTX_new)(const ssl_method_st*);
  void (*SSL_CTX_free)(ssl_ctx_st*);
  long (*SSL_CTX_ctrl)(ssl_ctx_st*, int, long, void*);
  std::uint64_t (*SSL_CTX_set_options)(ssl_ctx_st*, std::uint64_t);
  int (*SSL_CTX_set_ciphersuites)(ssl_ctx_st*, const char*);
  int (*SSL_CTX_set_num_tickets)(ssl_ctx_st*, std::size_t);
  void (*SSL_CTX_set_psk_client_callback)(ssl_ctx_st*, KeyOfClient);
  void (*SSL_CTX_set_psk_server_callback)(ssl_ctx_st*, KeyOfServer);

  ssl_st* (*SSL_new)(ssl_ctx_st*);
  void (*SSL_free)(ssl_st*);
  void (*SSL_set_bio)(ssl_st*, bio_st*, bio_st*);
  bio_st* (*SSL_get_rbio)(const ssl_st*);
  void (*SSL_set_connect_state)(ssl_st*);
  void (*SSL_set_accept_state)(ssl_st*);
  void (*SSL_set_verify)(ssl_st*, int, int (*)(int, void*));
  int (*SSL_do_handshake)(ssl_st*);
  int (*SSL_session_reused)(const ssl_st*);
  int (*SSL_version)(const ssl_st*);
  int (*SSL_get_error)(const ssl_st*, int);
  int (*SSL_export_keying_material)(ssl_st*, unsigned char* to, std::size_t bytes, const char* label,
                                    std::size_t label_bytes, const unsigned char* context,
                                    std::size_t context_bytes, int use_context);

  const evp_cipher_st* (*EVP_aes_128_gcm)();
  evp_cipher_ctx_st* (*EVP_CIPHER_CTX_new)();
  void (*EVP_CIPHER_CTX_free)(evp_cipher_ctx_st*);
  int (*EVP_CIPHER_CTX_ctrl)(evp_cipher_ctx_st*, int command, int number, void* pointer);
  int (*EVP_CipherInit_ex)(evp_cipher_ctx_st*, const evp_cipher_st*, void* engine, const unsigned char* key,
                           const unsigned char* iv, int encrypts);
  int (*EVP_CipherUpdate)(evp_cipher_ctx_st*, unsigned char* to, int* written, const unsigned char* from,
                          int bytes);
  int (*EVP_CipherFinal_ex)(evp_cipher_ctx_st*, unsigned char* to, int* written);
};

// A path for those whose OpenSSL lies where the loader does not look; empty: by its usual name. Without
// effect once one was loaded.
void name_tls_library(std::string path);

// Errors: usage, with what to install.
Result<const TlsLibrary*> tls_library();

// What the loaded one calls itself; empty: none was loaded, or none could be.
std::string tls_library_name();

}  // namespace pccl::net
