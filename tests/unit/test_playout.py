"""The queue behind the playout clock."""

from voicefleet_dataplane.media.playout import MAX_MARKS, PATIENCE_TICKS, Playout

FRAME = 320  # 20 ms at 8 kHz


def playout(room=FRAME * 100):
    return Playout(FRAME, room)


def played(queue):
    """Take everything, as played."""
    frames = []
    while (frame := queue.take()) is not None:
        queue.note_played(frame)
        frames.append(frame)
    return frames


def test_pieces_of_any_length_become_frames():
    queue = playout()
    audio = bytes(range(256)) * 5
    for start in range(0, len(audio), 77):
        assert queue.say(audio[start : start + 77])
    assert b"".join(frame.audio for frame in played(queue)) == audio


def test_the_rest_of_an_utterance_is_waited_for_and_then_filled_up():
    queue = playout()
    queue.say(b"x" * (FRAME + 100))
    assert queue.take().audio == b"x" * FRAME
    assert [queue.take() for _ in range(PATIENCE_TICKS)] == [None] * PATIENCE_TICKS
    assert queue.take().audio == b"x" * 100 + bytes(220)
    assert queue.is_empty


def test_a_mark_says_that_the_rest_is_all():
    queue = playout()
    queue.say(b"x" * 100)
    queue.mark("end")
    frame = queue.take()
    assert frame.audio == b"x" * 100 + bytes(220)
    assert frame.marks == ("end",)


def test_a_mark_is_reached_with_the_last_frame_before_it():
    queue = playout()
    queue.mark("nothing before")
    queue.say(b"x" * FRAME)
    queue.mark("one")
    queue.say(b"x" * FRAME)
    assert [(len(frame.audio), frame.marks) for frame in played(queue)] == [
        (FRAME, ("nothing before", "one")),
        (FRAME, ()),
    ]


def test_a_mark_alone_is_reached_at_once():
    queue = playout()
    queue.mark("alone")
    frame = queue.take()
    assert (frame.audio, frame.marks) == (b"", ("alone",))


def test_how_much_of_each_tag_was_played_is_exact():
    queue = playout()
    queue.say(b"a" * (FRAME + FRAME // 2), "first")
    queue.say(b"b" * (2 * FRAME), "second")
    assert queue.queued_ms == 70
    for _ in range(2):
        queue.note_played(queue.take())
    assert (queue.played_ms("first"), queue.played_ms("second")) == (30, 10)
    taken = queue.take()
    assert queue.played_ms("second") == 10  # not out yet
    queue.note_played(taken)
    assert queue.played_ms("second") == 30


def test_clear_names_what_it_cut_off_and_leaves_nothing():
    queue = playout()
    queue.say(b"a" * (3 * FRAME), "item")
    queue.mark("m1")
    queue.say(b"b" * FRAME, "next")
    queue.mark("m2")
    queue.note_played(queue.take())
    cleared = queue.clear()
    assert (cleared.tag, cleared.played_ms, cleared.marks) == ("item", 20, ("m1", "m2"))
    assert queue.take() is None
    assert queue.queued_ms == 0


def test_clear_of_an_empty_queue_names_what_was_played_last():
    queue = playout()
    queue.say(b"a" * FRAME, "item")
    played(queue)
    assert (queue.clear().tag, queue.clear().played_ms) == ("item", 20)


def test_there_is_room_for_so_much_and_no_more():
    queue = playout(room=FRAME * 4)
    assert queue.say(bytes(FRAME * 2))
    assert not queue.is_full
    assert queue.say(bytes(FRAME))
    assert queue.is_full
    assert not queue.say(bytes(FRAME * 2))
    assert queue.queued_ms == 60
    assert all(queue.mark("x") for _ in range(MAX_MARKS))
    assert not queue.mark("x")


def test_only_the_last_tags_are_remembered():
    queue = playout()
    for number in range(40):
        queue.say(bytes(FRAME), str(number))
        played(queue)
    assert len(queue._played) == 16
    assert queue.played_ms("39") == 20


def test_opus_frames_stay_whole():
    queue = Playout(0, 1_000)
    queue.say(b"one", "tag")
    queue.mark("between")
    queue.say(b"second", "tag")
    assert queue.queued_ms == 40
    assert [(frame.audio, frame.marks) for frame in played(queue)] == [(b"one", ("between",)), (b"second", ())]
    assert queue.played_ms("tag") == 40
