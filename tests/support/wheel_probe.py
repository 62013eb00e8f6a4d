"""Run by the Python of an environment that has only the wheel of voicefleet: imports all of it, and asks each command for help.

Prints what is wrong, one fault a line; nothing when all is well.
"""

import importlib
import sys
from importlib.metadata import distribution
from pathlib import Path

import typer
from typer.testing import CliRunner

HOME = Path(sys.prefix).resolve()


def module_faults() -> list[str]:
    """Name the modules that cannot be imported, or that are not the wheel's."""
    faults = []
    for file in distribution("voicefleet").files or ():
        if file.suffix != ".py":
            continue
        name = ".".join(file.with_suffix("").parts).removesuffix(".__init__")
        try:
            module = importlib.import_module(name)
        except (Exception, SystemExit) as error:
            faults.append(f"{name}: {type(error).__name__}: {error}")
        else:
            if not Path(module.__file__ or "").resolve().is_relative_to(HOME):
                faults.append(f"{name}: comes from {module.__file__}")
    return faults


def entry_point_faults() -> list[str]:
    """Name the entry points that lead nowhere."""
    faults = []
    for point in distribution("voicefleet").entry_points:
        try:
            point.load()
        except Exception as error:
            faults.append(f"entry point {point.group} {point.name}: {type(error).__name__}: {error}")
    return faults


def help_faults(app: typer.Typer, *before: str) -> list[str]:
    """Ask an app, its commands and its groups for help."""
    asked = [before, *((*before, one.name or one.callback.__name__) for one in app.registered_commands)]  # type: ignore[union-attr]
    answers = [(words, CliRunner().invoke(app, [*words[len(before) :], "--help"])) for words in asked]
    faults = [
        f"{' '.join(words)} --help: exit code {answer.exit_code}" for words, answer in answers if answer.exit_code
    ]
    for group in app.registered_groups:
        faults += help_faults(group.typer_instance, *before, group.name)  # type: ignore[arg-type]
    return faults


def main() -> None:
    faults = module_faults() + entry_point_faults()
    if not faults:
        from voicefleet_dataplane import cli
        from voicefleet_dataplane.plugin import app as plugin

        faults = help_faults(cli.app, "voicefleet") + help_faults(plugin.app, "kubectl-voicefleet")
    print("\n".join(faults))


if __name__ == "__main__":
    main()
