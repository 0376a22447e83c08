"""The help of run_experiment.py: its flags, and what is special to a data set or an algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tff_fedmeta.algorithms import registry
from tff_fedmeta.checks import check_choice
from tff_fedmeta.command_line import experiment_flags, flags
from tff_fedmeta.command_line.experiment_flags import DataSets
from tff_fedmeta.command_line.flags import Flag


def help_text(data_sets: DataSets, about: str, argv: Sequence[str]) -> str:
    """Returns the help; of a data set or algorithms too, where the command line names some.

    Args:
      data_sets: The data sets there are, by name.
      about: What the program does.
      argv: The command line, the program's name first.

    Raises:
      ValueError: If the command line names an algorithm that does not exist.
    """
    groups: dict[str, list[Flag]] = experiment_flags.groups(data_sets)
    options = groups.pop("Options of data sets")
    of_aggregators = groups.pop("Options of aggregators")
    text = f"{about}\n{flags.help_of(groups)}"
    named = [name for name in flags.given(argv, "dataset") if name in data_sets]
    asked = [name for text in flags.given(argv, "algorithms") for name in text.split(",")]
    if not named:
        names = ", ".join(data_sets)
        text += _more("--dataset=NAME --help", f"Adds options and defaults of a data set: {names}.")
    for name in named:
        rows = {row.name for row in data_sets[name].describe_options()}
        own = {f"\nOptions of {name}": [flag for flag in options if flag.name in rows]}
        defaults = data_sets[name].defaults
        text += flags.help_of(own) + f"\nDefaults of {name}:\n"
        plain = {key: value for key, value in defaults.items() if key != "hyperparameters"}
        text += "\n".join(line for key, value in plain.items() for line in _default(key, value))
        text += "\n"
    if flags.given(argv, "aggregator"):
        text += "\n" + flags.help_of({"Options of aggregators": of_aggregators})
    else:
        names = ", ".join(dict.fromkeys(flag.text.partition(":")[0] for flag in of_aggregators))
        text += _more("--aggregator=NAME --help", f"Adds the options of {names}.")
    if not asked:
        names = ", ".join(registry.REGISTRY)
        text += _more("--algorithms=NAMES --help", f"Adds hyperparameters of algorithms: {names}.")
    for name in asked:
        check_choice("algorithm", name, registry.REGISTRY)
        own_flags = [
            flag._replace(name=f"hparam={name}.{flag.name}")
            for flag in flags.flags_of(registry.REGISTRY[name].hyperparameters)
        ]
        text += "\n" + flags.help_of({f"Hyperparameters of {name}": own_flags})
    return text


def _more(command: str, text: str) -> str:
    return "\n".join(flags.row(command, text)) + "\n"


def _default(name: str, value: Any) -> list[str]:
    shown = ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)
    return flags.row(name, shown)


def data_sets_in_words(data_sets: DataSets) -> str:
    """Returns what --dataset=help prints: the facts of each data set."""
    lines = []
    for name, data_set in data_sets.items():
        lines.append(f"--dataset={name}")
        for fact, text in data_set.about.facts().items():
            lines += flags.row(f"  {fact}", text)
    return "\n".join(lines)
