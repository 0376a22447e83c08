"""Reptile whose local steps are held near the server's weights, as a plug-in of 40 lines.

Run it with

    python run_experiment.py --plugin=examples/new_algorithm.py --algorithms=near_reptile,fedavg
"""

import dataclasses
import functools

import tensorflow as tf
import tensorflow_federated as tff

import tff_fedmeta as fm


@dataclasses.dataclass(frozen=True)
class Hyperparameters(fm.FedAvgHyperparameters):
    """Those of FedAvg, and how strongly a client is held."""

    strength: float = fm.setting(0.1, "Pull towards the server's weights.", at_least=0)


class NearSGD(fm.Rule):
    """Gradient descent on the loss and strength / 2 * ||theta - theta_0||^2."""

    def __init__(self, rate, strength):
        self.rate, self.strength = rate, strength

    def initialize(self, variables):
        return [tf.identity(variable) for variable in variables]  # theta_0

    def next(self, start, weights, gradients):
        new = [
            w - self.rate * ((0.0 if g is None else g) + self.strength * (w - w0))
            for w, w0, g in zip(weights, start, gradients)
        ]
        return start, new


def near_reptile(model, examples, seed, *, rule, plan):
    """One client's update: where it started minus where it ended."""
    steps = plan(tf.shape(tf.nest.flatten(examples)[0])[0], seed)
    start = [tf.identity(variable) for variable in model.trainable_variables]
    state = rule.initialize(model.trainable_variables)
    fm.train_locally(model, examples, steps, rule, state, 0, steps.num_steps)
    moved = [before - after for before, after in zip(start, model.trainable_variables)]
    walked = steps.count_examples(0, steps.num_steps)
    return fm.LocalUpdate(moved, model.report_local_unfinalized_metrics(), walked, steps.num_steps)


@fm.register_algorithm("near_reptile", Hyperparameters)
def build(
    model_fn,
    *,
    inner_learning_rate,
    strength,
    batch_size,
    inner_epochs=None,
    inner_steps=None,
    server_optimizer=None,
    client_weighting=tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator=None,
):
    """Builds the learning process from the client's update."""
    plan = functools.partial(
        fm.plan_minibatches,
        batch_size=batch_size,
        inner_epochs=inner_epochs,
        inner_steps=inner_steps,
    )
    rule = NearSGD(inner_learning_rate, strength)
    update = functools.partial(near_reptile, rule=rule, plan=plan)
    work = fm.build_client_work(model_fn, update, client_weighting=client_weighting)
    server_optimizer = server_optimizer or tff.learning.optimizers.build_sgdm(1.0)
    return fm.compose(model_fn, work, server_optimizer, model_aggregator)
