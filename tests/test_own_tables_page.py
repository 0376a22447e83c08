"""What docs/own_tables.md tells people to type works as it stands there."""

import re
import shlex
from pathlib import Path

import pandas as pd
import pytest

import run_experiment
from datasets import table_info
from datasets.stand_ins import households

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "own_tables.md").read_text()
COMMANDS = [
    command.replace("\\\n", " ")
    for command in re.findall(r"^    (python (?:[^\\\n]|\\\n)+)", PAGE, re.MULTILINE)
]


@pytest.fixture
def homes(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    households.table(0, 8).groupby("household").head(64).to_csv("homes.csv", index=False)
    ratings = pd.DataFrame({"user": range(240), "item": [i % 7 for i in range(240)], "rating": 4})
    ratings.assign(user=lambda f: f["user"] % 20).to_csv("ratings.csv", index=False)


def test_the_page_has_commands():
    assert len(COMMANDS) >= 2
    assert sum("table_info" in command for command in COMMANDS) == 1


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_page_is_understood(homes, command, capsys):
    program, *arguments = shlex.split(command)[1:]
    if program == "-m":
        assert arguments[0] == "datasets.table_info"
        assert table_info.main(arguments) == 0
        assert "--client_column=household --label_column=activity" in capsys.readouterr().out
        return
    assert program == "run_experiment.py"
    prepared = run_experiment._prepare([program, *arguments, "--output_dir=run"])
    prepared.lock.close()
    assert prepared.task.train_clients and prepared.config.data_source == "file"
    assert prepared.task.input_spec[0].shape[1] == 8  # the windows of the page
