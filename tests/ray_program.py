"""A program that trains on a Ray of its own for ever, for tests that end it."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tff_fedmeta import runtime

runtime.quiet_tensorflow()

from conftest import make_client, model_fn  # noqa: E402

import tff_fedmeta as fm  # noqa: E402


def main():
    process = fm.build_reptile(model_fn, inner_learning_rate=0.1, inner_steps=1, batch_size=4)
    cohort = [fm.client_dataset(*make_client(5, n)) for n in range(8)]
    with fm.ray_runtime(num_workers=1, threads_per_worker=1):
        state = process.initialize()
        while True:
            state, _ = process.next(state, cohort)
            print("round", flush=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
