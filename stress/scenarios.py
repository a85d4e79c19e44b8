"""What `python -m stress run` can do to a run, by name."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from .churn import ChurnPlan
from .house import House, Network
from .oracles import PEERS_MAX
from .troubles.clocks import ClockJumps
from .troubles.cuts import Cuts
from .troubles.disk import FullDisk
from .troubles.lines import Losses, SlowLines
from .troubles.masters import MasterKills
from .troubles.stops import Stops
from .troubles.storms import Storms
from .troubles.trainers import Trainers
from .troubles.trouble import Trouble
from .windows import Limits

ALWAYS = "every value of every result, the shared state, agreement of all peers, progress, leaks"


@dataclass(frozen=True)
class Scenario:
    """`promises`: what is checked besides what always is. `network`: RTT in ms and Mbit/s of each link; None:
    loopback. `kills_per_s`: of peers; 0: only what the troubles do."""

    about: str
    promises: str
    troubles: tuple[type[Trouble], ...] = ()
    kills_per_s: float = 0.0
    network: tuple[float, float] | None = None
    limits: Limits = field(default_factory=Limits)
    patience: float = 0.0
    storms: bool = False

    @property
    def clocks(self) -> bool:
        return ClockJumps in self.troubles


_SMALL = Limits(in_flight=3, elements_max=1 << 14)  # what a slow line carries
_MIDDLE = Limits(in_flight=4, elements_max=1 << 16)

SCENARIOS: dict[str, Scenario] = {
    "churn": Scenario(
        "peers are killed, stopped, told to leave and started, two per second",
        "-",
        kills_per_s=2.0,
    ),
    "stop": Scenario(
        "peers are stopped (SIGSTOP) for some milliseconds or longer than the heartbeat limit, and go on",
        "the others go on after the limit, who was evicted comes back by itself",
        (Stops,),
    ),
    "partition": Scenario(
        "emulated network: hosts cut off, links cut in one direction or both, and healed",
        "the others go on after the limit; healed hosts come back by themselves",
        (Cuts,),
        network=(2.0, 500.0),
        limits=_MIDDLE,
    ),
    "slow_link": Scenario(
        "emulated network: links and hosts become slow (0.5 to 16 Mbit/s, 60 ms) and fast again",
        "all go on, slowly",
        (SlowLines,),
        network=(4.0, 500.0),
        limits=_SMALL,
    ),
    "loss": Scenario(
        "emulated network: 0.2 to 6 % of packets are lost, on one link or everywhere, some overtake",
        "all go on",
        (Losses,),
        network=(4.0, 500.0),
        limits=_SMALL,
    ),
    "master_kill": Scenario(
        "the master is killed and started again up to 1.5 s later, with a folder of views or without",
        "no operation is lost, nobody is evicted, all go on once it is back",
        (MasterKills,),
    ),
    "disk_full": Scenario(
        "a disk fills up and is freed under a process that saves checkpoints and is killed now and then",
        "who cannot save says why; what was durable is loaded, bit for bit; saves go on once there is room",
        (FullDisk,),
        limits=_MIDDLE,
    ),
    "clock_jump": Scenario(
        "wall clocks of single processes, the master or all jump by 0.2 s to 30 years, both ways",
        "nobody is evicted, nothing waits",
        (ClockJumps,),
    ),
    "join_storm": Scenario(
        "up to 8 peers come at the same moment, and leave or die together",
        "all that came are members in the end",
        (Storms,),
        limits=_MIDDLE,
        storms=True,
    ),
    "training": Scenario(
        "beside the peers, DiLoCo trainers with checkpoints and coded snapshots are stopped and killed, also "
        "with their keepers",
        "one shared state after each window; states come back as they were, bit for bit; no keeper is left",
        (Trainers,),
        limits=_MIDDLE,
    ),
    "everything": Scenario(
        "all of the above at once, on an emulated network",
        "the same, 20 s later at most",
        (Stops, Cuts, SlowLines, Losses, MasterKills, FullDisk, ClockJumps, Storms, Trainers),
        kills_per_s=0.5,
        network=(2.0, 500.0),
        limits=_SMALL,
        patience=20.0,
        storms=True,
    ),
}


def plan_of(
    name: str, seed: int, seconds: float, peers: int, hang_s: float, keep: Path | None, sabotage: str | None
) -> ChurnPlan:
    """Begins the network where the scenario has one. Raises NoEmulator."""
    scenario = SCENARIOS[name]
    house = House()
    if scenario.network is not None:
        places = PEERS_MAX if scenario.storms else peers
        house = Network(places, seed, *scenario.network)
    kills = scenario.kills_per_s * seconds
    return ChurnPlan(
        seed,
        seconds,
        peers,
        round(kills),
        scenario.limits,
        hang_s=hang_s + scenario.patience,
        keep=keep,
        sabotage=sabotage,
        calm=kills == 0,
        troubles=scenario.troubles,
        house=house,
        stored=MasterKills in scenario.troubles and (seed % 2 == 0 or name == "everything"),
        patience=scenario.patience,
    )


def listed() -> str:
    """For people: each scenario, what happens, and what is checked."""
    lines = [f"Always checked: {ALWAYS}.", ""]
    for name, scenario in SCENARIOS.items():
        lines += [f"{name:12} {scenario.about}", f"{'':12}   {scenario.promises}"]
    return "\n".join(lines)
