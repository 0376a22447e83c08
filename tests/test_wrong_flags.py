"""Wrong flags and files: one sentence, status 2, before TensorFlow is imported, nothing on disk.

All are given to `main()` one after the other in one process, which tells after each what it did.
"""

import json
import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[1]
_RUN = """
import contextlib, io, json, os, sys
import run_experiment
for flags in json.load(sys.stdin):
    said, printed = io.StringIO(), io.StringIO()
    before = "tensorflow" in sys.modules
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(printed):
        status = run_experiment.main(["run_experiment.py", *flags])
    found = {"status": status, "said": said.getvalue(), "made": sorted(os.listdir("."))}
    found["imported"] = not before and "tensorflow" in sys.modules
    print(json.dumps(found), flush=True)
"""

CSV = ["--dataset=csv", "--csv=ok.csv", "--client_column=who", "--label_column=y"]
SINUSOID = ["--dataset=sinusoid"]
OMNIGLOT = ["--dataset=omniglot", "--data_source=embedded"]
EMNIST = ["--dataset=emnist", "--data_source=embedded"]
SHAKESPEARE = ["--dataset=shakespeare", "--data_source=embedded"]
STACKOVERFLOW = ["--dataset=stackoverflow", "--data_source=embedded"]
MOVIELENS = ["--dataset=movielens", "--data_source=embedded"]
PRIVATE = [*SINUSOID, "--aggregator=dp"]
FLIP = ["--byzantine_fraction=0.5", "--attack=label_flip"]

