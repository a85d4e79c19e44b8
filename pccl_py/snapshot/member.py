"""The keeper as a member of the run: a thread that talks with the other keepers, round after round, and does
what `decide` says. It touches what the keeper holds through the loop alone.

Every operation ends in the same way at all keepers that are left, and all that follows from it is the same at
all of them: so they stay in step without a leader. Where one fails, the round begins anew.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from ..communicator import Communicator
from ..errors import CollectiveError, UsageError
from . import messages, standing
from .bringing import Bringing
from .calls import Calls
from .coding import AGAIN_S, Coding
from .decide import Encode, Gone, Move, Rescue, Work, attached, decide, needless
from .generation import decode as decode_generation
from .holding import FileKey
from .protection import Protection
from .rounds import from_one, to_all
from .scrub import Scrub
from .standing import Standing, Word


@dataclass(frozen=True, slots=True)
class _Here:
    """What this keeper knows of itself when a round begins. `told`: losses and bytes of parities, as its
    trainers are told."""

    standing: Standing
    capacities: list[int]
    told: tuple[int, int]


logger = logging.getLogger("pccl_py.keeper")
AT_ONCE = 0.0
IDLE_S = 0.1  # between rounds in which there was nothing to do
JOIN_AGAIN_S = 2.0
FAREWELL_S = 5.0


class RunMember:
    """`start` joins in the background; `stop` leaves, after a last round."""

    def __init__(self, name: str, said: messages.Protect, protection: Protection, calls: Calls) -> None:
        self._said, self._protection, self._calls = said, protection, calls
        self._over, self._news = threading.Event(), threading.Event()
        self._coding = Coding(name, said, protection, calls)
        self._bringing = Bringing(self._coding, lambda: not self._over.is_set())
        self._scrub = Scrub(self._coding)
        self._name = name
        self._spoken: tuple[Standing | None, bytes] = (None, b"")
        self._heard: dict[bytes, Standing] = {}  # in the last round
        self._was_heard = False  # what it said then
        self._freed: set[str] = set()
        self._elsewhere: set[str] = set()  # trainers that were attached to others in the last round
        self._thread = threading.Thread(target=self._run, name="pccl-keeper-member", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        self._over.set()
        self._news.set()
        self._thread.join(FAREWELL_S)

    def wake(self) -> None:
        self._news.set()

    def unmap(self, file: FileKey) -> None:
        self._coding.mapped.forget(file)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                self._as_member()
            except Exception as error:
                logger.warning("not in the run at %s: %s", self._said.master, error)
                self._blame(str(error))
                self._over.wait(JOIN_AGAIN_S)

    def _blame(self, why: str) -> None:
        self._calls.later(lambda: self._protection.blame(why))

    def _as_member(self) -> None:
        said = self._said
        with Communicator(
            said.master,
            role="keeper",
            secret_file=said.secret_file or None,
            encrypt=said.encrypt if said.secret_file else None,
            insecure=said.insecure,
            run_name=said.run_name,
            listen=said.listen or None,
            advertise=said.advertise or None,
        ) as comm:
            while not self._over.is_set():
                pause = self._tried(comm)
                self._news.wait(AGAIN_S if pause is None else pause)
                self._news.clear()
            # What this keeper has freed, the others have to hear: else they bring it back for nobody.
            until = time.monotonic() + FAREWELL_S
            while self._tried(comm) is None and time.monotonic() < until:
                time.sleep(AGAIN_S)

    def _tried(self, comm: Communicator) -> float | None:
        """A round. What to wait then; None: it failed."""
        try:
            return self._round(comm)
        except (CollectiveError, UsageError) as error:
            logger.info("a round begins anew: %s", error)
            return None

    def _round(self, comm: Communicator) -> float:
        """What to wait before the next one."""
        here = self._calls.ask(self._looked)
        self._was_heard = False
        said = self._hear(to_all(comm, self._words_of(here.standing), standing.STANDING_BYTES_MAX))
        self._was_heard = True
        self._freed |= {word.name for one in said for word in one.freed}
        self._elsewhere = attached(one for one in said if one.keeper != self._name)
        self._freed -= attached(said)  # come again
        self._share_what_is_known(comm, said)
        self._drop_needless(said)
        self._tell(said, here.told)
        if any(one.doubts for one in said):
            self._bringing.doubts = False
            self._scrub.all()
            return 0.0
        work = decide(said, self._coding.known)
        if work is not None:
            if not isinstance(work, Encode):
                logger.info("%s, of %d keepers", work, len(said))
            self._do(comm, work, said)
        else:
            self._scrub.some()
        changed = comm.update_topology()
        return self._pause(work, changed, said, here.capacities)

    def _pause(self, work: Work | None, changed: bool, said: list[Standing], capacities: list[int]) -> float:
        """`changed`: who came may want what it has lost, and its first round waits for the others."""
        if work is not None or changed or self._coding.expect(said, capacities):
            return AT_ONCE
        return IDLE_S

    def _words_of(self, mine: Standing) -> bytes:
        """As in the round before, where they are the same."""
        if mine != self._spoken[0]:
            self._spoken = (mine, mine.encode())
        return self._spoken[1]

    def _hear(self, words: list[bytes]) -> list[Standing]:
        before = self._heard
        self._heard = {one: before[one] if one in before else standing.decode(one) for one in words}
        return [self._heard[one] for one in words]

    def _tell(self, said: list[Standing], told: tuple[int, int]) -> None:
        """How many more the generation survives, now that some are gone or have lost their part; what its
        parities take."""
        known, (losses, _) = self._coding.known, told
        if known is not None:
            losses = known.losses(known.keepers - {one.keeper for one in said if one.intact == known.number})
        taken = self._coding.parity_bytes
        if (losses, taken) != told:
            self._calls.later(lambda: self._protection.tell(losses, taken))

    def _drop_needless(self, said: list[Standing]) -> None:
        rank = next(at for at, one in enumerate(said) if one.keeper == self._name)
        share = self._coding.share
        in_share = set() if share is None else {lane.trainer for lane in share.lanes}
        over, elsewhere = needless(said, rank, self._freed, in_share, self._coding.known)
        if over or elsewhere:
            self._calls.ask(lambda: self._protection.drop(over, elsewhere))

    def _looked(self) -> _Here:
        """On the loop."""
        protection = self._protection
        protection.round_begins(self._was_heard)
        told = (protection.losses, protection.parity_bytes)
        return _Here(self._standing(), protection.capacities(), told)

    def _standing(self) -> Standing:
        protection, coding = self._protection, self._coding
        known = set() if coding.known is None else set(coding.known.places())
        protection.freed -= self._elsewhere  # what they take there is wanted, if they are lost
        freed = (self._freed | protection.freed) & known
        return Standing(
            self._name,
            self._said.domain,
            self._said.parity,
            tuple(protection.held()),
            tuple(Word(name) for name in protection.wants()),
            tuple(Word(name) for name in sorted(self._bringing.hopeless)),
            tuple(Word(name) for name in sorted(freed)),
            0 if coding.known is None else coding.known.number,
            coding.intact(),
            self._bringing.doubts,
        )

    def _share_what_is_known(self, comm: Communicator, said: list[Standing]) -> None:
        """Newcomers learn of the newest generation."""
        newest = max(one.known for one in said)
        if all(one.known == newest for one in said):
            return
        rank = next(at for at, one in enumerate(said) if one.known == newest)
        words = self._coding.described() if comm.rank == rank else b""
        size = int.from_bytes(from_one(comm, rank, len(words).to_bytes(8, "little"), 8), "little")
        told = decode_generation(from_one(comm, rank, words, size))
        self._coding.learn(told)

    def _do(self, comm: Communicator, work: Work, said: list[Standing]) -> None:
        match work:
            case Encode():
                ranks = {one.keeper: rank for rank, one in enumerate(said)}
                if self._coding.encode(comm, work.generation, ranks):
                    self._bringing.hopeless.clear()
                else:
                    self._over.wait(self._coding.pause_s)
            case Rescue():
                self._bringing.rescue(comm, work, said)
            case Move():
                self._bringing.move(comm, work)
            case Gone() if comm.rank == work.owner:
                gone = work
                code = "gone" if gone.held else "none"
                self._calls.ask(lambda: self._protection.refuse(gone.trainer, code, gone.why))
            case Gone():
                pass
