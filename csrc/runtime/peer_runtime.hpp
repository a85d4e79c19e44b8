// A peer: one thread that owns its sockets, its session and its exchange. User threads call the public
// functions, which hand over to that thread and wait on handles. The thread drives heartbeats, links,
// reductions and commits.
#pragma once
#include <memory>
#include <thread>

#include "runtime/exchange.hpp"
#include "runtime/flows.hpp"
#include "runtime/handles.hpp"
#include "runtime/link_speeds.hpp"
#include "runtime/links.hpp"
#include "runtime/master_link.hpp"
#include "runtime/prober.hpp"
#include "runtime/rate_limit.hpp"
#include "runtime/recorder.hpp"
#include "runtime/same_host.hpp"
#include "runtime/sends.hpp"

namespace pccl {

struct PeerOptions {
  std::string master;                  // host:port
  Join join;                           // without addresses
  std::string listen;                  // host:port; empty: by the secret
  std::vector<std::string> advertise;  // host or host:port; empty: found out
  net::Secret secret;
  bool insecure = false;
  std::string congestion = "auto";
  std::uint8_t stripes = 0;                     // of each link; 0: by its path
  bool checksum = false;                        // of all chunks to and from this peer
  LocalWays ways = read_process | map_segment;  // between peers of one host, besides TCP
  std::size_t recorded_events = 1 << 14;
  std::string trace_folder;  // where the recorder's file and dumps are made; empty: none
  Timing timing;
  std::function<void(const std::string&)> log;
  Resolver::LookUp look_up;  // of other peers' names; empty: the system's
};

// Since this peer was admitted.
struct PeerTotals {
  std::uint64_t committed = 0, failed = 0, redone = 0;  // operations; attempts beyond the first
  std::uint64_t bytes_sent = 0, bytes_received = 0, views = 0, links_lost = 0;
  Duration in_operations = 0;  // of those that were committed, from post to commit
};

struct PeerStatus {  // a copy for user threads
  PeerTotals totals;
  PeerId peer = no_peer;
  View view;
  std::uint32_t waiting = 0;
  Session::Stage stage = Session::Stage::joining;
  Error end;
  std::string island;
  std::map<PeerId, LinkInfo> links;
};

// What one operation has moved over one of its links, and what that link does now.
struct LinkNow {
  Flow flow;
  bool ready = false;         // the other end has come to the call, as this peer can tell
  bool source = false;        // data of the attempt comes from it
  std::uint64_t queued = 0;   // bytes given to the link and not yet taken by the other end's kernel
  std::uint64_t unread = 0;   // bytes that came from it, in this end's kernel
  bool to_send = false;       // there is more, and the link takes none now
  Duration full = 0;          // ns of this attempt in which it took no more
  std::uint64_t offered = 0;  // chunks that the other end may read where they lie, and has not yet
};
struct OperationNow {
  OpKey key;
  Call call = Call::barrier;
  OperationState state = OperationState::posted;
  Duration age = 0;
  std::uint32_t attempts = 0;
  std::uint64_t bytes = 0, sent = 0, received = 0;
  std::vector<PeerId> missing;  // that have not come to it, as the master last told
  std::vector<Hindrance> hindrances;
  std::vector<LinkNow> links;
};
struct Diagnosis {
  Instant now = 0;
  PeerId peer = no_peer;
  ViewId view;
  bool master = false;  // its connection is up
  bool at_boundary = false;
  std::vector<OperationNow> operations;  // the oldest first
};

struct PostRequest {
  Posting posting;
  std::vector<TensorSpan> tensors;
  std::optional<double> weight;
  std::vector<ResidualSpan> residuals;  // by tensor; empty: no error feedback
  std::optional<CodedRequest> coded;    // of a coded reduce, instead of tensors
  std::uint64_t rate_limit = 0;         // bytes per second that this peer sends of it at most; 0: any
};

class PeerRuntime final : Links::Owner, MasterLink::Owner {
 public:
  static Result<std::unique_ptr<PeerRuntime>> create(PeerOptions options);
  ~PeerRuntime();

