"""Figure 13: how the cost of a message grows, or does not, from 1 to 1 000 sessions, and falls with the batch.

Reported, not met or missed. "Flat out" every runner floods; "paced" the whole is 500 messages a second.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from benchmarks.report import Row, told
from benchmarks.stage import cpu, stage

FIGURES: Final = (13,)


async def _seen(raw: Any) -> tuple[float, float]:
    """Calls of scripts so far, and bytes Redis was sent."""
    stats, commands = await raw.info("stats"), await raw.info("commandstats")
    calls = commands.get("cmdstat_evalsha", {}).get("calls", 0)
    return float(calls), float(stats["total_net_input_bytes"])


async def _measure(quick: bool) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    counts = (1, 40) if quick else (1, 10, 100, 1000)
    total = 20_000 if quick else 100_000
    async with stage() as on, on.client_redis() as raw:
        worker = await on.worker("--max-sessions", "1200")
        sessions = await on.sessions(1, "small")
        for count in counts:
            sessions += await on.sessions(count - len(sessions), "small")
            for name, prompt, messages in (
                ("flat out", f"flood {total // count}", total // count * count),
                ("paced", f"pace {500 / count} {max(2, 4 * count // 500)}", 500 * max(2, 4 * count // 500)),
            ):
                await on.turns(sessions, "flood 1")
                calls, got = await _seen(raw)
                had = cpu(worker.system), cpu(on.redis)
                await on.turns(sessions, prompt)
                spent = cpu(worker.system) - had[0], cpu(on.redis) - had[1]
                after = await _seen(raw)
                # The prompt and what it brings (its echo, two statuses, a receipt, the turn's cost) are five more.
                each = messages + 5 * count
                batch = each / max(1, after[0] - calls - count)
                rows.append(told(
                    13, f"{name}, {count} sessions: worker CPU; Redis CPU; bytes to Redis; a write", "",
                    f"{spent[0] / each * 1e6:.3g} us; {spent[1] / each * 1e6:.3g} us; {(after[1] - got) / each:.0f} B; "
                    f"{batch:.3g} events",
                ))  # fmt: skip
    return rows, []


def run(quick: bool, wanted: set[int]) -> tuple[list[Row], list[str]]:
    return asyncio.run(_measure(quick))
