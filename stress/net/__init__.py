"""An emulator of a wide-area network, for real processes on one machine.

Every peer lives in a network namespace of its own; all packets between them go through one small program
(the C++ here, compiled on first use), which gives each direction of each link its delay, jitter, rate, queue
and loss, and cuts what it is told to cut. Needs Linux, root, /dev/net/tun and g++; raises NoEmulator else.

    with Emulator(peers=4, rtt_ms=80, rate_mbit=250, loss=0.001) as net:
        subprocess.Popen(net.command(0, sys.executable, "peer.py"))
        net.cut(0, 1, one_way=True)
"""

from .emulator import Emulator
from .errors import EmulatorDied, NoEmulator
from .stats import LinkStats, NetworkStats

__all__ = ["Emulator", "EmulatorDied", "LinkStats", "NetworkStats", "NoEmulator"]
