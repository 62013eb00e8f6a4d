"""What agents send a byte amiss and is taken all the same. It is counted (`Forgive`), and so many a minute end a call.

| forgiven | as |
|---|---|
| base64 with blanks or line ends in it, without its padding, or with the letters of base64url | the bytes that it means |
| PCM that ends in half of a sample | the other half comes with the next delta (media/realtime_speech.py) |
| JSON in a binary message | text |
| a refusal of an event of ours | not shown to the client, who has not sent it (media/openai_realtime.py) |

Owns: this list, and the reading of the first and the third. Everything else that a protocol does not allow is an AgentError.
"""

from typing import Any

from voicefleet_contract.outside import OutsideError, decode_base64, decode_base64_url
from voicefleet_dataplane.media.agent import MAX_MESSAGE_BYTES, AgentError, Forgive, parse_json_object
from voicefleet_dataplane.media.backend import Message

_TO_URL = str.maketrans("+/", "-_")


def read_audio(text: str, what: str) -> tuple[bytes, list[Forgive]]:
    """Return what base64 means. Raises AgentError, which names ``what``."""
    try:
        return decode_base64(text, MAX_MESSAGE_BYTES), []
    except OutsideError:
        pass
    try:
        audio = decode_base64_url("".join(text.split()).translate(_TO_URL), MAX_MESSAGE_BYTES)
    except OutsideError as error:
        raise AgentError(f"{what} is not base64: {error}") from None
    return audio, [
        Forgive(f"{what} is not base64 as RFC 4648 section 4 has it, with its padding and without line ends")
    ]


def read_event(message: Message) -> tuple[dict[str, Any], str, list[Forgive]]:
    """Return the object of a JSON message, and its text. Raises AgentError."""
    if isinstance(message, str):
        return parse_json_object(message), message, []
    try:
        text = message.decode()
    except UnicodeDecodeError:
        raise AgentError("a binary message where JSON text belongs") from None
    return parse_json_object(text), text, [Forgive("JSON in a binary message")]
