"""The short run of every target: what is kept, and mutations of it from a fixed seed. No crash, and steps in proportion to bytes."""

from importlib import import_module

import pytest

from tests.fuzz.corpus import read_corpus
from tests.fuzz.mutate import mutated
from tests.fuzz.steps import count_steps
from tests.fuzz.targets import NAMES, ROOMS, load

SEED = 15
ALL = {name: load(name) for name in NAMES}
SHAPES = [(name, shape) for name, target in ALL.items() for shape in target.shapes]


def test_every_target_has_its_place():
    for room, names in ROOMS.items():
        assert [target.name for target in import_module(f"tests.fuzz.targets.{room}").TARGETS] == list(names)


@pytest.fixture(params=ALL, scope="module")
def target(request):
    return ALL[request.param]


def test_nothing_from_outside_raises(target):
    corpus = read_corpus(target)
    for data in (*corpus, b"", *mutated(corpus, target.words, target.tries, target.max_bytes, SEED)):
        try:
            target.run(data)
        except BaseException as error:
            error.add_note(f"target {target.name}, input {data!r}")
            raise


def test_steps_are_in_proportion_to_bytes(target):
    target.run(target.seeds[0])  # what is made once is not counted
    for data in read_corpus(target):
        steps = count_steps(lambda data=data: target.run(data))
        assert steps <= target.steps_per_byte * len(data) + target.steps_at_least, data


@pytest.mark.parametrize(("name", "shape"), SHAPES, ids=[f"{name}: {shape}" for name, shape in SHAPES])
def test_the_dearest_inputs_grow_no_faster_than_their_bytes(name, shape):
    target = ALL[name]
    size = min(target.max_bytes, 20_000) // 4
    build = target.shapes[shape]
    target.run(build(size))
    steps = [count_steps(lambda times=times: target.run(build(times * size))) for times in (1, 2, 4)]
    assert steps[2] - steps[1] <= 2.2 * max(steps[1] - steps[0], 0) + 2_000, steps
    assert steps[2] <= target.steps_per_byte * 4 * size + target.steps_at_least
