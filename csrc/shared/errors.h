#pragma once
// Errors of the ops and the checks that throw them. boxed.h turns the first two into Python's exceptions of those
// names; any other std::exception becomes a RuntimeError.

#include <sstream>
#include <stdexcept>

namespace scav {

struct ValueError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct TypeError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws an Error whose message is the parts, one after the other.
template <class Error, class... Parts>
[[noreturn]] void throw_error(const Parts&... parts) {
  std::ostringstream message;
  (message << ... << parts);
  throw Error(message.str());
}

}  // namespace scav

#define SCAV_CHECK_THAT(condition, Error, ...) \
  do {                                         \
    if (!(condition)) [[unlikely]] {           \
      ::scav::throw_error<Error>(__VA_ARGS__); \
    }                                          \
  } while (false)

// SCAV_CHECK(condition, parts of the message...)
#define SCAV_CHECK(condition, ...) SCAV_CHECK_THAT(condition, ::std::runtime_error, __VA_ARGS__)
#define SCAV_CHECK_VALUE(condition, ...) SCAV_CHECK_THAT(condition, ::scav::ValueError, __VA_ARGS__)
#define SCAV_CHECK_TYPE(condition, ...) SCAV_CHECK_THAT(condition, ::scav::TypeError, __VA_ARGS__)
