"""A pipeline's text handlers: hooks that answer, hang, flood, lie and break off, around a real voice."""

import asyncio
import json
import re

import pytest
from aiohttp import web

from tests.support.byte_server import byte_server
from tests.support.pipeline_calls import failed, pipeline, said_and_answered, spoken
from tests.support.text_hooks import HookDouble, serving
from voicefleet_dataplane.media.backend import Ending
from voicefleet_dataplane.media.pipeline.chat import MAX_ANSWER_BYTES


@pytest.mark.parametrize("way", ["http", "stream", "socket"])
async def test_a_hook_answers(way, tmp_path):
    (tmp_path / "key").write_text("sk-hook\n")
    hook = HookDouble(lambda body: f"I heard {body['messages'][-1]['content']}.")
    scheme = "ws" if way == "socket" else "http"
    settings = {"backend_key_file": str(tmp_path / "key"), "pipeline_text_model": "tiny"}
    async with serving(getattr(hook, way), scheme) as url, pipeline(backend_url=url, **settings) as call:
        await said_and_answered(call)
        assert call.told("response.output_audio_transcript.done")[0]["transcript"].startswith("I heard ")
        assert hook.asked[0]["model"] == "tiny"
        assert hook.asked[0]["messages"][0] == {"role": "system", "content": "be brief"}
        if hook.headers:
            assert hook.headers[0]["Authorization"] == "Bearer sk-hook"
        assert call.errors() == []


async def test_a_function_call_over_a_hook():
    async def answer(request: web.Request) -> web.Response:
        body = await request.json()
        if body["messages"][-1]["role"] == "tool":
            message: dict = {"content": f"It is {body['messages'][-1]['content']}."}
        else:
            function = {"name": body["tools"][0]["function"]["name"], "arguments": "{}"}
            message = {"content": None, "tool_calls": [{"id": "c1", "type": "function", "function": function}]}
        return web.json_response({"choices": [{"message": message}]})

    async with serving(answer) as url, pipeline(backend_url=url) as call:
        call.say_event(type="session.update", session={"tools": [{"type": "function", "name": "clock"}]})
        await call.speak(spoken())
        await call.until(lambda: call.told("response.done"))
        done = call.told("response.function_call_arguments.done")[0]
        item = {"type": "function_call_output", "call_id": done["call_id"], "output": "noon"}
        call.say_event(type="conversation.item.create", item=item)
        call.say_event(type="response.create")
        await call.until(lambda: call.told("output_audio_buffer.stopped"))
        assert call.told("response.output_audio_transcript.done")[0]["transcript"] == "It is noon."


async def redirect(request: web.Request) -> web.Response:
    raise web.HTTPTemporaryRedirect("http://127.0.0.1:1/")


async def say_500(request: web.Request) -> web.Response:
    return web.Response(status=500, text="out of order")


async def say_nonsense(request: web.Request) -> web.Response:
    return web.Response(text="nonsense")


async def say_nothing(request: web.Request) -> web.Response:
    return web.json_response({"choices": [{"message": {"content": ""}}]})


async def say_an_error(request: web.Request) -> web.Response:
    return web.json_response({"error": {"message": "no such model"}})


async def say_15_mb(request: web.Request) -> web.Response:
    return web.json_response({"choices": [{"message": {"content": "x" * 15_000_000}}]})


