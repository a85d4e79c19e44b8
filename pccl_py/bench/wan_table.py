"""Rows of `bench wan` as a table, printed row by row, as they come."""

from __future__ import annotations

from .wan import Row

_TITLE = (
    f"{'bytes':>12} {'ops':>4} {'seconds':>10} {'first':>10} {'algbw':>7} {'busbw':>7} {'bound':>8} {'by':>8}"
    f" {'x bound':>7} {'+commit':>7} {'cpu s':>8} {'ok':>3} {'lost':>6} {'dropped':>7} {'late us':>7}"
)


def head(row: Row) -> str:
    options = row.options
    rate = f"{options.rate_mbit:g} Mbit/s per {options.rate_of}" if options.rate_mbit else "no rate limit"
    lines = [
        f"# wan, all_reduce, sum of float32, {options.peers} peers, out of place; {options.rtt_ms:g} ms RTT"
        f" ({options.commit_s * 1e3:g} to the master), {rate}, loss {options.loss:g}",
        f"# transport tcp, congestion control {row.congestion_control}, {row.stripes} stripes",
        "# seconds: median, from the last call to the last result, commit included; first: with new"
        " connections; algbw, busbw in GB/s",
        "# bound: of the quickest plan, bytes at the rate plus hops; x bound: seconds / bound; +commit: with"
        " a round trip to the master in the bound",
        "# lost, dropped: packets; late us: how late the emulator was on average",
    ]
    return "\n".join([*lines, _TITLE])


def line(row: Row) -> str:
    seconds, bounds = row.seconds, row.bounds
    plan = min(bounds, key=bounds.__getitem__)
    algbw = row.size / seconds / 1e9
    busbw = algbw * 2 * (row.options.peers - 1) / row.options.peers
    with_commit = seconds / (bounds[plan] + row.options.commit_s)
    cpu = sorted(run.cpu for run in row.runs)[len(row.runs) // 2]
    return (
        f"{row.size:>12} {len(row.runs):>4} {seconds:>10.4f} {row.first.seconds:>10.4f} {algbw:>7.4f}"
        f" {busbw:>7.4f} {bounds[plan]:>8.4f} {plan:>8} {seconds / bounds[plan]:>7.2f} {with_commit:>7.2f}"
        f" {cpu:>8.4f} {'yes' if row.right else 'NO':>3} {row.wire.lost:>6} {row.wire.dropped:>7}"
        f" {row.wire.late_mean_us:>7.0f}"
    )
