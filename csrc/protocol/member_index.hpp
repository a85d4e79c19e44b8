// The members of one view by id and by group. Made once per view, asked with every message: a view is a list,
// and a master of thousands of peers must not walk it for each of them.
#pragma once
#include <map>
#include <set>
#include <string_view>
#include <vector>

#include "wire/types.hpp"

namespace pccl {

// Members whose votes an operation needs: a list of the index, or the two of a pair.
class Concerned {
 public:
  explicit Concerned(const std::vector<PeerId>* list) : list_(list) {}
  explicit Concerned(std::vector<PeerId> pair) : pair_(std::move(pair)) {}
  const std::vector<PeerId>& all() const { return list_ != nullptr ? *list_ : pair_; }
  auto begin() const { return all().begin(); }
  auto end() const { return all().end(); }
  std::size_t size() const { return all().size(); }

 private:
  const std::vector<PeerId>* list_ = nullptr;
  std::vector<PeerId> pair_;
};

class MemberIndex {
 public:
  // It points into the view: to be called again whenever the view's members change.
  void rebuild(const View& view);

  const Member* find(PeerId peer) const;
  const std::vector<PeerId>& group(std::uint32_t group) const;  // in member order
  const std::map<std::uint32_t, std::vector<PeerId>>& groups() const { return groups_; }
  const std::vector<PeerId>& all() const { return all_; }  // of all groups
  Concerned concerned(const OpKey& key) const;
  bool concerns(const OpKey& key, PeerId peer) const;
  std::size_t largest_group() const;
  std::size_t islands() const { return islands_.size(); }
  bool has_island(const std::string& island) const { return islands_.contains(island); }
  // Members that are not among these, at most so many.
  std::vector<PeerId> absent(const std::set<PeerId>& present, std::size_t most) const;

 private:
  std::vector<std::pair<PeerId, const Member*>> by_peer_;  // ascending
  std::map<std::uint32_t, std::vector<PeerId>> groups_;
  std::vector<PeerId> all_;
  std::set<std::string_view> islands_;
};

}  // namespace pccl
