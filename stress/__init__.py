"""Real processes that are killed, stopped and started while they reduce together, and every result is
checked.

    python -m stress churn --seconds 60 --peers 4      kill -9, stop, leave and join at random, by a seed
    python -m stress recovery --kills 100 --peers 3    how long a kill interrupts the others
    python -m stress pause                             one peer stopped: evicted, and nobody burns CPU
    meanwhile
    python -m stress snapshots                         trainers and keepers killed while they code snapshots
    python -m stress net build                         compile the emulated network (stress/net)

The first three print a report (`--json`: one object) and exit with 0 only if there was no fault.
"""
