"""The search behind EMNIST's default learning rates of Reptile and FedAvg, recorded and resumable.

    python -m searches.emnist_learning_rates --cache_dir=DIR

Every algorithm gets the same trials: all pairs of inner and server rate for a few rounds, then the
best three for the full default number of rounds. Judged on validation writers alone, by accuracy
after an adaptation that is chosen as `run_experiment.py` chooses it. Trials are appended to
`emnist_learning_rates.csv` beside this file; those already there are not run again, so delete it
after a change to the other defaults.

The log is of 264 real writers (198 for training, 26 for validation), seed 0. An inner rate of 0.2
did best, but is not the default: with only 126 of these writers FedAvg at (0.2, 1.5) stood at 84 %
until a local training blew up in round 181 (loss 0.24, then 59), and it never recovered. The
defaults are the best pairs at 0.1 and, where two are within 0.1 points, the one with the smaller
server rate. With 26 validation writers differences of a point are noise.
"""

import itertools
from pathlib import Path

from absl import app, flags

from tff_fedmeta import runtime

runtime.quiet_tensorflow()

_CACHE_DIR = flags.DEFINE_string("cache_dir", None, "Where TFF's emnist_all.sqlite is.")
_LOG = Path(__file__).with_suffix(".csv")
_ALGORITHMS = ("reptile", "fedavg")
_INNER_RATES = (0.1, 0.2)
_SERVER_RATES = (1.0, 1.5, 2.0)
_SHORT_ROUNDS, _FULL_ROUNDS, _FINALISTS = 50, 200, 3


def main(argv: list[str]) -> None:
    """Runs the trials that the log does not have yet."""
    from searches import trials

    del argv
    task, read = trials.load_emnist(_CACHE_DIR.value)

    def trial(algorithm: str, inner: float, server: float, rounds: int) -> float:
        rates = {"inner_learning_rate": inner, "server_learning_rate": server}
        return trials.run(task, read, _LOG, algorithm, rates, {"rounds": rounds})

    with runtime.local_runtime():
        for algorithm in _ALGORITHMS:
            pairs = list(itertools.product(_INNER_RATES, _SERVER_RATES))
            scores = {pair: trial(algorithm, *pair, _SHORT_ROUNDS) for pair in pairs}
            best = sorted(pairs, key=scores.__getitem__, reverse=True)[:_FINALISTS]
            for pair in best:
                trial(algorithm, *pair, _FULL_ROUNDS)


if __name__ == "__main__":
    app.run(main)
