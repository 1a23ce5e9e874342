"""anyio, on asyncio and on trio."""

import anyio
import pytest

pytestmark = pytest.mark.anyio


@pytest.fixture
async def streams():
    send, receive = anyio.create_memory_object_stream(1)
    async with send, receive:
        yield send, receive


async def test_streams(streams, anyio_backend_name):
    send, receive = streams
    await send.send(anyio_backend_name)
    assert await receive.receive() in ("asyncio", "trio")


async def test_only_on_one(anyio_backend_name):
    async with anyio.create_task_group() as group:
        group.start_soon(anyio.sleep, 0)
    assert anyio_backend_name == "asyncio"
