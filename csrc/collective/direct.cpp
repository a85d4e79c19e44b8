// All-reduce on a full mesh. Every position numbers its steps alike, so that each knows those of all others.
#include "collective/plan.hpp"
#include "collective/positions.hpp"

namespace pccl {

namespace {

struct Numbering {
  std::uint32_t world;
  std::uint16_t others() const { return std::uint16_t(world - 1); }
  std::uint16_t own(std::uint32_t owner, std::uint32_t self) const { return place(owner, self); }
  std::uint16_t collect(std::uint32_t from, std::uint32_t self) const {
    return std::uint16_t(others() + place(from, self));
  }
  std::uint16_t fold() const { return std::uint16_t(2 * others()); }
  std::uint16_t replace(std::uint32_t owner, std::uint32_t self) const {
    return std::uint16_t(fold() + 1 + place(owner, self));
  }
  std::uint16_t weights() const { return std::uint16_t(3 * others() + 1); }
};

// Which of the collects comes when: by position, the own input among them.
std::vector<std::uint16_t> parts_in_order(std::uint32_t world, std::uint32_t self,
                                          std::uint16_t first_collect) {
  std::vector<std::uint16_t> parts;
  for (std::uint32_t p = 0; p < world; ++p)
    parts.push_back(p == self ? own_part : std::uint16_t(first_collect + place(p, self)));
  return parts;
}

}  // namespace

Part part_of(const Plan& plan, const Step& fold, std::size_t index) {
  const auto step = fold.parts[index];
  if (step == own_part) return {plan.position, Wire::element};
  const auto& part = plan.steps[step];
  if (part.merge == Merge::fold) return {plan.position, part.out};
  return {std::uint32_t(part.from), part.in};
}

Plan plan_direct_all_reduce(std::uint32_t position, std::uint32_t world, bool weighted, Wire wire) {
  if (world == 1) return plan_ring_all_reduce(position, world, weighted);
  Plan plan{position, world, {}, world};
  const Numbering number{world};
  each_other(world, position, [&](std::uint32_t owner) {
    plan.steps.push_back({.segment = owner,
                          .merge = Merge::own,
                          .out = wire,
                          .gate = number.replace(owner, position),
                          .to = {{owner, number.collect(position, owner)}}});
  });
  each_other(world, position, [&](std::uint32_t from) {
    plan.steps.push_back({.segment = position,
                          .merge = Merge::collect,
                          .from = std::int32_t(from),
                          .in = wire,
                          .fold = number.fold()});
  });
  Step fold{
      .segment = position, .merge = Merge::fold, .write = true, .finish = true, .in = wire, .out = wire};
  fold.parts = parts_in_order(world, position, number.others());
  each_other(world, position,
             [&](std::uint32_t to) { fold.to.push_back({to, number.replace(position, to)}); });
  plan.steps.push_back(std::move(fold));
  each_other(world, position, [&](std::uint32_t owner) {
    plan.steps.push_back(
        {.segment = owner, .merge = Merge::replace, .from = std::int32_t(owner), .write = true, .in = wire});
  });
  if (weighted) gather_weights_directly(plan, [&](std::uint32_t) { return number.weights(); });
  return plan;
}

Plan plan_exchange_all_reduce(std::uint32_t position, std::uint32_t world) {
  if (world == 1) return plan_ring_all_reduce(position, world, false);
  Plan plan{position, world, {}};
  const auto collect = [&](std::uint32_t from, std::uint32_t at) {
    return std::uint16_t(1 + place(from, at));
  };
  Step own{.segment = 0, .merge = Merge::own, .gate = world == 2 ? 1 : -1};
  each_other(world, position, [&](std::uint32_t to) { own.to.push_back({to, collect(position, to)}); });
  plan.steps.push_back(std::move(own));
  each_other(world, position, [&](std::uint32_t from) {
    plan.steps.push_back(
        {.segment = 0, .merge = Merge::collect, .from = std::int32_t(from), .fold = std::int32_t(world)});
  });
  Step fold{.segment = 0, .merge = Merge::fold, .write = true, .finish = true};
  fold.parts = parts_in_order(world, position, 1);
  plan.steps.push_back(std::move(fold));
  return plan;
}

}  // namespace pccl
