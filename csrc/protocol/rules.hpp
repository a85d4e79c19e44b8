// The protocol's numbered rules. Production keeps every one; tests of the simulator switch one off and must
// see it fail.
#pragma once

namespace pccl {

struct Rules {
  bool drop_older_views = true;       // [1] frames and votes of an older view do not count
  bool park_newer = true;             // [2] frames of a newer view or of an operation not yet posted wait
  bool view_restarts_all = true;      // [3] every uncommitted operation, known to the master or not
  bool commits_precede_view = true;   // [4] on every connection
  bool all_members_done = true;       // [5] a commit needs every member of the view, not the living ones
  bool lost_link_ends_view = true;    // [6] also for a peer that said DONE
  bool recover_commits_first = true;  // [7] a restarted master, what anybody delivered
  bool order_by_incarnation = true;   // [8] a view of a newer master is newer, whatever its number
  bool quorum = true;                 // [9] of the last view, for a restarted master without a store
  bool roles_doubt_together = true;   // [9] where too few of one role came, no other role begins anew
  bool waiting_is_recorded = true;    // [10] a repeated COMMIT repeats `waiting`
  bool skip_only_on_shared_record = true;  // [11] a boundary is skipped only on a record that all peers read
  bool no_boundary_in_flight = true;       // [12] no boundary while an operation is in flight
  bool resend_boundary = true;             // [13] the entry is sent again after every view
  bool undo = true;                        // inputs are restored when an attempt did not commit
  bool ask_to_remake = true;               // an input that is not kept is never sent again as it is
};

}  // namespace pccl
