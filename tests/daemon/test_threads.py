"""What a thread does is waited for, whoever is in a hurry."""

import asyncio
import threading

import pytest

from firthd.threads import in_thread


async def test_a_cancelled_wait_for_a_thread_waits_for_its_end() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(5)
        ended.set()

    task = asyncio.create_task(in_thread(work))
    await asyncio.to_thread(begun.wait, 5)
    for _ in range(2):
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=0.01)
        assert not done
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
