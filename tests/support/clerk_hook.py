"""A text hook of the stories of pipelines; as a program too, for a pod that is given its source: KEY in the environment, port 8000.

To a client that brings functions it is a clerk: calls one when it is asked about money, tells what that gave, and answers anything
else at length, so that it can be interrupted. To any other it tells how many questions there were, and the last one.
"""

import os

from aiohttp import web


async def answer(request):
    """Chat Completions, without streaming."""
    key = os.environ.get("KEY")
    if key and request.headers.get("Authorization") != f"Bearer {key}":
        raise web.HTTPUnauthorized
    body = await request.json()
    asked = [message["content"] for message in body["messages"] if message["role"] == "user"]
    return web.json_response({"choices": [{"message": reply(body.get("tools"), body["messages"][-1], asked)}]})


def reply(tools, last, asked):
    """The assistant's message."""
    if not tools:
        return {"role": "assistant", "content": f"Question number {len(asked)} was: {asked[-1]}."}
    if last["role"] == "tool":
        return {"role": "assistant", "content": f"The order is {last['content']}."}
    if "money" in last["content"]:
        function = {"name": tools[0]["function"]["name"], "arguments": '{"order":7}'}
        call = {"id": "call_1", "type": "function", "function": function}
        return {"role": "assistant", "content": None, "tool_calls": [call]}
    return {"role": "assistant", "content": f"I heard {last['content']}. " + "And so on, and so on. " * 20}


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    web.run_app(app, host="0.0.0.0", port=8000)
