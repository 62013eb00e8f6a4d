"""Small clients of ours on other people's WebRTC stacks, against a fleet on loopback.

A client is a process of its own. Test and client exchange JSON lines: commands on stdin, events on stdout; stderr is for people.
The test does the signalling: it gets the offer, posts it and hands the answer back, so a client knows no HTTP, and whatever
stands between client and fleet is the test's choice. `call` and `channel` are the test's own names for a peer
connection and a data channel, new ones each time.

Commands (`do`)::

    offer     call, wav, packets, channels      a new peer connection that says the recording over and over, with these channels
    answer    sdp
    open      channel, label, protocol, ordered, max_retransmits, max_lifetime_ms, negotiated, id; all but the first two may be missing
    send      channel, kind ("text" or "binary"), and  text  or  size, fill, count
    close     channel
    listen    seconds, path             write what is heard from now on, so much of it
    hang_up                             close the peer connection

Events (`event`)::

    ready                       once, at the start: version of the stack
    offer     sdp
    state     call, state       of the peer connection: connecting, connected, disconnected, failed, closed
    open      channel
    closed    channel
    message   channel, kind, size, sha256       of a text: of its UTF-8
    audio     form, seconds     the file is complete; form: "wav" or "packets"
    error     text              the last command could not be done

A "packets" file is Opus, packet by packet: sequence number and length, 16 bits each, big endian, then the bytes. The recording is there
in both forms; who has no codec sends packets. What `send` sends with `size`: byte i of message n (from 0, of `count`) is
(31·i + fill + n) mod 256; of a text it is the letter a + (7·i + fill + n) mod 26.
"""
