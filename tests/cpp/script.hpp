// Scripts: what happens to a run, line by line, and what its peers and its master then say. The world is the
// simulator's, with the same delay for everything, so that a script always tells the same story.
//
//   option NAME=VALUE ...          before `peers`: deadline= heartbeat= store=yes keepers=N
//                                  keepers come after the peers, and have numbers behind theirs
//   peers N | islands NxM          a master and so many peers, which join and wait for each other; that the
//                                  run then begins with a view of all is checked without being written
//   CALL on P,.. [WORD=VALUE ...]  all_reduce, broadcast, barrier, sync_state; tag= count= root= timeout=
//                                  scope=run on_loss=raise
//   update_topology on P,..        timeout= islands=
//   leave_boundary | cancel | leave | kill | silence on P,..
//   oversleep | wake on P,..       its part of an operation is complete, but it does not say so;  then does
//   cut | mend on P,..             it does not reach the master;  and reaches it again
//   break link P-Q | break half P-Q (only P learns)
//   join | join unreachable | master dies | master starts
//   join ISLAND RANK SIZE
//   again on P,..                  a new process joins in its place, under its name
//   after T                        time passes: 250ms, 3s
//   > LINE                         what has been said since the last of these; `...` stands for anything
//
// A line that ends with & takes no time; each other one takes a tenth of a second.
// Who says the same is named together. A peer's own word is "p1 ...", the master's "m1: ...".
#pragma once
#include <string>

#include "check.hpp"

namespace pccl::sim {

// Empty: the transcript is the script's. Else where they differ, and the transcript as it is.
std::string play(const std::string& script);

inline void plays(const char* script, const std::source_location& where = std::source_location::current()) {
  if (const auto what = play(script); !what.empty()) check::fail(where, what);
}

}  // namespace pccl::sim
