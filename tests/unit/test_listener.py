"""A bounded listener over real TCP and TLS: what is left unfinished ends, and an address' flood leaves others room."""

import asyncio
import ipaddress
import ssl

import pytest
import uvloop

from tests.support.raw_clients import GET, listening, read_answer, read_to_end, server_context
from voicefleet_dataplane.commands.dev_secrets import write_dev_secrets
from voicefleet_listener.bounds import Bounds, Drop

PROXIED = (ipaddress.ip_network("127.0.0.1/32"),)
SHORT_S = 0.2


@pytest.fixture(
    scope="module", params=[asyncio.DefaultEventLoopPolicy, uvloop.EventLoopPolicy], ids=["asyncio", "uvloop"]
)
def event_loop_policy(request):
    """Operators run on asyncio's loop, dataplane processes on uvloop."""
    return request.param()


@pytest.fixture(scope="module")
def https(tmp_path_factory):
    directory = tmp_path_factory.mktemp("secrets")
    write_dev_secrets(directory, "sk-test-0123456789abcdef")
    return directory / "https"


def trust(https):
    return ssl.create_default_context(cafile=str(https / "ca.crt"))


async def get(one, **options):
    reader, writer = await one.connect(**options)
    writer.write(GET)
    answer = await read_answer(reader)
    writer.close()
    return answer


async def test_half_open_tls_ends(https):
    async with listening(Bounds(handshake_s=SHORT_S), server_context(https)) as one:
        halves = [await one.connect() for _ in range(20)]
        for reader, _ in halves:
            assert await read_to_end(reader) == b""
        assert one.drops(Drop.HANDSHAKE) == 20
        assert await get(one, tls=trust(https)) == (200, "127.0.0.1\n")


async def test_a_flood_from_one_address_leaves_room_for_another(https):
    async with listening(Bounds(connections=20, connections_of_address=10), server_context(https)) as one:
        flood = [await one.connect("127.0.0.2") for _ in range(60)]
        for reader, _ in flood[10:]:
            assert await read_to_end(reader) == b""
        assert one.drops(Drop.ADDRESS_CONNECTIONS) == 50
        assert await get(one, source="127.0.0.3", tls=trust(https)) == (200, "127.0.0.3\n")


async def test_connections_are_bounded_in_all_and_the_oldest_of_whoever_has_most_makes_room():
    async with listening(Bounds(connections=4, connections_of_address=3)) as one:
        few = await one.connect("127.0.0.2")
        many = [await one.connect("127.0.0.3") for _ in range(3)]
        assert await get(one, source="127.0.0.9") == (200, "127.0.0.9\n")
        assert await read_to_end(many[0][0]) == b""
        assert one.drops(Drop.ALL_CONNECTIONS) == 1
        for reader, writer in (few, *many[1:]):
            writer.write(GET)
            assert (await read_answer(reader))[0] == 200


async def test_a_flood_of_half_open_tls_from_many_addresses_keeps_nobody_out(https):
    bounds = Bounds(connections=16, connections_of_address=4)
    async with listening(bounds, server_context(https)) as one:
        flood = [await one.connect(f"127.0.1.{1 + index % 40}") for index in range(120)]
        assert await get(one, source="127.0.0.9", tls=trust(https)) == (200, "127.0.0.9\n")
        for reader, _ in flood[:100]:
            assert await read_to_end(reader) == b""
        assert one.drops(Drop.ALL_CONNECTIONS) >= 104
        assert one.drops(Drop.HANDSHAKE) == 0


