#include "sim/memory.hpp"

#include <algorithm>

namespace pccl::sim {

Value add(Value a, Value b) {
  if (a == garbage || b == garbage) return garbage;
  constexpr Value high = 0x8888888888888888ull;
  if (((a | b) & high) == 0) return a + b;
  for (int i = 0; i < 64; i += 4)
    if (((a >> i) & 15) + ((b >> i) & 15) > 15) return garbage;
  return a + b;
}

std::string text(Value value) {
  if (value == garbage) return "garbage";
  std::string all;
  for (std::uint32_t p = 0; p < 16; ++p)
    if (const auto count = (value >> (4 * p)) & 15; count != 0) {
      if (!all.empty()) all += '+';
      if (count > 1) all += std::to_string(count) + "*";
      all += 'p';
      all += std::to_string(p + 1);
    }
  return all.empty() ? "nothing" : all;
}

Content filled(std::uint64_t begin, std::uint64_t end, Value value) {
  if (begin == end) return {};
  return {{begin, end, value}};
}

namespace {

void append(Content& to, const Piece& piece) {
  if (!to.empty() && to.back().end == piece.begin && to.back().value == piece.value)
    to.back().end = piece.end;
  else
    to.push_back(piece);
}

bool same_range(const Content& a, std::uint64_t begin, std::uint64_t end) {
  return a.empty() ? begin == end : a.front().begin == begin && a.back().end == end;
}

}  // namespace

Content add(const Content& a, const Content& b) {
  if (a.empty() || !same_range(a, b.empty() ? 0 : b.front().begin, b.empty() ? 0 : b.back().end))
    return b.empty() ? Content{} : filled(b.front().begin, b.back().end, garbage);
  Content sum;
  auto i = a.begin(), j = b.begin();
  for (auto at = a.front().begin; i != a.end() && j != b.end();) {
    const auto end = std::min(i->end, j->end);
    append(sum, {at, end, add(i->value, j->value)});
    at = end;
    if (i->end == end) ++i;
    if (j->end == end) ++j;
  }
  return sum;
}

Content Tensor::read(std::uint64_t begin, std::uint64_t end) const {
  Content content;
  for (const auto& piece : pieces_) {
    if (piece.end <= begin) continue;
    if (piece.begin >= end) break;
    content.push_back({std::max(begin, piece.begin), std::min(end, piece.end), piece.value});
  }
  return content;
}

void Tensor::write(std::uint64_t begin, std::uint64_t end, const Content& content) {
  if (begin == end) return;
  if (!same_range(content, begin, end)) return fill(begin, end, garbage);
  Content all;
  all.reserve(pieces_.size() + content.size() + 2);
  for (const auto& piece : pieces_)
    if (piece.begin < begin) append(all, {piece.begin, std::min(piece.end, begin), piece.value});
  for (const auto& piece : content) append(all, piece);
  for (const auto& piece : pieces_)
    if (piece.end > end) append(all, {std::max(piece.begin, end), piece.end, piece.value});
  pieces_ = std::move(all);
}

bool Tensor::holds(Value value) const {
  return std::all_of(pieces_.begin(), pieces_.end(),
                     [&](const Piece& piece) { return piece.value == value; });
}

std::string Tensor::text() const {
  std::string all;
  for (const auto& piece : pieces_)
    all +=
        " [" + std::to_string(piece.begin) + ".." + std::to_string(piece.end) + ") " + sim::text(piece.value);
  return all;
}

Memory::Memory(const std::vector<TensorShape>& shapes, bool in_place, std::uint32_t process,
               std::uint32_t blocks)
    : in_place_(in_place), process_(process), blocks_(blocks) {
  for (const auto& shape : shapes) {
    input_.emplace_back(blocks * shape.count, one(process));
    if (!in_place) output_.emplace_back(blocks * shape.count, garbage);
    counts_.push_back(shape.count);
  }
}

void Memory::begin(std::uint32_t world) {
  kept_.clear();
  weights_ = Tensor(world, garbage);
  for (auto& tensor : output_)
    if (const auto all = tensor.read(0, UINT64_MAX); !all.empty()) tensor.fill(0, all.back().end, garbage);
}

Content Memory::input(const Layout& layout, std::uint32_t chunk) const {
  const auto& c = layout.chunk(chunk);
  if (layout.hidden(chunk)) return filled(c.offset, c.offset + 1, one(process_));
  return input_[c.tensor].read(c.offset, c.offset + c.count);
}

Content Memory::output(const Layout& layout, std::uint32_t chunk) const {
  const auto& c = layout.chunk(chunk);
  return (layout.hidden(chunk) ? weights_ : out(c.tensor)).read(c.offset, c.offset + c.count);
}

void Memory::write(const Layout& layout, std::uint32_t chunk, const Content& content) {
  const auto& c = layout.chunk(chunk);
  auto& tensor = layout.hidden(chunk) ? weights_ : in_place_ ? input_[c.tensor] : output_[c.tensor];
  tensor.write(c.offset, c.offset + c.count, content);
}

void Memory::scribble(const Layout& layout, std::uint32_t chunk) {
  const auto& c = layout.chunk(chunk);
  write(layout, chunk, filled(c.offset, c.offset + c.count, garbage));
}

void Memory::keep(const Layout& layout, std::uint32_t chunk) {
  kept_.emplace_back(layout.chunk(chunk).tensor, output(layout, chunk));
}

void Memory::restore() {
  for (const auto& [tensor, content] : kept_)
    if (!content.empty()) input_[tensor].write(content.front().begin, content.back().end, content);
  kept_.clear();
}

void Memory::lose() {
  kept_.clear();
  lost_ = in_place_;
  if (!lost_) return;
  for (auto& tensor : input_)
    if (const auto all = tensor.read(0, UINT64_MAX); !all.empty()) tensor.fill(0, all.back().end, garbage);
}

bool Memory::input_intact() const {
  return std::all_of(input_.begin(), input_.end(),
                     [&](const Tensor& tensor) { return tensor.holds(one(process_)); });
}

bool Memory::output_is(Value value) const {
  const auto& tensors = in_place_ ? input_ : output_;
  return std::all_of(tensors.begin(), tensors.end(),
                     [&](const Tensor& tensor) { return tensor.holds(value); });
}

bool Memory::block_is(std::uint32_t block, Value value) const {
  for (std::size_t t = 0; t < output_.size(); ++t)
    for (const auto& piece : output_[t].read(block * counts_[t], (block + 1) * counts_[t]))
      if (piece.value != value) return false;
  return true;
}

std::string Memory::text() const {
  std::string all = in_place_ ? "in place:" : "input:";
  for (const auto& tensor : input_) all += tensor.text();
  if (!in_place_) all += " output:";
  for (const auto& tensor : output_) all += tensor.text();
  return all;
}

}  // namespace pccl::sim
