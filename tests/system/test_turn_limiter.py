"""Few begin at a turn of the loop, all come to theirs, in order."""

from __future__ import annotations

import asyncio

from supervisord_async.system.turn_limiter import TurnLimiter
from supervisord_async.system.wait_condition import WaitCondition


def test_few_pass_at_a_turn_and_all_in_order() -> None:
    async def main() -> None:
        turns, turn = TurnLimiter(3), 0
        passed: list[tuple[int, int]] = []

        def count() -> None:
            nonlocal turn
            turn += 1
            if len(passed) < 10:
                asyncio.get_running_loop().call_soon(count)

        asyncio.get_running_loop().call_soon(count)
        for number in range(10):
            turns.take(lambda number=number: passed.append((number, turn)))  # type: ignore[misc]
        while len(passed) < 10:
            await asyncio.sleep(0)
        assert [number for number, _ in passed] == list(range(10))
        per_turn = [sum(at == one for _, at in passed) for one in {at for _, at in passed}]
        assert max(per_turn) <= 3

    asyncio.run(main())


def test_nothing_turns_while_nobody_waits() -> None:
    async def main() -> None:
        turns = TurnLimiter(2)
        turns.take(lambda: None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert not asyncio.get_running_loop()._ready  # type: ignore[attr-defined]
        turns.take(lambda: None)

    asyncio.run(main())


def test_a_condition_is_heard_at_a_ring_or_at_a_time() -> None:
    async def main() -> None:
        condition, loop = WaitCondition(), asyncio.get_running_loop()
        loop.call_soon(condition.notify)
        await condition.wait(loop.time() + 3600)
        until = loop.time() + 0.01
        await asyncio.wait_for(condition.wait(until), 10)
        condition.notify()  # nobody waits: nothing happens
        waiting = asyncio.ensure_future(condition.wait())
        await asyncio.sleep(0)
        assert not waiting.done()
        condition.notify()
        await asyncio.wait_for(waiting, 10)

    asyncio.run(main())