@pytest.mark.parametrize("head", [b"", b"GET / HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX-A: "])
async def test_an_unfinished_head_ends(head):
    async with listening(Bounds(head_s=SHORT_S)) as one:
        reader, writer = await one.connect()
        writer.write(head)
        assert await read_to_end(reader) == b""
        assert one.drops(Drop.HEAD_DEADLINE) == 1


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nX: " + b"a" * 4096,
        b"GET /" + b"a" * 4096,
        b"GET / HTTP/1.1\r\n" + b"X: a\r\n" * 700,
        b"GET / HTTP/1.1\r\nX: " + b"a" * 4096 + b"\r\n\r\n",
        b"\r\n" * 2048 + b"\r",
    ],
    ids=["one header", "the path", "many headers", "complete", "empty lines"],
)
async def test_a_head_that_is_too_long_gets_431(head):
    async with listening(Bounds(max_head_bytes=4096)) as one:
        reader, writer = await one.connect()
        writer.write(head)
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 431 ")
        assert one.drops(Drop.HEAD_BYTES) == 1


async def test_the_next_head_on_a_connection_is_bounded_too():
    async with listening(Bounds(max_head_bytes=4096)) as one:
        reader, writer = await one.connect()
        for _ in range(100):  # more than a head's bytes in all
            writer.write(GET.replace(b"Host", b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\r\nHost"))
            assert (await read_answer(reader))[0] == 200
        writer.write(b"GET /" + b"a" * 5000)
        assert (await read_to_end(reader)).startswith(b"HTTP/1.1 431 ")


async def test_requests_behind_one_that_is_served_are_bounded():
    async with listening(Bounds(max_head_bytes=4096)) as one:
        reader, writer = await one.connect()
        writer.write(b"GET /known HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            await one.entered.wait()
        writer.write(b"GET / HTTP/1.1\r\nX: " + b"a" * 5000)
        await read_to_end(reader)
        assert one.drops(Drop.HEAD_BYTES) == 1


async def test_an_unfinished_body_ends():
    async with listening(Bounds(body_s=SHORT_S)) as one:
        reader, writer = await one.connect()
        writer.write(b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc")
        await read_to_end(reader)
        assert one.drops(Drop.BODY_DEADLINE) == 1


async def test_a_body_longer_than_a_head_may_be_is_taken():
    async with listening(Bounds(max_head_bytes=4096)) as one:
        reader, writer = await one.connect()
        writer.write(b"POST /take HTTP/1.1\r\nHost: x\r\nContent-Length: 50000\r\n\r\n" + b"a" * 50_000)
        assert await read_answer(reader) == (200, "50000\n")


async def test_a_body_that_its_handler_did_not_read_is_no_head():
    async with listening(Bounds(max_head_bytes=4096)) as one:
        reader, writer = await one.connect()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 500000\r\n\r\n")
        assert (await read_answer(reader))[0] == 200
        writer.write(b"a" * 500_000)
        writer.write(GET)
        assert (await read_answer(reader))[0] == 200
        assert one.drops(Drop.HEAD_BYTES) == 0


async def test_who_does_not_read_is_ended():
    async with listening(Bounds(reader_s=SHORT_S)) as one:
        _, writer = await one.connect()
        writer.transport.pause_reading()
        writer.write(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            while not one.drops(Drop.READER_DEADLINE):
                await asyncio.sleep(0.02)


async def test_a_connection_between_requests_of_nobody_known_ends():
    async with listening(Bounds(idle_s=SHORT_S)) as one:
        reader, writer = await one.connect()
        writer.write(GET)
        assert (await read_to_end(reader)).endswith(b"127.0.0.1\n")


async def test_streams_of_callers_who_proved_who_they_are_pass_every_deadline_and_hold_no_place():
    bounds = Bounds(connections=1, head_s=SHORT_S, body_s=SHORT_S, reader_s=SHORT_S, idle_s=SHORT_S)
    async with listening(bounds) as one:
        reader, writer = await one.connect()
        writer.write(b"GET /known HTTP/1.1\r\nHost: x\r\n\r\n")
        async with asyncio.timeout(20):
            await one.entered.wait()
        (
            other,
            _,
        ) = await one.connect()  # a place: there is one only; and its deadline passes after the stream's would have
        assert await read_to_end(other) == b""
        assert one.drops(Drop.HEAD_DEADLINE) == 1
        one.go_on.set()
        async with asyncio.timeout(20):
            said = await reader.readuntil(b"0\r\n\r\n")
        assert b"late\n" in said
        writer.write(GET)
        assert await read_answer(reader) == (200, "127.0.0.1\n")


@pytest.mark.parametrize(
    "garbage", [b"\x16\x03\x01\x02\r\n\r\n", b"GET / HTTP/1.1\r\n:\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 200]
)
async def test_what_is_not_http_is_answered_and_writes_no_line(garbage, caplog):
    async with listening(Bounds()) as one:
        reader, writer = await one.connect()
        writer.write(garbage)
        assert b"400" in (await read_to_end(reader)).split(b"\r\n")[0]
        assert not caplog.records


async def test_a_handler_that_fails_is_logged(caplog):
    async with listening(Bounds()) as one:
        reader, writer = await one.connect()
        writer.write(GET.replace(b"GET / ", b"GET /fails "))
        assert (await read_answer(reader))[0] == 500
        assert "a bug" in caplog.text


@pytest.mark.parametrize(
    "header",
    [
        b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\xcb\x00\x71\x09\xc0\x00\x02\x01\x12\x67\x01\xbb",
    ],
    ids=["version 1", "version 2"],
)
async def test_a_trusted_load_balancer_names_the_client_before_tls(https, header):
    async with listening(Bounds(proxy_networks=PROXIED), server_context(https)) as one:
        reader, writer = await one.connect()
        writer.write(header)
        async with asyncio.timeout(20):
            await writer.start_tls(trust(https), server_hostname="127.0.0.1")
        writer.write(GET)
        assert await read_answer(reader) == (200, "203.0.113.9\n")


async def test_behind_a_load_balancer_each_client_is_counted_by_itself():
    async with listening(Bounds(connections=100, connections_of_address=3, proxy_networks=PROXIED)) as one:
        held = []
        for index in range(8):
            reader, writer = await one.connect()
            writer.write(b"PROXY TCP4 203.0.113.9 192.0.2.1 %d 443\r\n" % (4000 + index))
            held.append((reader, writer))
        for reader, _ in held[3:]:
            assert await read_to_end(reader) == b""
        assert one.drops(Drop.ADDRESS_CONNECTIONS) == 5
        for last in range(20, 24):  # more clients than one address may have connections
            reader, writer = await one.connect()
            writer.write(b"PROXY TCP4 203.0.113.%d 192.0.2.1 4711 443\r\n" % last + GET)
            assert await read_answer(reader) == (200, f"203.0.113.{last}\n")
            held.append((reader, writer))


@pytest.mark.parametrize("header", [b"", b"PROXY TCP4 ", GET, b"\x16\x03\x01" + b"\x00" * 64])
async def test_a_proxy_header_that_is_due_and_does_not_come_ends_the_connection(header):
    async with listening(Bounds(handshake_s=SHORT_S, proxy_networks=PROXIED)) as one:
        reader, writer = await one.connect()
        writer.write(header)
        assert await read_to_end(reader) == b""
        assert one.drops(Drop.PROXY_HEADER) == 1


async def test_a_proxy_header_of_anybody_else_is_no_header():
    async with listening(Bounds(proxy_networks=PROXIED)) as one:
        reader, writer = await one.connect("127.0.0.2")
        writer.write(b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n" + GET)
        assert b"400" in (await read_to_end(reader)).split(b"\r\n")[0]


async def test_a_forwarder_of_many_is_bounded_in_all_only():
    bounds = Bounds(connections=10, connections_of_address=2, forwarder_networks=PROXIED)
    async with listening(bounds) as one:
        held = [await one.connect() for _ in range(9)]
        assert await get(one) == (200, "127.0.0.1\n")
        assert len(held) == 9
