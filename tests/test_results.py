"""The table over data sets, from run directories of known figures; nothing is trained."""

import types

import pytest
from conftest import cell
from run_files import make_config, write_run

from searches import results, results_table
from tff_fedmeta.command_line import experiment_flags, flags
from tff_fedmeta.command_line.configuration import configuration


@pytest.fixture
def ran(monkeypatch):
    """The command lines that were run; each leaves a finished run in its directory."""
    calls = []

    def run(command, **options):
        calls.append(command)
        (directory,) = (a.partition("=")[2] for a in command if a.startswith("--output_dir="))
        write_run(results.Path(directory), make_config(repetitions=2))
        return types.SimpleNamespace(returncode=0)

    monkeypatch.setattr(results.subprocess, "run", run)
    return calls


def collect(directory, *more):
    return results.main(["results", f"--output_dir={directory}", *more])


def test_runs_are_made_once_and_the_table_has_their_figures(ran, tmp_path, capsys):
    assert collect(tmp_path, "--only=homes,emnist", "--algorithms=fedavg,reptile") == 0
    assert "emnist is not run: it needs --cache_dir." in capsys.readouterr().out
    (command,) = ran
    assert "--algorithms=fedavg,reptile" in command and "--repetitions=3" in command
    text = (tmp_path / "results.md").read_text()
    assert "### homes: accuracy" in text and "### emnist" not in text
    assert "`python run_experiment.py --dataset=csv --data_source=embedded --rounds=60 " in text
    assert str(tmp_path) not in text and "**A synthetic stand-in.**" in text
    assert cell(text, "reptile", "adapted").startswith("80.0 ± ")
    assert cell(text, "reptile", "versus") == "+20.0"
    assert cell(text, "fedavg", "versus") == "-"
    assert cell(text, "reptile", "gradients") == "11" and cell(text, "reptile", "seconds") == "4"
    assert collect(tmp_path, "--only=homes") == 0
    assert len(ran) == 1  # it was finished


def test_the_section_of_a_document_is_replaced_and_what_failed_is_left_out(ran, tmp_path):
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- searches.results -->\nold\n<!-- end of searches.results -->\nend")
    assert collect(tmp_path / "runs", "--only=sinusoid", f"--write={page}") == 0
    text = page.read_text()
    assert text.startswith("before\n") and text.endswith("\nend") and "old" not in text
    assert "### sinusoid" in text
    results.subprocess.run = lambda *a, **k: types.SimpleNamespace(returncode=1)
    assert collect(tmp_path / "runs", "--only=homes", f"--write={page}") == 0
    assert "### sinusoid" in page.read_text() and "### homes" not in page.read_text()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--only=home"], "Did you mean 'homes'?"),
        (["--repetitions=0"], "--repetitions must be >= 1."),
        (["--write=nowhere.md"], "nowhere.md cannot be read"),
        (["--flag=1"], "There is no flag --flag."),
    ],
)
def test_a_mistake_gets_one_sentence(more, said, tmp_path, capsys):
    assert collect(tmp_path / "runs", *more) == 2
    error = capsys.readouterr().err
    assert error.startswith("Error: ") and error.count("\n") == 1 and said in error


@pytest.mark.parametrize("name", results.EXPERIMENTS)
def test_every_command_is_a_valid_configuration(name, tmp_path):
    import datasets

    table = tmp_path / "motion.csv"
    table.write_text("person,activity,x\n" + "a,walk,1\nb,sit,2\n" * 4)
    values = flags.parse({"": results._FLAGS}, ["x", f"--cache_dir={tmp_path}", f"--csv={table}"])
    values.update(tfds_dir=str(tmp_path), csv_flags="--client_column=person")
    values["csv_flags"] += " --label_column=activity"
    _, *command = results.command_of(name, values)
    parsed = flags.parse(experiment_flags.groups(datasets.DATASETS), ["x", *command])
    config = configuration(datasets.DATASETS, parsed, {})
    assert config.algorithms == results.ALGORITHMS and config.repetitions == 3


def test_the_page_has_the_section():
    page = results.ROOT / "docs" / "results.md"
    results_table.split_at_section(page)
