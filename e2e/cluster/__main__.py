"""`python -m e2e.cluster COMMAND`: the local Kubernetes cluster."""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from e2e.cluster import images, loading, network, node_store, startup, teardown
from e2e.cluster.build import build, locked
from e2e.cluster.nodes import Client
from e2e.cluster.places import KUBECONFIG, LOCK
from e2e.cluster.steps import ClusterError, fail, run, say, step, together


def current_context() -> bool:
    return os.environ.get("VOICEFLEET_USE_CURRENT_CONTEXT") == "1"


def require_root() -> None:
    if os.geteuid() != 0:
        raise ClusterError(
            "the local cluster makes network namespaces and needs root; or set VOICEFLEET_USE_CURRENT_CONTEXT=1 to use the cluster of your current kubectl context"
        )


def command_build(_: argparse.Namespace) -> None:
    say(str(build()))


def command_up(arguments: argparse.Namespace) -> None:
    if current_context():
        with step("the cluster of the current kubectl context answers") as line:
            run(["kubectl", "get", "--raw", "/readyz"])
            line.note = run(["kubectl", "config", "current-context"]).strip()
        return
    require_root()
    with locked(LOCK):
        if arguments.images:
            up_with_images(arguments.tag)
        else:
            startup.bring_up()


def up_with_images(tag: str) -> None:
    tree = build()
    archives: list[Path] = []
    if node_store.template(tree).is_dir():
        together(startup.bring_up, lambda: archives.extend(images.build_images(tag)))
    else:
        # Nodes that start from a full store are worth waiting for the images.
        archives = images.build_images(tag)
        node_store.make_template(tree, archives)
        startup.bring_up()
    load(archives)


def command_down(_: argparse.Namespace) -> None:
    if current_context():
        say("VOICEFLEET_USE_CURRENT_CONTEXT=1: that cluster is yours and stays")
        return
    require_root()
    with locked(LOCK), step("cluster down") as line:
        line.note = ", ".join(teardown.tear_down()) or "nothing was there"


def command_status(_: argparse.Namespace) -> None:
    if current_context():
        command_up(_)
        return
    require_root()
    if found := startup.problems():
        raise ClusterError("the cluster is not healthy: " + "; ".join(found))
    say("healthy")


def command_kubeconfig(_: argparse.Namespace) -> None:
    if current_context():
        say(os.environ.get("KUBECONFIG") or str(Path.home() / ".kube" / "config"))
    else:
        say(str(KUBECONFIG))


def command_exec_env(_: argparse.Namespace) -> None:
    if not current_context():
        say(f"export KUBECONFIG={KUBECONFIG}")
        say(f'export PATH={build() / "bin"}:"$PATH"')


def command_load_image(arguments: argparse.Namespace) -> None:
    if current_context():
        raise ClusterError(
            "images cannot be put into the cluster of your current context from here: push them to a registry that it pulls from "
            "(for example `buildah push oci-archive:FILE docker://REGISTRY/NAME:TAG`) and set the chart's image values to them"
        )
    require_root()
    load(arguments.archives)


def load(archives: Sequence[Path]) -> None:
    with step("images loaded on all nodes") as line:
        line.note = ", ".join(path.name for path in loading.load(archives)) or "all there already"


def command_image(arguments: argparse.Namespace) -> None:
    require_root()
    archives = images.build_images(arguments.tag)
    if current_context():
        say("\n".join(map(str, archives)))
    elif startup.runs():
        load(archives)
    else:
        say("            no cluster is running: `python -m e2e.cluster up --images` starts one with them")


def command_client(arguments: argparse.Namespace) -> None:
    require_root()
    network.add_client(Client(arguments.name, arguments.address))


def command_node(arguments: argparse.Namespace) -> None:
    require_root()
    argv = [*startup.node_prefix(arguments.name), *(arguments.words or ["bash"])]
    os.execvp(argv[0], argv)


def parser() -> argparse.ArgumentParser:
    commands = argparse.ArgumentParser(prog="python -m e2e.cluster", description="A real Kubernetes on this machine.")
    verbs = commands.add_subparsers(required=True, metavar="COMMAND")

    def verb(name: str, does: Callable[[argparse.Namespace], None], text: str) -> argparse.ArgumentParser:
        made = verbs.add_parser(name, help=text, description=text)
        made.set_defaults(does=does)
        return made

    verb("build", command_build, "build the programs into the cache and print where")
    up = verb("up", command_up, "start the cluster, or find it running")
    up.add_argument("--images", action="store_true", help="build the images meanwhile and load them")
    image = verb("image", command_image, "build the images, and load them when the cluster runs")
    for verb_with_tag in (up, image):
        verb_with_tag.add_argument(
            "--tag",
            default="dev",
            help="of voicefleet.local/operator and /dataplane; `previous` builds the release before this one (default: dev)",
        )
    verb("down", command_down, "take everything away that `up` made, after a crash too")
    verb("status", command_status, "is it healthy? exit 1 and say why when not")
    verb("kubeconfig", command_kubeconfig, "print the kubeconfig's path")
    verb("exec-env", command_exec_env, 'print shell lines: eval "$(python -m e2e.cluster exec-env)"')
    load = verb("load-image", command_load_image, "put image archives (docker or OCI) on all nodes")
    load.add_argument("archives", nargs="+", type=Path, metavar="IMAGE_ARCHIVE")
    client = verb("client", command_client, "make a network namespace for a test client on the nodes' network")
    client.add_argument("--name", default=Client().name)
    client.add_argument("--address", default=Client().address)
    node = verb("node", command_node, "run a command in a node's network and mount namespaces: node node-a -- ss -ulpn")
    node.add_argument("name")
    node.add_argument("words", nargs="*", metavar="COMMAND")
    return commands


def main(words: Sequence[str] | None = None) -> int:
    arguments = parser().parse_args(words)
    # A terminated run cleans up as an interrupted one does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments.does(arguments)
    except ClusterError as error:
        return fail(error)
    except KeyboardInterrupt:
        print("interrupted: a cluster that was running stays, one that was being started is gone", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