_ROWS = [f"c{i % 12},{i},{i * 7 % 5 + 0.5},{i % 2},{i * 0.37}" for i in range(240)]
FILES = {
    "ok.csv": "\n".join(["who,t,x,y,z", *_ROWS]),
    "one.csv": "who,x,y\na,1,0\na,2,1\n",
    "empty.csv": "",
    "header.csv": "who,x,y\n",
    "inf.csv": "\n".join(["who,t,x,y,z", *_ROWS]).replace("2.5", "inf"),
    "same.csv": "who,x,y\n" + "".join(f"c{i % 9},{i},0\n" for i in range(90)),
    "image.csv": "\x89PNG\r\n\x1a\n",
}
CASES = [
    # Files.
    ([*CSV, "--csv=nowhere.csv"], "nowhere.csv cannot be read"),
    ([*CSV, "--csv=one.csv"], "at least 3"),
    ([*CSV, "--csv=empty.csv"], "No columns"),
    ([*CSV, "--csv=header.csv"], "no rows"),
    ([*CSV, "--csv=inf.csv"], "has inf in row 2"),
    ([*CSV, "--csv=same.csv"], "the same label, 0"),
    ([*CSV, "--csv=image.csv"], "not a table but an image"),
    ([*CSV, "--label_column=yy"], "no column 'yy'; the closest are 'y'"),
    ([*CSV, "--client_column=whoo"], "the closest are 'who'"),
    ([*CSV, "--feature_columns=x,zz"], "no column 'zz'"),
    ([*CSV, "--time_column=tt"], "--time_column: the table has no column 'tt'"),
    ([*CSV, "--exclude_columns=a\nb"], "it has a line break"),
    ([*CSV, "--window=4611686018427387904"], "window must be"),
    ([*CSV, "--window=500"], "lower --window"),
    ([*CSV, "--test_clients=nobody"], "no client 'nobody'"),
    ([*CSV, "--metric=mae"], "--metric must be one of accuracy"),
    ([*CSV, "--encoding=klingon"], "no encoding called 'klingon'"),
    ([*CSV, "--num_test_clients=50"], "between 1 and 10 for 12 clients"),
    ([*CSV, "--clients_per_round=50"], "at most the number of training clients, 9, but is 50"),
    ([*CSV, "--clients_per_round=2", "--label_column=z", *FLIP], "are float32"),
    (["--dataset=movielens", "--ratings=nowhere"], "nowhere cannot be read"),
    ([*SINUSOID, "--plugin=nowhere.py"], "no file 'nowhere.py'"),
    ([*SINUSOID, "--model=nowhere.keras"], "cannot be read"),
    (["--dataset=emnist", "--data_source=tff", "--cache_dir=image.csv"], "is not available"),
    # Clients and classes that there are not.
    ([*EMNIST, "--clients_per_round=1000"], "training clients, 225, but is 1000"),
    ([*EMNIST, "--num_test_clients=1000"], "between 1 and 269"),
    ([*SINUSOID, "--clients_per_round=20000"], "training clients, 10000"),
    ([*SINUSOID, *FLIP], "needs labels that are whole numbers"),
    ([*SHAKESPEARE, "--clients_per_round=1000"], "the number of training clients"),
    ([*STACKOVERFLOW, "--num_test_clients=240"], "between 1 and 215"),
    ([*MOVIELENS, "--num_test_clients=100000"], "The number of test clients"),
    ([*OMNIGLOT, "--ways=500"], "500 classes, but there are 300"),
    ([*OMNIGLOT, "--shots=30", "--train_shots=40"], "the smallest with 20 images"),
    (["--dataset=omniglot", "--tfds_name=omniglott"], "no data set 'omniglott'"),
    # Numbers beyond what can be.
    ([*SINUSOID, f"--rounds={10**30}"], "from 1 to 10000000"),
    ([*SINUSOID, f"--rounds={10**400}"], "from 1 to 10000000"),
    ([*SINUSOID, f"--batch_size={2**31}"], "from 1 to 1000000"),
    ([*SINUSOID, f"--batch_size={2**63}"], "from 1 to 1000000"),
    ([*SINUSOID, f"--inner_steps={2**63}"], "from 1 to 100000"),
    ([*SINUSOID, f"--inner_epochs={2**40}"], "from 1 to 10000"),
    ([*SINUSOID, f"--adaptation_steps={10**9}"], "from 0 to 100000"),
    ([*SINUSOID, "--adaptation_learning_rates=1e39"], "1e+39 is infinite"),
    ([*SINUSOID, "--adaptation_learning_rates=1e-60"], "1e-60 is 0"),
    ([*SINUSOID, "--inner_learning_rate=1e39"], "must fit float32"),
    ([*SINUSOID, "--hparam=reptile.server_learning_rate=1e7"], "from 0 to 1e+06"),
    ([*SINUSOID, "--max_phase=1e308"], "> 0 and <= 1,000"),
    ([*OMNIGLOT, "--image_size=1000000"], ">= 16 and <= 1,024"),
    ([*SHAKESPEARE, "--lstm_size=10000000"], "<= 10,000"),
    ([*SHAKESPEARE, "--lstm_size=10000", f"--embedding_size={10**18}"], "embedding_size must be"),
    ([*STACKOVERFLOW, f"--vocabulary_size={2**63}"], "<= 1,000,000"),
    (
        [*STACKOVERFLOW, "--vocabulary_size=1000000", "--embedding_size=10000"],
        "640 GB of memory, but this machine has",
    ),
    # Privacy.
    (PRIVATE, "needs one of dp_epsilon"),
    ([*PRIVATE, "--dp_epsilon=1e-9"], "from 0.01 to 1e+06"),
    ([*PRIVATE, "--dp_epsilon=1e-300"], "must fit float32"),
    ([*PRIVATE, "--dp_epsilon=1", "--dp_delta=1e-320"], "dp_delta must"),
    ([*PRIVATE, "--noise_multiplier=1e-12"], "if not 0, must be from 0.01 to 100000"),
    ([*PRIVATE, "--noise_multiplier=1e300"], "must fit float32"),
    ([*PRIVATE, "--noise_multiplier=1", "--dp_clip=1", "--dp_initial_clip=2"], "not both"),
    (
        [*PRIVATE, "--dp_epsilon=.01", "--rounds=10000000", "--clients_per_round=9000"],
        "would take a noise_multiplier above 100000",
    ),
    # Names and lists.
    (["--dataset=emnst"], "Did you mean 'emnist'?"),
    ([*SINUSOID, "--algorithms=reptil"], "Did you mean 'reptile'?"),
    ([*SINUSOID, "--algorithms=reptile\nfedavg"], "must not have a line break"),
    ([*SINUSOID, "--adaptation_learning_rates=.1,.1"], "one or more different numbers"),
    ([*SINUSOID, "--hparam=reptile.foo=1"], "got 'foo'"),
    ([*SINUSOID, "--rond=3"], "Did you mean --rounds?"),
    ([*SINUSOID, "--secure_clip=5"], "secure_clip is for the aggregator secure"),
    ([*SINUSOID, "--export=onnx"], "keras, tflite"),
    ([*SINUSOID, "--output_dir=ok.csv/run"], "cannot be written"),
]


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wrong")
    for name, text in FILES.items():
        (directory / name).write_text(text, encoding="latin-1")
    done = subprocess.run(
        [sys.executable, "-c", _RUN],
        input=json.dumps([flags for flags, _ in CASES]),
        capture_output=True,
        text=True,
        cwd=directory,
        env={"PYTHONPATH": str(_ROOT), "HOME": str(directory), "PATH": ""},
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "number", range(len(CASES)), ids=[" ".join(flags)[:70] for flags, _ in CASES]
)
def test_a_wrong_flag_is_one_sentence_before_anything_is_done(answers, number):
    answer, expected = answers[number], CASES[number][1]
    assert answer["status"] == 2
    assert answer["said"].startswith("Error: ") and answer["said"].count("\n") == 1
    assert expected in answer["said"]
    assert answer["made"] == sorted(FILES)
    assert not answer["imported"]