  std::shared_ptr<Promise<Error>> admitted() const { return admitted_; }  // no error: a member
  Error not_admitted(Duration waited);  // what keeps it out, for a caller whose time is over
  std::shared_ptr<OperationHandle> post(PostRequest request);
  // On all peers. `why`: where the caller did not ask for it.
  void cancel(std::shared_ptr<OperationHandle> handle, std::string why = {});
  std::shared_ptr<Promise<BoundaryResult>> enter_boundary(std::uint32_t islands, Duration timeout,
                                                          std::uint32_t probe_ms = 0);
  void leave_boundary(std::shared_ptr<Promise<BoundaryResult>> entered);
  std::shared_ptr<StateHandle> post_state(Posting posting);
  void offer_state(std::shared_ptr<StateHandle> handle, StateOffer offer, std::vector<ServedEntry> served);
  void fetch_block(std::shared_ptr<StateHandle> handle, PeerId donor, BlockRequest request, std::uint8_t* to);
  void complete_state(std::shared_ptr<StateHandle> handle);
  void cancel_state(std::shared_ptr<StateHandle> handle, std::string why = {});
  PeerStatus status(bool with_links);
  void show(std::vector<Figure> figures);                        // on the master's pages
  const Recorder& recorder() const { return recorder_; }         // to copy it, on any thread
  void pause_recorder(bool paused) { recorder_.pause(paused); }  // between operations; to measure its cost
  // What runs now, by the I/O thread; nothing when it has not answered in time.
  std::optional<Diagnosis> diagnose(Duration timeout);
  void leave(Duration timeout);  // politely, then close
  void close();
  bool forked() const;  // this process is a child: nothing works here
  bool running() const { return !closed_; }

  // A user's thread is blocked in the library while this lives: what "stuck" is decided by.
  class Blocked {
   public:
    explicit Blocked(PeerRuntime& peer);
    ~Blocked();
    Blocked(const Blocked&) = delete;

   private:
    PeerRuntime& peer_;
  };

 private:
  explicit PeerRuntime(PeerOptions options, std::unique_ptr<Hub> hub, std::vector<net::SocketAddress> master);
  struct Running {
    std::shared_ptr<OperationHandle> handle;
    std::unique_ptr<OperationMemory> memory;
    std::optional<double> weight;
    Instant started = 0;
    std::uint64_t sent = 0, received = 0;
    Instant held = 0;            // when the result was whole here; 0: not yet
    std::vector<PeerId> ring{};  // of the last attempt, by position
    bool may_skip = false;
    std::shared_ptr<const CodedSums> sums = nullptr;  // of a coded reduce
    std::uint32_t position = 0;                       // for which its memory was made
    std::optional<RateLimit> limit = {};
    Call call = Call::barrier;
    std::uint64_t bytes = 0;  // of its tensors
    Flows flows{};            // of this attempt
    bool slow_told = false;
  };
  struct Unsourced {  // a recv from whoever sends first, or one that came after such a one with its name
    std::shared_ptr<OperationHandle> handle;
    PostRequest request;
    Instant called = 0, deadline = never;
    std::vector<PeerId> senders;  // who could be it when it was called
  };
  struct Fetch {
    PeerId donor;
    BlockRequest request;
    std::uint8_t* to;
    bool sent = false;
  };
  struct Incoming {  // the payload that a stripe is receiving
    enum class Kind : std::uint8_t { chunk, parked, block } kind = Kind::chunk;
    wire::DataHeader header;
    wire::BlockHeader block;
    AttemptId attempt = 0;
    SlotId slot = no_slot;
    std::unique_ptr<std::uint8_t[]> buffer;
    const std::uint8_t* to = nullptr;
    std::optional<Fetch> fetch;  // of a block: asked for again if it breaks off
  };

  void run();
  void start_session();
  void drain();
  void tick();
  Instant next_deadline() const;
  void note_speeds(Instant now);
  void refill_limits(Instant now);
  const CodedSums* sums_of(const OpKey& key, const Running& running);
  std::vector<Address> reachable() const;
  void log(const std::string& line) const;
  void publish();
  Error obstacle() const;
  void end(const Error& why);
  bool stuck() const;
  void begin(std::shared_ptr<OperationHandle> handle, PostRequest request, Instant called);
  void await_sender(std::shared_ptr<OperationHandle> handle, PostRequest request, Instant called);
  std::string cancelled_text(const std::string& what, const std::string& why) const;
  void abandon(const OpKey& key, const std::string& why);
  static std::string describe_recv(const Posting& posting);
  bool must_await_sender(const Posting& posting) const;
  bool find_senders();
  std::optional<PeerId> sender_for(std::size_t index) const;
  Error hopeless(const Unsourced& waiting, Instant now) const;
  void give_up_senders(const std::function<Error(const Unsourced&)>& why);

