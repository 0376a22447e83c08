"""What docs/own_tables.md tells people to type works as it stands there."""

import json
import re
import shlex
import sys
from pathlib import Path

import pandas as pd
import pytest

import datasets
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


def test_the_listing_of_the_page_feeds_an_exported_model(homes, tmp_path, monkeypatch, capsys):
    (listing,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    options = {"csv": "homes.csv", "client_column": "household", "label_column": "activity",
               "time_column": "time", "window": 8}  # fmt: skip
    task = datasets.load("csv", datasets.Request(options=options))
    for name, content in task.assets.items():
        text = content if isinstance(content, str) else json.dumps(content)
        (tmp_path / name).write_text(text)
    model = task.build_keras_model()
    model.save("model.keras")
    rows = pd.read_csv("homes.csv")
    client = task.test_clients[0]
    rows[rows["household"] == client].to_csv("new_rows.csv", index=False)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "prepare", raising=False)
    capsys.readouterr()
    exec(compile(listing, "<listing>", "exec"), {"__name__": "listing"})
    monkeypatch.delitem(sys.modules, "prepare")
    x, _ = task.read_client(client)
    classes = task.assets["preprocessing.json"]["label"]["classes"]
    wanted = [classes[place] for place in model(x).numpy().argmax(axis=1)]
    printed = capsys.readouterr().out
    assert [word for word in re.findall(r"'(\w+)'", printed)] == wanted