async def flood(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    with_nothing = b"data: " + json.dumps({"choices": [{"delta": {"role": "assistant"}}]}).encode() + b"\n\n"
    for _ in range(MAX_ANSWER_BYTES // len(with_nothing) * 4):
        await response.write(with_nothing)
    return response


async def break_off(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(b'data: {"choices":[{"delta":{"content":"Half a "}}]}\n\n')
    return response


@pytest.mark.parametrize(
    ("handler", "code", "said"),
    [
        (redirect, "text_handler_unreachable", "redirects to 'http://127.0.0.1:1/'"),
        (say_500, "text_handler_malformed", "HTTP 500: 'out of order'"),
        (say_nonsense, "text_handler_malformed", "not JSON"),
        (say_nothing, "text_handler_malformed", "neither content nor tool_calls"),
        (say_an_error, "text_handler_malformed", "no such model"),
        (say_15_mb, "text_handler_malformed", f"more than {MAX_ANSWER_BYTES} bytes"),
        (flood, "text_handler_malformed", f"more than {MAX_ANSWER_BYTES} bytes"),
        (break_off, "text_handler_malformed", "ended before its finish_reason"),
    ],
)
async def test_a_hook_that_misbehaves_fails_its_turn_with_a_reason_and_the_call_goes_on(handler, code, said):
    async with serving(handler) as url, pipeline(backend_url=url) as call:
        response = await failed(call)
        assert response["status"] == "failed"
        assert call.errors() == [code]
        assert said in call.told("error")[0]["error"]["message"]
        assert call.ended is None


@pytest.mark.parametrize("way", ["http", "ws"])
async def test_a_hook_that_is_not_there(way):
    async with pipeline(backend_url=f"{way}://127.0.0.1:1/", backend_connect_timeout_s=0.4) as call:
        assert (await failed(call))["status"] == "failed"
        assert call.errors() == ["text_handler_unreachable"]


async def test_a_hook_that_hangs_runs_into_its_deadline_and_its_request_is_given_up():
    gone = asyncio.Event()

    async def hang(request: web.Request) -> web.Response:
        try:
            await asyncio.sleep(1_000)
        finally:
            gone.set()
        return web.Response()

    async with serving(hang) as url, pipeline(backend_url=url, pipeline_text_timeout_s=0.3) as call:
        assert (await failed(call))["status_details"]["error"]["code"] == "text_handler_timeout"
        assert call.ended is None


@pytest.mark.parametrize("network", ["Public", "Private"])
async def test_a_hook_at_an_address_that_may_not_be_dialled_is_refused(network):
    async with serving(HookDouble().http) as url, pipeline(backend_url=url, backend_network=network) as call:
        await failed(call)
        assert "is this machine itself" in call.told("error")[0]["error"]["message"]


async def test_a_resource_that_says_so_ends_the_call():
    async with serving(say_500) as url, pipeline(backend_url=url, pipeline_hang_up_on_failure=True) as call:
        await call.speak(spoken())
        await call.until(lambda: call.ended)
        ending, detail = call.ended
        assert ending is Ending.BACKEND_FAILED
        assert "HTTP 500" in detail


async def test_a_fallback_url_is_asked_when_the_first_is_not_there():
    async with (
        serving(HookDouble().http) as url,
        pipeline(backend_url="http://127.0.0.1:1/", backend_fallback_urls=url) as call,
    ):
        await said_and_answered(call)
        assert call.errors() == []


async def test_a_kept_connection_that_is_closed_when_it_is_used_again_costs_no_turn():
    taken = 0

    async def serve(reader, writer):
        nonlocal taken
        taken += 1
        for answer in (True, False):  # the second request on a connection finds it closing
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(re.search(rb"Content-Length: (\d+)", head)[1]))
            if answer:
                body = b'{"choices":[{"message":{"content":"Yes."}}]}'
                head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
                writer.write(head + body)

    async with byte_server(serve) as where, pipeline(backend_url=f"http://{where}/") as call:
        await said_and_answered(call)
        await said_and_answered(call, 2)
        assert call.errors() == []
        assert taken == 2


async def test_a_websocket_that_breaks_off_fails_its_turn_and_is_opened_again_for_the_next():
    answers = iter([None, "Here I am."])

    async def socket(request: web.Request) -> web.StreamResponse:
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        async for message in opened:
            body = json.loads(message.data)
            if "messages" in body:
                text = next(answers)
                if text is None:
                    request.transport.abort()
                    break
                await opened.send_json({"id": body["id"], "choices": [{"message": {"content": text}}]})
        return opened

    async with serving(socket, "ws") as url, pipeline(backend_url=url) as call:
        assert (await failed(call))["status"] == "failed"
        assert call.errors() == ["text_handler_unreachable"]
        await said_and_answered(call)
        assert call.told("response.output_audio_transcript.done")[-1]["transcript"] == "Here I am."


async def test_a_websocket_that_says_good_bye_hangs_up():
    async with serving(HookDouble(lambda _: None).socket, "ws") as url, pipeline(backend_url=url) as call:
        await call.speak(spoken())
        await call.until(lambda: call.ended)
        assert call.ended[0] is Ending.HANG_UP


async def test_a_websocket_is_told_that_a_turn_was_cancelled():
    hook = HookDouble(lambda _: "")

    async def socket(request: web.Request) -> web.StreamResponse:
        opened = web.WebSocketResponse()
        await opened.prepare(request)
        async for message in opened:
            hook.messages.append(json.loads(message.data))
        return opened

    async with serving(socket, "ws") as url, pipeline(backend_url=url) as call:
        await call.speak(spoken())
        await call.until(lambda: call.told("response.created"))
        call.say_event(type="response.cancel")
        async with asyncio.timeout(10):
            while len(hook.messages) < 2:
                await asyncio.sleep(0.02)
        assert hook.messages[1] == {"id": hook.messages[0]["id"], "cancelled": True}
