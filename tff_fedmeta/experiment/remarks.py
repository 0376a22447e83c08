"""What a reader of a comparison has to know beside its figures: settings, failures, privacy."""

from __future__ import annotations

from tff_fedmeta.config import ExperimentConfig, aggregator_options
from tff_fedmeta.experiment.results import Results

# What Reptile's hyperparameters mean where they are not FedAvg's.
_IN_WORDS = {
    ("server_schedule", "linear"): "its server step falls linearly to 0 over the run",
    ("server_schedule", "cooldown"): "its server step falls to 0 over the last 30 % of the run",
    ("client_weighting", "uniform"): "it weighs clients equally, not by size",
}


def remarks(found: Results) -> list[str]:
    """Returns the remarks on a comparison, a line each."""
    diverged = [run.get("diverged") for runs in found.adapted.values() for run in runs]
    return [
        *_differences(found.config),
        *filter(None, diverged),
        *_failures(found.config),
        *_privacy(found),
    ]


def aggregation(config: ExperimentConfig) -> str:
    """Says how updates were aggregated."""
    options = ", ".join(f"{name} {value}" for name, value in config.aggregator_options.items())
    return f"**{config.aggregator}**" + (f" ({options})" if options else "")


def _differences(config: ExperimentConfig) -> list[str]:
    """Says how each algorithm was set, and where two rows are the same algorithm."""
    lines = [
        f"{name}: "
        + ", ".join(f"{key} {value}" for key, value in config.hyperparameters[name].items())
        for name in config.algorithms
    ]
    if {"reptile", "fedavg"} <= set(config.algorithms):
        reptile, fedavg = config.hyperparameters["reptile"], config.hyperparameters["fedavg"]
        reasons = [
            _IN_WORDS.get((name, value), f"its {name} is {value} instead of {fedavg[name]}")
            for name, value in reptile.items()
            if value != fedavg[name]
        ]
        if reptile["client_weighting"] == "examples" and config.inner_steps is not None:
            reasons.append("it weighs clients by size, not by the examples of their steps")
        lines.append(
            f"reptile differs from fedavg in that {', '.join(reasons)}; "
            "otherwise the two would be the same algorithm."
            if reasons
            else "reptile and fedavg coincide: same server step, local epochs, rates and weights."
        )
    return lines


def _failures(config: ExperimentConfig) -> list[str]:
    """Says how clients failed, if they did."""
    if not config.failures.any:
        return []
    how = ", ".join(f"{name} {value}" for name, value in vars(config.failures).items())
    return [f"clients failed in every row alike, as metrics.csv counts: {how}"]


def _privacy(found: Results) -> list[str]:
    """Says what a private run guarantees, and of what."""
    config, task = found.config, found.task
    if config.aggregator not in aggregator_options.PRIVATE:
        return []
    from tff_fedmeta.aggregation import privacy

    count, rounds = len(task.train_clients), config.rounds
    promise = privacy.guarantee(config.aggregator_options, config.clients_per_round, count, rounds)
    if promise.noise_multiplier == 0:
        return ["privacy: none, because there is no noise"]
    frames = [frame for of_algorithm in found.metrics.values() for frame in of_algorithm]
    if not frames:
        return ["privacy: nothing was trained, so nothing was learnt of training clients"]
    spent = max(frame["privacy/epsilon"].max() for frame in frames)
    poisson = promise.sampling == "poisson"
    return [
        f"privacy: the weights of each row are ({spent:.3g}, {promise.delta:.3g})-differentially "
        f"private for a training client {'added or removed' if poisson else 'replaced'}, with "
        f"noise multiplier {promise.noise_multiplier:.4g} and "
        f"{promise.sampling} cohorts of {config.clients_per_round} from {count}, over "
        f"{rounds:,} rounds (the event of a round is {promise.event}); anyone who sees several "
        "rows must add their epsilons. Outside of the guarantee: the figures on training clients "
        "in metrics.csv, which have no noise, and what was chosen with their help; it assumes that "
        "the seed, which tells the cohorts, is secret"
    ]


def who_is_tested(found: Results) -> str:
    """Says how many clients train, validate and are tested."""
    task, folds = found.task, found.comparison.get("folds")
    if folds is not None:
        sides = (task.train_clients, task.validation_clients, task.test_clients)
        total = sum(len(side) for side in sides)
        return f"Each of {total} clients was tested once, in {folds} folds that train on the others"
    return (
        f"{len(task.train_clients)} training, {len(task.validation_clients)} validation and "
        f"{len(task.test_clients)} test clients"
    )
