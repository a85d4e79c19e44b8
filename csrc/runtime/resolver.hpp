// Looks names up on helper threads, so that the thread that serves sockets never waits for a name server.
// ask() and the answers belong to the hub's thread. A look-up that hangs may outlive all this: it then
// answers nobody.
#pragma once
#include <functional>
#include <memory>
#include <mutex>

#include "net/address.hpp"
#include "runtime/hub.hpp"

namespace pccl {

class Resolver {
 public:
  using Found = Result<std::vector<net::SocketAddress>>;
  using LookUp = std::function<Found(const Address&)>;  // may block
  using Answer = std::function<void(Found)>;

  explicit Resolver(Hub& hub, LookUp look_up = {});
  ~Resolver() { close(); }

  void ask(const Address& address, Answer answer);  // a number is answered at once
  void close();                                     // no answer comes any more

 private:
  struct Way {  // back to the hub, while it is there
    std::mutex mutex;
    Hub* hub = nullptr;  // guarded by mutex
  };
  Hub& hub_;
  LookUp look_up_;
  std::shared_ptr<Way> way_ = std::make_shared<Way>();
};

}  // namespace pccl
