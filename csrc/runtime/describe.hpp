// Descriptions of operations, for people who have to find out what two peers do differently. Pure.
#pragma once
#include <string>

#include "wire/values.hpp"

namespace pccl {

std::string describe(const TensorShape& tensor);
std::string describe(const Descriptor& descriptor);

// What two descriptions of the same length do not show: a plan, or a tensor far down the list.
std::string hidden_difference(const Descriptor& mine, const Descriptor& theirs);

}  // namespace pccl
