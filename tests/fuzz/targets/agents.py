"""What agents and clients say in a call: protocol messages, events, the chat of Pipecat's clients, data channels."""

import contextlib
import json
import struct
from functools import partial

from tests.fuzz.target import Script, Target
from tests.support.pipeline_world import PipelineWorld
from tests.support.rtvi import Chat
from tests.support.sctp import World as SctpWorld
from tests.support.sctp import build_open
from voicefleet_dataplane.core.call.sctp.chunks import build_chunk, build_data, build_packet, parse_packet
from voicefleet_dataplane.core.call.sctp.dcep import DCEP, Terms
from voicefleet_dataplane.media.agent import AgentError, Clear, End, Forgive, Mark, Say, Send, Tell
from voicefleet_dataplane.media.backend import CallConfig, Cleared, Digit
from voicefleet_dataplane.media.media_stream import MediaStream
from voicefleet_dataplane.media.openai_realtime import OpenAIRealtime
from voicefleet_dataplane.media.opus_stream import OpusStream
from voicefleet_dataplane.media.pipeline.chat import Finished, TextDelta
from voicefleet_dataplane.media.realtime_profiles import Profile

MAKERS = (MediaStream, OpusStream, *(partial(OpenAIRealtime, profile=profile, model="m") for profile in Profile))
ACTIONS = (Send, Say, Mark, Clear, Tell, End, Forgive)
CHANNEL = build_open(Terms("oai-events"))


def said(script: Script) -> str:
    return script.chunk().decode(errors="replace")


def agent(data: bytes) -> None:
    """A story of one connection: who speaks which dialect is its first byte."""
    script = Script(data)
    protocol = script.pick(MAKERS)(CallConfig("call_1", "acme", {"instructions": "be brief"}))
    actions = protocol.open()
    while script.goes_on:
        what = script.number() % 8
        with contextlib.suppress(AgentError):
            match what:
                case 0 | 1 | 2:
                    actions += protocol.receive(said(script))
                case 3:
                    actions += protocol.receive(script.chunk())
                case 4:
                    actions += protocol.event(said(script))
                case 5:
                    actions += protocol.digit(Digit("1", 20))
                case 6:
                    actions += protocol.playing("item") + protocol.marked(said(script))
                case _:
                    cleared = Cleared("item", script.number(2), (said(script),))
                    actions += protocol.cleared(cleared, was_speaking=True)
    actions += protocol.close("over")
    for action in actions:
        assert isinstance(action, ACTIONS)
        if isinstance(action, Tell):
            assert isinstance(json.loads(action.event), dict)


def story(*messages: object, dialect: int = 0) -> bytes:
    packed = bytes([dialect])
    for message in messages:
        text = message if isinstance(message, bytes) else json.dumps(message).encode()
        packed += bytes([3 if isinstance(message, bytes) else 0, len(text)]) + text
    return packed


def pipeline(data: bytes) -> None:
    """A client's events, and what engines answer between them; every event of ours must fit the API's schema."""
    script, world = Script(data), PipelineWorld()
    while script.goes_on:
        turn = world.asked[-1].turn if world.asked else "none"
        job = world.sentences[-1].job if world.sentences else "none"
        match script.number() % 8:
            case 0 | 1 | 2 | 3:
                world.do(world.client_events.take(said(script), world.now))
            case 4:
                world.speech(20 * script.number())
                world.silence(20 * script.number())
            case 5:
                world.do(world.core.words(world.concluded[-1] if world.concluded else "none", said(script), world.now))
            case 6:
                world.do(world.core.answered(turn, [TextDelta(said(script)), Finished()], world.now))
                world.do(world.core.sound(job, bytes(20 * 48), world.now))
            case _:
                world.play(20 * (script.number() % 16))
                world.wait(script.number() / 16)


def chat(data: bytes) -> None:
    script, room = Script(data), Chat()
    while script.goes_on:
        if script.number() % 2:
            room.rtvi.on_message(said(script))
        else:
            room.rtvi.on_event(said(script))


