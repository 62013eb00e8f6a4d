"""C and Python spell the same layouts: a compiler is asked, field by field."""

import subprocess

import pytest

from voicefleet_dataplane.fastpath import kernel, maps
from voicefleet_dataplane.fastpath.kernel import OBJECT

_PROGRAM = """
#include <stddef.h>
#include <stdio.h>
#include "maps.h"
#define FIELD(type, name) printf("%s.%s %zu\\n", #type, #name, offsetof(struct type, name));
#define VALUE(name) printf("%s %d\\n", #name, name);
int main(void) {
    printf("tuple %zu\\nrule %zu\\ncontrol %zu\\n", sizeof(struct tuple), sizeof(struct rule), sizeof(struct control));
    FIELD(tuple, source) FIELD(tuple, destination) FIELD(tuple, source_port) FIELD(tuple, destination_port)
    FIELD(rule, to) FIELD(rule, how) FIELD(rule, slot) FIELD(rule, generation) FIELD(rule, packets) FIELD(rule, bytes)
    FIELD(rule, last_ns)
    FIELD(control, lease_ns) FIELD(control, public_port) FIELD(control, flow_first) FIELD(control, flow_last) FIELD(control, returns)
    FIELD(control, xdp)
    VALUE(LAYOUT)
    %s
}
"""


@pytest.fixture(scope="module")
def compiled(tmp_path_factory):
    directory = tmp_path_factory.mktemp("layouts")
    names = (
        [f"HOW_{how.name}" for how in maps.How]
        + [f"XDP_{xdp.name}" for xdp in maps.Xdp]
        + [f"COUNT_{counter.name}" for counter in maps.Counter]
        + ["COUNTERS"]
    )
    source = directory / "layouts.c"
    source.write_text(_PROGRAM.replace("%s\n}", "".join(f"VALUE({name})" for name in names) + "\n}"))
    binary = directory / "layouts"
    subprocess.run(["gcc", "-w", f"-I{OBJECT.parent}", str(source), "-o", str(binary)], check=True)
    lines = subprocess.run([str(binary)], capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: int(value) for name, value in (line.split() for line in lines)}


def test_structs_have_the_sizes_and_offsets_that_python_packs(compiled):
    assert compiled["tuple"] == maps.ENDS.size
    assert compiled["rule"] == maps.RULE.size
    assert compiled["control"] == maps.CONTROL.size
    assert [compiled[f"tuple.{n}"] for n in ("source", "destination", "source_port", "destination_port")] == [
        0,
        16,
        32,
        34,
    ]
    fields = ("to", "how", "slot", "generation", "packets", "bytes", "last_ns")
    assert [compiled[f"rule.{name}"] for name in fields] == [0, 36, 40, 44, 48, 56, 64]
    fields = ("lease_ns", "public_port", "flow_first", "flow_last", "returns", "xdp")
    assert [compiled[f"control.{name}"] for name in fields] == [0, 8, 10, 12, 14, kernel._XDP_AT]


def test_enums_have_the_same_numbers(compiled):
    assert {how.name: compiled[f"HOW_{how.name}"] for how in maps.How} == {how.name: how.value for how in maps.How}
    assert {xdp.name: compiled[f"XDP_{xdp.name}"] for xdp in maps.Xdp} == {xdp.name: xdp.value for xdp in maps.Xdp}
    for counter in maps.Counter:
        assert compiled[f"COUNT_{counter.name}"] == counter
    assert compiled["COUNTERS"] == len(maps.Counter)
    assert compiled["LAYOUT"] == maps.LAYOUT
