// Payloads handed to stripes. Their memory is borrowed until the kernel has them; what could not be read
// again stays until the other end says that it came. So a stripe that breaks loses nothing. Pure; owned by
// the I/O thread.
#pragma once
#include <deque>
#include <functional>
#include <map>
#include <vector>

#include "runtime/exchange.hpp"

namespace pccl {

class Sends {
 public:
  using Stripe = const void*;  // an identity, never looked into
  struct Send {
    PeerId peer = no_peer;  // nobody: free
    Stripe stripe = nullptr;
    bool block = false;  // of shared state: asked for again by who misses it
    OpKey key;
    Outgoing outgoing;
    SlotId temporary = no_slot;    // made for this payload alone
    bool gone = false;             // the kernel has all of it
    bool released = false;         // the executor was told: its slot is somebody else's
    bool as_bytes = false;         // it was offered by its place in vain
    std::uint64_t order = 0;       // of being sent
    std::uint64_t held_bytes = 0;  // of slots that it keeps from being used, once it is gone
  };
  using Token = std::uint64_t;
  using Visit = std::function<void(Token, Send&)>;

  Token add(Send send);
  Send* find(Token token);
  // It was the stripe's n-th payload, and keeps so many bytes of slots until it is known to have come.
  void gone(Token token, std::uint64_t number, std::uint64_t held_bytes);
  void erase(Token token);
  // The other end has the first `payloads` of this stripe: visited, then erased.
  void received(Stripe stripe, std::uint64_t payloads, const Visit& visit);
  void erase_if(const std::function<bool(const Send&)>& which, const Visit& visit);
  std::vector<Send> take(Stripe stripe);  // all of a stripe that broke, in the order of sending
  void closed(Stripe stripe);             // nothing more is heard of it
  std::uint64_t held(Stripe stripe) const;
  std::size_t blocks_to(PeerId peer) const;

 private:
  struct Gone {
    std::uint64_t number, order;
    Token token;
  };
  struct Lane {
    std::deque<Gone> gone;
    std::uint64_t held_bytes = 0;
  };
  bool is(const Gone& entry) const;
  void trim(Lane& lane);

  std::vector<Send> sends_;
  std::vector<Token> free_;
  std::map<Stripe, Lane> lanes_;
  std::uint64_t orders_ = 0;
};

}  // namespace pccl
