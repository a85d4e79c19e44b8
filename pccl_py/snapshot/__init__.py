"""Snapshots in memory: a keeper process holds the newest complete state of each trainer on this host, and
outlives it.

`snapshots.py` is what a training uses; `keeper.py` is the process; what both say to each other is in
`messages.py`. The keeper needs no torch: what it holds is bytes to it.
"""
