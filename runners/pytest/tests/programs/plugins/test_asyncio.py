"""pytest-asyncio. Tests and fixtures that are not marked run in its automatic mode alone."""

import asyncio

import pytest
import pytest_asyncio


@pytest_asyncio.fixture
async def number():
    await asyncio.sleep(0)
    yield 7
    await asyncio.sleep(0)


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def server():
    async def answer(reader, writer):
        writer.write((await reader.readline()).upper())
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()


@pytest.mark.asyncio
async def test_marked(number):
    assert number == 7 and asyncio.get_running_loop()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("text", ["a", "b"])
async def test_server(server, text):
    reader, writer = await asyncio.open_connection(*server)
    writer.write(text.encode() + b"\n")
    assert await reader.readline() == text.upper().encode() + b"\n"
    writer.close()


@pytest.mark.asyncio
class TestClass:
    async def test_one(self, number):
        assert number == 7

    async def test_fails(self):
        await asyncio.sleep(0)
        assert 1 == 2


@pytest.mark.asyncio
async def test_leaves_a_task():
    asyncio.get_running_loop().create_task(asyncio.sleep(1000))


@pytest.mark.asyncio
async def test_threads():
    assert await asyncio.to_thread(sum, [1, 2]) == 3


@pytest.mark.asyncio
async def test_processes():
    process = await asyncio.create_subprocess_exec("echo", "said", stdout=asyncio.subprocess.PIPE)
    assert (await process.communicate())[0] == b"said\n"


async def test_not_marked():
    await asyncio.sleep(0)