  void apply(effect::SendMaster& e);
  void apply(effect::ReconnectMaster& e);
  void apply(effect::Dial& e);
  void apply(effect::HangUp& e);
  void apply(effect::DropAttempt& e);
  void apply(effect::StartAttempt& e);
  void apply(effect::FailedEarly& e);
  void apply(effect::ViewChanged& e);
  void apply(effect::Deliver& e);
  void apply(effect::Elected& e);
  void apply(effect::Admitted& e);
  void apply(effect::BoundaryPassed& e);
  void apply(effect::BoundaryFailed& e);
  void apply(effect::Gone& e);
  void apply(effect::Probe& e);
  void apply(effect::Notice& e);
  void apply(exchange_effect::SendReady& e);
  void apply(exchange_effect::Do& e);
  void apply(exchange_effect::Wake& e);
  void apply(exchange_effect::Complete& e);
  void apply(exchange_effect::More& e);
  void apply(exchange_effect::Mismatch& e);
  void apply(exchange_effect::Replay& e);
  void apply(exchange_effect::Discard& e);

  // data
  void pump(PeerId peer);
  void note_full(PeerId peer);
  bool send_chunk(PeerId peer, net::Connection& stripe, Sends::Send send);
  void send_again(PeerId peer, net::Connection& stripe, Sends::Send send);
  const std::uint8_t* source_of(Sends::Send& send);
  const std::uint8_t* made_for(Sends::Send& send);
  void release(Sends::Send& send);
  bool may_take(const net::Connection& stripe) const;
  net::Landing land_chunk(PeerId peer, net::Connection& stripe, ByteView head, std::size_t bytes);
  net::Landing land_block(PeerId peer, net::Connection& stripe, ByteView head, std::size_t bytes);
  void offer_parked(PeerId from, const wire::DataHeader& header, std::unique_ptr<std::uint8_t[]> bytes);
  std::uint8_t* prepare(PeerId from, const wire::DataHeader& header, const Landing& landing,
                        Incoming& incoming);
  void not_finite(const OpKey& key, const std::string& what, bool own = true);
  void none_finite(const OpKey& key);
  static std::vector<PeerId> skipped_in(const Running& running);
  void report_skipped(const OpKey& key, const Running& running, OperationResult& result);
  void serve_block(PeerId peer, const BlockRequest& request);
  void send_fetches(PeerId donor);
  std::vector<Fetch>::iterator fetch_of(PeerId donor, const wire::BlockHeader& block);
  void take_block(PeerId donor, const BlockAt& block);
  void block_arrived(const wire::BlockHeader& block);
  void stop_using(const OpKey& key);  // no frame reads or writes its memory any more
  void forget_in_flight(PeerId peer);
  void unland(Incoming incoming);
  void make_room_for(const wire::DataHeader& header);

  // records
  void note(EventKind kind, Instant at, PeerId peer = no_peer, std::uint64_t a = 0, std::uint64_t b = 0);
  void note(EventKind kind, Instant at, const OpKey& key, Call call, PeerId peer = no_peer,
            std::uint64_t a = 0, std::uint64_t b = 0);
  void note_posted(const Running& running, const OpKey& key);
  void note_sent(PeerId peer, const OpKey& key, std::uint64_t bytes);
  void note_arriving(PeerId peer, const OpKey& key, std::uint64_t bytes);
  void note_arrived(PeerId peer, const OpKey& key);
  void note_flows(const OpKey& key, Running& running);
  void note_end(const OpKey& key, const Running& running, const Outcome& outcome, Instant now);
  void count_end(const OperationResult& result);
  void dump_failure(const Outcome& outcome, Instant now);
  void note_missing(Instant now);
  void tell_slow(Instant now);
  Diagnosis diagnosis();
  OperationNow operation_now(const Operation& operation, Instant now);
  LinkNow link_now(const Flow& flow, const Exchange::Attempt* attempt, Instant now);
  std::vector<LinkState> link_states(const OpKey& key);

  // chunks that stay where they are, between peers of one host
  struct Offered {
    PeerId peer = no_peer;
    Sends::Send send;
    ChunkAt chunk;
  };
  struct Reference {
    PeerId peer = no_peer;
    ChunkAt chunk;
  };
  struct Borrowing {
    std::set<std::uint64_t> numbers;  // heard of, and not said to be taken yet
    std::size_t queued = 0;           // of these: in references_
  };
  bool may_offer(PeerId peer) const;
  bool offer_chunk(PeerId peer, Sends::Send& send, const std::uint8_t* data);
  void offer_again(PeerId peer);
  void chunks_taken(PeerId peer, const ChunksTaken& message);
  void forget_offers(const std::function<bool(const Offered&)>& which);
  bool host_message(PeerId peer, const BetweenPeers& message);
  bool hear_of(PeerId peer, const ChunkAt& chunk);
  bool keeps_many(PeerId peer) const;
  void take_references();
  void take_reference(const Reference& reference);
  void take_mapped(const Reference& reference, const Landing& landing, SameHost::Mapped source);
  void gather(const wire::DataHeader& header);
  void read_reference(const Reference& reference, const Landing& landing);
  void want_bytes(const Reference& reference, LocalWays failing);
  void note_taken(PeerId peer, std::uint64_t number);
  void tell_taken(bool all);
  void forget_references(PeerId peer);
  void forget_references(const OpKey& key);