def sctp(data: bytes) -> None:
    """Authentic nonsense in an association that is up: chunks that are whole, of any kind, with any values; and time."""
    script, world = Script(data), SctpWorld().up()
    tag = int.from_bytes(world.client.sent[-1][4:8])
    while script.goes_on:
        match script.number() % 4:
            case 0:
                packet = build_packet(
                    (5000, 5000), tag, [build_chunk(script.number(), script.chunk(), script.number())]
                )
            case 1:
                tsn = (
                    world.client.association.export(world.now)["next_tsn"] if False else script.number(4)
                ) & 0xFFFFFFFF
                chunk = build_data(script.number() % 8, tsn, script.number(2), script.number(2), DCEP, script.chunk())
                packet = build_packet((5000, 5000), tag, [chunk])
            case 2:
                packet = script.bent(world.client.sent[script.number() % len(world.client.sent)])
            case _:
                world.pass_time(script.number() / 32)
                continue
        parse_packet(packet)
        world.ours.channels.receive(packet, world.now)
        world.ours.drain()
        world.ours.channels.poll(world.now)
        assert world.ours.association.held_bytes <= 4 << 20


def chunk_story(*chunks: tuple[int, bytes]) -> bytes:
    return b"".join(bytes([0, kind, len(value)]) + value + b"\0" for kind, value in chunks)


_WORDS = [b'"type":', b'"event":', b"null", b"1e999", b"{}", b"[]", b'"session"', b'"delta"', b'"item_id"', b'"media"']
_TYPES = [
    *("session.created", "session.updated", "response.output_audio.delta", "response.audio.delta", "response.done"),
    *("input_audio_buffer.speech_started", "error", "transcription.delta", "tag", "mark", "clear", "hang_up", "event"),
]
_EVENTS: list[object] = [
    {"type": "session.update", "session": {"type": "realtime", "tools": [{"type": "function", "name": "f"}]}},
    {"type": "response.create", "response": {"instructions": "be brief", "output_modalities": ["text"]}},
    {"type": "conversation.item.create", "item": {"type": "message", "role": "user", "content": []}},
    {"type": "conversation.item.truncate", "item_id": "item_1", "audio_end_ms": 1, "content_index": 0},
    {"type": "conversation.item.delete", "item_id": "item_1"},
]
TARGETS = [
    Target(
        "agent",
        agent,
        [
            story({"event": "media", "media": {"payload": "AAAA"}}, {"event": "mark", "mark": {"name": "m"}}),
            story({"type": "tag", "tag": "a"}, b"\x48opus", {"type": "mark", "name": "x"}, dialect=1),
            *(
                story(
                    {"type": "session.created", "session": {"id": "s", "model": "m"}},
                    {"type": "response.output_audio.delta", "item_id": "i", "delta": "AAAA", "response_id": "r"},
                    {"type": "error", "error": {"code": "c", "message": "m"}},
                    dialect=2 + number,
                )
                for number in range(len(Profile))
            ),
        ],
        words=[*_WORDS, *(json.dumps(kind).encode() for kind in _TYPES)],
        max_bytes=4_000,
        tries=500,
    ),
    Target(
        "pipeline",
        pipeline,
        [story(*_EVENTS), b"\x04\x30\x30\x05\x05hello\x06\x09Yes. No. \x07\x40\x40" + story(*_EVENTS)[1:]],
        words=_WORDS,
        max_bytes=2_000,
        tries=200,
        steps_per_byte=60_000,
        steps_at_least=400_000,
    ),
    Target(
        "rtvi",
        chat,
        [
            story({"label": "rtvi-ai", "type": "client-ready", "id": "1", "data": {}}, dialect=1),
            b"\x01" + story({"label": "rtvi-ai", "type": "dtmf", "data": {"buttons": ["1"]}})[2:],
            b"\x00"
            + story({"type": "response.output_item.done", "item": {"type": "function_call", "arguments": "{"}})[2:],
        ],
        words=[*_WORDS, b'"label":"rtvi-ai"', b'"data":', b'"buttons"', b'"arguments"'],
        tries=500,
        steps_per_byte=4_000,
    ),
    Target(
        "sctp",
        sctp,
        [
            chunk_story(
                (3, bytes(12)), (7, bytes(4)), (14, b"\0"), (132, b"x" * 12), (192, bytes(8)), (130, bytes(16))
            ),
            bytes([1, 3]) + struct.pack("!IHH", 1, 0, 0) + bytes([len(CHANNEL)]) + CHANNEL,
            bytes([2, 1, 1, 0, 12, 255, 20, 3, 64]),
        ],
        max_bytes=600,
        tries=150,
        steps_per_byte=20_000,
        steps_at_least=400_000,
    ),
]
