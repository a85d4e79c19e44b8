// One target under mutants: what takes a new way is kept and mutated further. Not for several threads.
#pragma once
#include <string>
#include <vector>

#include "fuzz/target.hpp"

namespace pccl::fuzz {

struct Budget {
  std::uint64_t runs = 3000;
  double seconds = 2;
};

// A file of inputs, one per line in hexadecimal; lines with # are for people.
std::string corpus_file(const std::string& target);
std::vector<Bytes> read_corpus(const std::string& file);
void write_corpus(const std::string& file, const std::vector<Bytes>& inputs);
std::string hex(ByteView bytes);

class Campaign {
 public:
  // `last`: a file that holds each input while it runs; empty: none.
  Campaign(const Target& target, const std::string& last);
  ~Campaign();
  Campaign(const Campaign&) = delete;
  Campaign& operator=(const Campaign&) = delete;

  void replay(const std::vector<Bytes>& inputs);
  void run(const Budget& budget);
  void expect_failure() { expected_ = true; }  // it is no failure of the test; run() ends with the first
  bool failed() const { return failed_; }
  std::string report() const;
  std::vector<Bytes> small() const;  // of what took a new way, the smallest

 private:
  void one(const Bytes& input);
  void remember(const Bytes& input);

  const Target& target_;
  Rng rng_;
  std::uint8_t* last_ = nullptr;  // a mapped file: its length, then the input
  std::vector<Bytes> pool_;       // what is mutated
  std::vector<Bytes> kept_;       // what took a new way, in this program
  std::uint64_t runs_ = 0;
  double seconds_ = 0;
  bool expected_ = false, failed_ = false;
};

}  // namespace pccl::fuzz