  void link_up(PeerId peer) override;
  void link_down(PeerId peer, const std::string& why) override;
  void dial_failed(PeerId peer, bool refused, const std::string& why) override;
  bool link_message(PeerId peer, const BetweenPeers& message) override;
  net::Landing link_payload(PeerId peer, net::Connection& stripe, wire::FrameKind kind, ByteView head,
                            std::size_t bytes) override;
  bool link_payload_end(PeerId peer, net::Connection& stripe) override;
  void link_sent(PeerId peer, net::Connection& stripe, std::uint64_t token) override;
  void link_received(PeerId peer, net::Connection& stripe, std::uint64_t payloads) override;
  void stripe_closed(net::Connection& stripe) override;
  void stripe_broke(PeerId peer, net::Connection& stripe) override;
  void stripe_added(PeerId peer, const std::string& mended) override;
  void master_up() override;
  void master_message(const ToPeer& message) override;
  void master_down(const Error& why) override;
  void master_unreachable(const Error& why, bool hopeless) override;
  void master_news(const std::string& text) override { log(text); }
  void link_news(const std::string& text) override { log(text); }

  PeerOptions options_;
  std::unique_ptr<Hub> hub_;
  Links links_;
  MasterLink master_;
  int owner_process_;
  std::shared_ptr<Promise<Error>> admitted_ = std::make_shared<Promise<Error>>();

  // I/O thread only
  std::unique_ptr<Session> session_;
  std::unique_ptr<Exchange> exchange_;
  UndoPool undo_pool_;
  std::map<OpKey, Running> running_;
  std::vector<Unsourced> unsourced_;  // in the order of the calls
  std::map<OpKey, std::shared_ptr<StateHandle>> states_;
  std::vector<Fetch> fetches_;
  std::map<const net::Connection*, Incoming> incoming_;
  Sends sends_;
  std::map<PeerId, std::deque<Sends::Send>> again_;  // what a broken stripe had not delivered
  std::map<ParkedId, std::unique_ptr<std::uint8_t[]>> parked_;
  std::map<ParkedId, std::pair<PeerId, wire::DataHeader>> parked_headers_;
  std::vector<PeerId> woken_;
  std::vector<exchange_effect::More> unfinished_;  // go on in the next turn
  SlotPool slots_;
  Prober prober_{links_, woken_};
  LinkSpeeds speeds_{links_};
  SameHost same_host_;
  std::map<std::uint64_t, Offered> offers_;  // by number: not taken yet
  std::map<PeerId, std::size_t> offered_;    // how many of them to whom
  std::uint64_t next_offer_ = 1;
  std::deque<Reference> references_;  // not looked at yet
  std::map<PeerId, Borrowing> borrowing_;
  // Parts of sums in other processes: all of one sum are read when the last is there, while they are in the
  // cache.
  using SumOf = std::tuple<AttemptId, std::int32_t, std::uint32_t>;
  std::map<SumOf, std::vector<Reference>> gathering_;
  std::map<PeerId, ChunksTaken> taken_;  // to be told
  std::uint8_t nothing_ = 0;             // where bytes land that there are none of
  std::vector<ExchangeEffect> exchange_effects_;
  Recorder recorder_;
  std::map<PeerId, FullTime> full_;
  PeerTotals totals_;
  std::uint32_t dumps_ = 0;
  Instant dumped_at_ = 0;
  std::vector<PeerId> skipped_;  // in the last operation that may skip
  std::shared_ptr<Promise<BoundaryResult>> boundary_;
  std::vector<PeerId> boundary_members_;  // when its caller came
  Error ended_;
  Instant links_ticked_ = 0;
  bool stop_ = false, draining_ = false;
  Instant give_up_dialling_ = never;

  mutable std::mutex status_mutex_;  // guards status_ and threads_
  PeerStatus status_;
  std::set<int> threads_;  // that have posted
  std::atomic<int> blocked_{0};
  std::atomic<bool> closed_{false};
  std::mutex close_mutex_;  // guards thread_
  std::unique_ptr<std::thread> thread_;
};

}  // namespace pccl
