"""Which build a hash names."""

import shutil
from pathlib import Path

import pytest

from e2e.cluster.components import (
    CNI,
    KUBERNETES,
    MODULES,
    go_output_name,
    linker_flags,
    module_key,
    required_version,
    tree_key,
)
from e2e.cluster.places import GOMOD

PLATFORM = "linux/amd64"


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOMOD, tmp_path / "gomod"))


def test_a_changed_go_sum_changes_its_own_module_only(sources: Path):
    before = {module.name: module_key(module, PLATFORM, sources) for module in MODULES}
    with (sources / "cni" / "go.sum").open("a") as lock:
        lock.write("example.org/x v1.0.0 h1:x\n")
    after = {module.name: module_key(module, PLATFORM, sources) for module in MODULES}
    assert after["cni"] != before["cni"]
    assert after["kubernetes"] == before["kubernetes"]


def test_our_own_go_source_is_part_of_the_hash(sources: Path):
    before = module_key(KUBERNETES, PLATFORM, sources)
    main = sources / "kubernetes" / "coredns" / "main.go"
    main.write_text(main.read_text() + "// changed\n")
    assert module_key(KUBERNETES, PLATFORM, sources) != before


def test_a_stray_file_is_not_part_of_the_hash(sources: Path):
    before = module_key(CNI, PLATFORM, sources)
    (sources / "cni" / "notes.txt").write_text("x")
    assert module_key(CNI, PLATFORM, sources) == before


def test_another_platform_is_another_build():
    assert module_key(CNI, PLATFORM) != module_key(CNI, "linux/arm64")


def test_the_tree_is_named_by_all_of_its_modules():
    assert tree_key(["a", "b"]) != tree_key(["a", "c"])


def test_programs_carry_the_names_the_cluster_calls_them_by():
    assert "etcd" in KUBERNETES.programs and "server" not in KUBERNETES.programs
    assert {"kubelet", "kubectl", "helm", "coredns"} <= set(KUBERNETES.programs)
    assert set(CNI.programs) == {"bridge", "host-local", "loopback", "portmap"}


@pytest.mark.parametrize(
    ("package", "name"),
    [("go.etcd.io/etcd/server/v3", "server"), ("./coredns", "coredns"), ("k8s.io/kubernetes/cmd/kubelet", "kubelet")],
)
def test_go_names_an_output_after_the_package(package: str, name: str):
    assert go_output_name(package) == name


def test_the_version_that_kubernetes_reports_is_the_one_required():
    go_mod = (GOMOD / "kubernetes" / "go.mod").read_text()
    version = required_version(go_mod, "k8s.io/kubernetes")
    assert f"gitVersion={version}" in linker_flags(go_mod)


def test_every_staging_module_is_of_the_release_that_kubernetes_is():
    go_mod = (GOMOD / "kubernetes" / "go.mod").read_text()
    patch = required_version(go_mod, "k8s.io/kubernetes").removeprefix("v1.")
    replaced = [line.split(" => ")[1].split()[1] for line in go_mod.splitlines() if " => k8s.io/" in line]
    assert replaced and set(replaced) == {f"v0.{patch}"}


def test_a_module_that_is_not_required_has_no_version():
    with pytest.raises(ValueError, match="does not require"):
        required_version("require example.org/x v1.0.0\n", "example.org/y")
