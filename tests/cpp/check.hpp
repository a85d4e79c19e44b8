// The C++ tests' whole framework: TEST(name) { ... } registers itself, CHECK and CHECK_EQ note a failure and
// go on, REQUIRE ends the test. A check may fail on any thread; REQUIRE belongs to the test's own thread.
// main.cpp runs them.
#pragma once

#include <concepts>
#include <cstddef>
#include <ostream>
#include <ranges>
#include <source_location>
#include <sstream>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

namespace pccl::check {

struct TestCase {
  std::string name;  // path under tests/cpp without its ending, a dot, the name given to TEST
  void (*body)();
};

std::vector<TestCase>& tests();
bool add_test(std::string_view file, std::string_view name, void (*body)());

// Counts one failure of the running test and prints it.
void fail(const std::source_location& where, const std::string& what);

// Of the running test; and those after so many were what it wanted to see.
int failures_so_far();
void forgive(int failures);

// What REQUIRE throws; it has been counted already.
struct Stopped {};

template <class T>
concept Printable = requires(std::ostream& out, const T& value) { out << value; };

template <class T, class... Others>
concept OneOf = (std::same_as<T, Others> || ...);

// What std::cmp_equal takes: integers, of which bool and characters are none.
template <class T>
concept Number = std::integral<T> && !OneOf<T, bool, char, wchar_t, char8_t, char16_t, char32_t>;

// Enough of a value for a person to see what differs: text and numbers as they are, bytes as numbers,
// enumerations as their number, containers by element, optionals by content, anything else by its size.
template <class T> void print(std::ostream& out, const T& value) {
  if constexpr (std::same_as<T, std::byte> || std::is_enum_v<T> || (sizeof(T) == 1 && Number<T>)) {
    out << static_cast<long long>(value);
  } else if constexpr (std::convertible_to<const T&, std::string_view>) {
    out << '"' << std::string_view(value) << '"';
  } else if constexpr (std::same_as<T, bool>) {
    out << (value ? "true" : "false");
  } else if constexpr (Printable<T>) {
    out << value;
  } else if constexpr (std::ranges::input_range<const T>) {
    out << '[';
    std::size_t printed = 0;
    for (const auto& element : value) {
      if (printed++ > 0) out << ", ";
      if (printed > 64) {
        out << "...";
        break;
      }
      print(out, element);
    }
    out << ']';
  } else if constexpr (requires { value.has_value(), *value; }) {
    if (value.has_value()) {
      print(out, *value);
    } else {
      out << "nothing";
    }
  } else if constexpr (requires { value.first, value.second; }) {
    out << '(';
    print(out, value.first);
    out << ", ";
    print(out, value.second);
    out << ')';
  } else {
    out << "(a value of " << sizeof(T) << " bytes)";
  }
}

template <class A, class B> bool equal(const A& a, const B& b) {
  if constexpr (Number<A> && Number<B>) {
    return std::cmp_equal(a, b);  // by value, whatever their signs
  } else {
    return a == b;
  }
}

inline bool check(bool holds, const char* text, const std::source_location& where) {
  if (!holds) fail(where, std::string(text) + " is false");
  return holds;
}

template <class A, class B>
void check_equal(const A& a, const B& b, const char* text_a, const char* text_b,
                 const std::source_location& where) {
  if (equal(a, b)) return;
  std::ostringstream what;
  what.precision(17);
  what << text_a << " == " << text_b << "\n    left:  ";
  print(what, a);
  what << "\n    right: ";
  print(what, b);
  fail(where, what.str());
}

}  // namespace pccl::check

#define TEST(name)                                            \
  static void test_##name();                                  \
  [[maybe_unused]] static const bool registered_##name =      \
      ::pccl::check::add_test(__FILE__, #name, &test_##name); \
  static void test_##name()

#define CHECK(...) \
  ::pccl::check::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, std::source_location::current())

#define CHECK_EQ(a, b) ::pccl::check::check_equal((a), (b), #a, #b, std::source_location::current())

// Where going on would only crash: REQUIRE(result.ok()); use(*result);
#define REQUIRE(...)                                                        \
  do {                                                                      \
    if (!::pccl::check::check(static_cast<bool>(__VA_ARGS__), #__VA_ARGS__, \
                              std::source_location::current()))             \
      throw ::pccl::check::Stopped{};                                       \
  } while (false)
