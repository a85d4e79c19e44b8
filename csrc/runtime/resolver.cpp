#include "runtime/resolver.hpp"

#include <system_error>
#include <thread>

namespace pccl {

Resolver::Resolver(Hub& hub, LookUp look_up) : hub_(hub), look_up_(std::move(look_up)) {
  if (!look_up_)
    look_up_ = [](const Address& address) { return net::resolve(address, net::Purpose::connect); };
  way_->hub = &hub_;
}

void Resolver::close() {
  const std::lock_guard lock(way_->mutex);
  way_->hub = nullptr;
}

void Resolver::ask(const Address& address, Answer answer) {
  if (address.host.empty() || net::is_number(address.host))
    return answer(net::resolve(address, net::Purpose::connect));
  auto run = [way = way_, look_up = look_up_, address, answer] {
    auto found = look_up(address);
    const std::lock_guard lock(way->mutex);
    if (way->hub != nullptr)
      way->hub->call([answer, found = std::move(found)]() mutable { answer(std::move(found)); });
  };
  try {
    std::thread(std::move(run)).detach();
  } catch (const std::system_error& error) {
    answer(Error{ErrorCode::connect,
                 "cannot look \"" + address.host + "\" up: no thread for it: " + error.what()});
  }
}

}  // namespace pccl
