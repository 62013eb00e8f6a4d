"""Offers as clients make them (shortened copies of what Chromium and aiortc send), to be bent by tests."""

DIGEST = ":".join(["AB"] * 32)

CHROMIUM = "\r\n".join(
    [
        "v=0",
        "o=- 4611731400430051336 2 IN IP4 127.0.0.1",
        "s=-",
        "t=0 0",
        "a=group:BUNDLE 0 1",
        "a=extmap-allow-mixed",
        "a=msid-semantic: WMS stream",
        "m=audio 9 UDP/TLS/RTP/SAVPF 111 63 9 0 8 13 110 126",
        "c=IN IP4 0.0.0.0",
        "a=rtcp:9 IN IP4 0.0.0.0",
        "a=ice-ufrag:aB3+",
        "a=ice-pwd:0123456789abcdefghijkl+/",
        "a=ice-options:trickle",
        f"a=fingerprint:sha-256 {DIGEST}",
        "a=setup:actpass",
        "a=mid:0",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=sendrecv",
        "a=msid:stream track",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        "a=rtpmap:111 opus/48000/2",
        "a=rtcp-fb:111 transport-cc",
        "a=fmtp:111 minptime=10;useinbandfec=1",
        "a=rtpmap:63 red/48000/2",
        "a=rtpmap:9 G722/8000",
        "a=rtpmap:110 telephone-event/48000",
        "a=rtpmap:126 telephone-event/8000",
        "a=ssrc:1234 cname:abc",
        "m=application 9 UDP/DTLS/SCTP webrtc-datachannel",
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:aB3+",
        "a=ice-pwd:0123456789abcdefghijkl+/",
        "a=ice-options:trickle",
        f"a=fingerprint:sha-256 {DIGEST}",
        "a=setup:actpass",
        "a=mid:1",
        "a=sctp-port:5000",
        "a=max-message-size:262144",
        "",
    ]
)

VIDEO_SECTION = "\r\n".join(
    [
        "m=video 9 UDP/TLS/RTP/SAVPF 96 97",
        "c=IN IP4 0.0.0.0",
        "a=ice-ufrag:aB3+",
        "a=ice-pwd:0123456789abcdefghijkl+/",
        f"a=fingerprint:sha-256 {DIGEST}",
        "a=setup:actpass",
        "a=mid:v",
        "a=sendrecv",
        "a=rtcp-mux",
        "a=rtpmap:96 VP8/90000",
        "",
    ]
)


def without(line: str, offer: str = CHROMIUM) -> str:
    """The offer without every line that begins so."""
    return "".join(kept for kept in offer.splitlines(keepends=True) if not kept.startswith(line))


def with_video_first(offer: str = CHROMIUM) -> str:
    """The offer with a video section in front, in the bundle."""
    head, audio = offer.split("m=audio", 1)
    return head.replace("BUNDLE 0 1", "BUNDLE v 0 1") + VIDEO_SECTION + "m=audio" + audio
