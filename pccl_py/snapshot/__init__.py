"""Snapshots in memory: a keeper process holds the newest complete state of each trainer on this host, and
outlives it.

`snapshots.py` is what a training uses; `keeper.py` is the process; what both say to each other is in
`messages.py`. The keeper needs neither torch nor numpy's arrays of the state: it never maps what it holds.
"""
