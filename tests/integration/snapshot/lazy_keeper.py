"""A keeper that looks at what it holds only when something came out wrong."""

from __future__ import annotations

import sys

from pccl_py.snapshot import keeper, scrub

if __name__ == "__main__":
    scrub.ROUND_BYTES = 0
    scrub.Scrub.some.__defaults__ = (0,)
    sys.exit(keeper.main(sys.argv[1:]))
