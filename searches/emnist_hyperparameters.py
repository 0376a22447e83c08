"""The search behind EMNIST's defaults of the methods that send gradients, recorded and resumable.

    python -m searches.emnist_hyperparameters --cache_dir=DIR --hours=1

Successive halving (Jamieson and Talwalkar, arXiv:1502.07943): every algorithm gets five trials of
40 rounds, and the better two of them another of 120. Judged on writers that do not train, by their
accuracy after adapting to 20 % of their examples, at the rate and the number of steps, up to 3,
that suit them best. To judge by more than the 10 % of validation writers, some training writers
become validation writers here; test writers are not read. Trials are appended to
`emnist_hyperparameters.csv` beside this file; those already there are not run again, so delete it
after a change to the other defaults. No trial is begun after `--hours`; a later call goes on.

The log is of 264 writers; its trials took 1.3 hours. Forty rounds are too few to judge a server
Yogi: second of MAML's five then, it won by eight points after 120. So every algorithm's Yogi has a
trial of 120 rounds. It won for MAML, ANIL and FOMAML; with it Meta-SGD learnt nothing. FOMAML has
one of 600 rounds besides, with a server SGD, which starts too slowly for the short ones.
"""

import dataclasses
import time
from pathlib import Path
from typing import Any

from absl import app, flags

from tff_fedmeta import runtime

runtime.quiet_tensorflow()

_CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Where TFF's emnist_all.sqlite is.")
_HOURS = flags.DEFINE_float("hours", 1.0, "After so many hours no further trial is begun.")

_LOG = Path(__file__).with_suffix(".csv")
_SHORT_ROUNDS, _LONG_ROUNDS, _FULL_ROUNDS, _FINALISTS = 40, 120, 600, 2
_EVALUATION = {
    "support_fraction": 0.2,
    "adaptation_steps": 3,
    "adaptation_learning_rates": (0.02, 0.05, 0.1),
    "rounds_per_evaluation": _LONG_ROUNDS,
}
_VALIDATION_CLIENTS = 40


def _trials(fixed: dict[str, Any], names: str, *trials: tuple[Any, ...]) -> list[dict[str, Any]]:
    return [{**fixed, **dict(zip(names.split(), trial))} for trial in trials]


# Without a warm-up a server Adam of this rate left FOMAML at the accuracy of guessing.
_ADAM = {"server_optimizer": "adam", "server_schedule": "linear", "server_warmup": 20}
_SLOW_STARTERS = _trials(
    {"server_optimizer": "yogi", "server_schedule": "linear"},
    "inner_learning_rate server_learning_rate support_fraction",
    (0.02, 0.03, 0.2),
)
_META_GRADIENTS = [
    *_trials(
        _ADAM,
        "inner_learning_rate server_learning_rate support_fraction",
        (0.02, 0.003, 0.2),
        (0.05, 0.003, 0.2),
        (0.1, 0.003, 0.2),
        (0.05, 0.003, 0.5),
    ),
    *_SLOW_STARTERS,
]
(_FOMAML_BY_SGD,) = _trials(
    {"server_optimizer": "sgd", "server_schedule": "constant"},
    "inner_learning_rate server_learning_rate support_fraction",
    (0.02, 0.3, 0.5),
)
TRIALS: dict[str, list[dict[str, Any]]] = {
    "per_fedavg": _trials(
        {"first_order": True, "server_schedule": "linear"},
        "inner_learning_rate meta_learning_rate server_learning_rate",
        (0.02, 0.1, 1.5),
        (0.05, 0.1, 1.5),
        (0.02, 0.2, 1.5),
        (0.02, 0.2, 1.0),
        (0.05, 0.2, 1.0),
    ),
    **{name: _META_GRADIENTS for name in ("fomaml", "anil", "meta_sgd", "maml")},
}


def main(argv: list[str]) -> None:
    """Runs the trials that the log does not have yet."""
    from searches import trials

    del argv
    deadline = time.monotonic() + 3600 * _HOURS.value
    task, read = trials.load_emnist(_CACHE_DIR.value)
    more = max(0, _VALIDATION_CLIENTS - len(task.validation_clients))
    task = dataclasses.replace(
        task,
        train_clients=task.train_clients[more:],
        validation_clients=task.validation_clients + task.train_clients[:more],
    )

    def trial(algorithm: str, hparams: dict[str, Any], rounds: int) -> float:
        if time.monotonic() > deadline:
            raise SystemExit("The budget is spent; the same command goes on from here.")
        values = {"rounds": rounds, **_EVALUATION}
        return trials.run(task, read, _LOG, algorithm, hparams, values)

    with runtime.local_runtime():
        for algorithm, candidates in TRIALS.items():
            scores = [trial(algorithm, hparams, _SHORT_ROUNDS) for hparams in candidates]
            order = sorted(range(len(scores)), key=scores.__getitem__, reverse=True)
            finalists = [candidates[index] for index in order[:_FINALISTS]]
            finalists += [h for h in _SLOW_STARTERS if h in candidates and h not in finalists]
            for hparams in finalists:
                trial(algorithm, hparams, _LONG_ROUNDS)
        trial("fomaml", _FOMAML_BY_SGD, _FULL_ROUNDS)


if __name__ == "__main__":
    app.run(main)
