#pragma once
// How Python's signals end an op.

namespace scav {

// From now on a long op runs the handlers of signals that come, and ends where one raises. For a module's start.
void poll_for_signals();

}  // namespace scav
