"""The algorithms as TFF learning processes: each is a local update composed with TFF's blocks."""

import functools
from typing import Any, Callable, Optional

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import checks
from tff_fedmeta.algorithms import client_work, local_updates
from tff_fedmeta.client import inner_loop, model_checks
from tff_fedmeta.client.model import ModelFn

# The server's step of the methods that send gradients, where none is given: Adam's, because the
# size of a meta-gradient says little about how far to go.
_META_LEARNING_RATE = 0.001


def build_reptile(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    shuffle: bool = True,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds Reptile (Nichol, Achiam and Schulman, arXiv:1803.02999, Algorithm 1).

    Each round every client trains on its own data, and the server moves by epsilon, its learning
    rate, towards the weighted mean of where they ended. With epsilon 1, equal epochs and weights by
    size this *is* federated averaging.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      inner_learning_rate: The rate of the clients' steps, >= 0.
      batch_size: Examples in a local step, >= 1.
      inner_epochs: Local epochs, >= 0 (1 if neither this nor `inner_steps` is given), or
      inner_steps: local steps, >= 0, that walk the batches and reshuffle when they run out.
      shuffle: Whether examples are shuffled, by each client's own seed; False keeps their order.
      inner_optimizer: The rule of the clients' steps, fresh at every client; None is plain SGD.
        Its learning rate is `inner_learning_rate`.
      server_optimizer: Applies the mean update; None is SGD with epsilon = 1.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory for updates; None is the weighted mean. One that
        takes no weights averages clients that were left out in as zeros.
      metrics_aggregator: As in `tff.learning.algorithms`; None is `sum_then_finalize`.
      roles: Whether clients have a role, which says how they fail (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess` over one-element clients (`client_dataset`).

    Raises:
      ValueError: If a value is out of its range, both epochs and steps are given, or the model has
        moving statistics, which are not aggregated (batch normalisation that is not frozen).
      TypeError: If `client_weighting` is no `tff.learning.ClientWeighting`.
    """
    budget = checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    rule = inner_loop.build_rule(inner_optimizer, inner_learning_rate)

    settings = dict(rule=rule, batch_size=batch_size, shuffle=shuffle)

    def compute_update(model, examples, seed, _, **partial):
        return local_updates.reptile(model, examples, seed, **settings, **budget, **partial)

    work = client_work.build_client_work(
        model_fn,
        compute_update,
        client_weighting=client_weighting,
        metrics_aggregator=metrics_aggregator,
        roles=roles,
    )
    return compose(
        model_fn,
        work,
        server_optimizer or tff.learning.optimizers.build_sgdm(1.0),
        model_aggregator,
    )


def build_maml(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    first_order: bool = False,
    support_fraction: float = 0.5,
    split: str = "random",
    shuffle: bool = True,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds MAML (Finn, Abbeel and Levine, arXiv:1703.03400), second order, or FOMAML.

    Each round every client adapts to its support and sends the exact gradient of its query loss by
    the weights it started from; the server descends along the weighted mean. With one inner step
    on all of the support, `split="same"` and SGD at the server that is, to the letter, gradient
    descent on sum_i w_i L_i(theta - alpha grad L_i(theta)), w_i the clients' shares of examples.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      inner_learning_rate: Alpha, the rate of the inner steps, >= 0.
      batch_size: Support examples in an inner step, >= 1.
      inner_epochs: Epochs over support, >= 0 (1 if neither this nor `inner_steps` is given), or
      inner_steps: inner steps, >= 0, that walk the batches and reshuffle when they run out.
      first_order: Whether the gradient at the adapted weights is sent as it is (FOMAML), without
        the derivative of the inner steps.
      support_fraction: The share of a client's examples that is support, in (0, 1).
      split: "random", "ordered" or "same"; see `support_query.split_support_query`.
      shuffle: Whether the order of support is shuffled in every epoch, by each client's own seed.
      inner_optimizer: The rule of the inner steps, fresh at every client; None is plain SGD. Its
        learning rate is `inner_learning_rate`. Its steps are differentiated too.
      server_optimizer: Applies the mean gradient; None is Adam with rate 0.001.
      client_weighting: How much a client counts in the mean: by all of its examples, support and
        query, or all the same.
      model_aggregator: As in `build_reptile`.
      metrics_aggregator: As in `build_reptile`. The metrics are those on query, adapted.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      A `tff.learning.templates.LearningProcess` over one-element clients (`client_dataset`). A
      client with a single example cannot be split and contributes nothing.

    Raises:
      ValueError: If a value is out of its range, both epochs and steps are given, the model has
        moving statistics, or it draws random numbers in training (dropout) and the order is second:
        the derivative of a step would not be that of the step taken.
      TypeError: If `client_weighting` is no `tff.learning.ClientWeighting`.
    """
    budget = checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    return _build_meta_gradient_process(
        model_fn,
        functools.partial(
            local_updates.maml,
            rule=inner_loop.build_rule(inner_optimizer, inner_learning_rate),
            first_order=first_order,
            **budget,
        ),
        second_order=not first_order,
        batch_size=batch_size,
        support_fraction=support_fraction,
        split=split,
        shuffle=shuffle,
        server_optimizer=server_optimizer,
        client_weighting=client_weighting,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
        roles=roles,
    )


def build_meta_sgd(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    support_fraction: float = 0.5,
    split: str = "random",
    shuffle: bool = True,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds Meta-SGD (Li, Zhou, Chen and Li, arXiv:1707.09835): MAML that learns its inner rates.

    Every weight has a rate of its own, sent, adapted with, differentiated by and aggregated as the
    weights are. `get_model_weights(state).trainable` holds the n weights and behind them their n
    rates; `build_adaptation_eval(learned_rates=True)` and `to_keras(learned_rates=True)` take both.

    Args:
      model_fn: As in `build_maml`, and so are all arguments of the same name.
      inner_learning_rate: What every rate starts from, >= 0. They may become negative.
      batch_size: Support examples in an inner step, >= 1.
      inner_epochs: Epochs over support, or
      inner_steps: inner steps.
      support_fraction: The share of a client's examples that is support, in (0, 1).
      split: "random", "ordered" or "same".
      shuffle: Whether the order of support is shuffled in every epoch.
      inner_optimizer: None: the steps are plain SGD, with the learnt rates.
      server_optimizer: Applies the mean gradient, to weights and rates alike.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory, for weights and rates together.
      metrics_aggregator: As in `tff.learning.algorithms`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      As `build_maml`.

    Raises:
      ValueError: As `build_maml`, and if there is an `inner_optimizer`.
      TypeError: As `build_maml`.
    """
    if inner_optimizer is not None:
        raise ValueError("build_meta_sgd steps by the rates it learns; give no inner_optimizer.")
    budget = checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)

    def meta_sgd(model, examples, seed, rates, **settings):
        rule = inner_loop.SGD(rates)
        return local_updates.maml(model, examples, seed, rule=rule, **settings, **budget)

    return _build_meta_gradient_process(
        model_fn,
        meta_sgd,
        second_order=True,
        batch_size=batch_size,
        initial_rate=inner_learning_rate,
        support_fraction=support_fraction,
        split=split,
        shuffle=shuffle,
        server_optimizer=server_optimizer,
        client_weighting=client_weighting,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
        roles=roles,
    )


def build_anil(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    batch_size: int,
    head_layers: int = 1,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    first_order: bool = False,
    support_fraction: float = 0.5,
    split: str = "random",
    shuffle: bool = True,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds ANIL (Raghu, Raghu, Bengio and Vinyals, arXiv:1909.09157): MAML that adapts the head.

    The inner steps move the last layers alone; the gradient, second order as in MAML, is by all
    weights. With all layers in the head it *is* MAML.

    Args:
      model_fn: As in `build_maml`, and so are all arguments of the same name.
      inner_learning_rate: The rate of the inner steps, >= 0.
      batch_size: Support examples in an inner step, >= 1.
      head_layers: How many layers the head has, counted from the end among those that have weights;
        layers are told apart by the names of their variables. From 1 to all of them.
      inner_epochs: Epochs over support, or
      inner_steps: inner steps.
      first_order: Whether the derivative of the inner steps is left out.
      support_fraction: The share of a client's examples that is support, in (0, 1).
      split: "random", "ordered" or "same".
      shuffle: Whether the order of support is shuffled in every epoch.
      inner_optimizer: The rule of the inner steps.
      server_optimizer: Applies the mean gradient.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory for gradients.
      metrics_aggregator: As in `tff.learning.algorithms`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      As `build_maml`.

    Raises:
      ValueError: As `build_maml`, and if the model has fewer layers than `head_layers`.
      TypeError: As `build_maml`.
    """
    budget = checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    with tf.Graph().as_default():
        head = model_checks.head_variables(model_fn(), head_layers)
    return _build_meta_gradient_process(
        model_fn,
        functools.partial(
            local_updates.maml,
            rule=inner_loop.build_rule(inner_optimizer, inner_learning_rate),
            first_order=first_order,
            moving=head,
            **budget,
        ),
        second_order=not first_order,
        batch_size=batch_size,
        support_fraction=support_fraction,
        split=split,
        shuffle=shuffle,
        server_optimizer=server_optimizer,
        client_weighting=client_weighting,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
        roles=roles,
    )


def build_per_fedavg(
    model_fn: ModelFn,
    *,
    inner_learning_rate: float,
    meta_learning_rate: float,
    local_meta_steps: int,
    batch_size: int,
    inner_epochs: Optional[int] = None,
    inner_steps: Optional[int] = None,
    first_order: bool = False,
    support_fraction: float = 0.5,
    split: str = "random",
    shuffle: bool = True,
    inner_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer] = None,
    client_weighting: tff.learning.ClientWeighting = tff.learning.ClientWeighting.NUM_EXAMPLES,
    model_aggregator: Optional[Any] = None,
    metrics_aggregator: Optional[Callable[..., Any]] = None,
    roles: bool = False,
) -> tff.learning.templates.LearningProcess:
    """Builds Per-FedAvg (Fallah, Mokhtari and Ozdaglar, arXiv:2002.07948): local steps of MAML.

    Each round every client takes tau steps of its own along its meta-gradient, and the server
    averages where they end. With tau = 1 this *is* MAML at a server step of `meta_learning_rate`.

    Args:
      model_fn: As in `build_maml`, and so are all arguments of the same name.
      inner_learning_rate: Alpha, the rate of the inner steps, >= 0.
      meta_learning_rate: Beta, the rate of the local meta-steps, >= 0.
      local_meta_steps: Tau, the local meta-steps, >= 1.
      batch_size: Support examples in an inner step, >= 1.
      inner_epochs: Epochs over support, which the meta-steps divide among them, as they do one
        pass over query (1 if neither this nor `inner_steps` is given); or
      inner_steps: inner steps in every meta-step, each of which sees all of the query.
      first_order: Whether the Hessian is left out, the paper's variant FO; otherwise it is
        multiplied exactly, where the paper's HF takes a difference of gradients.
      support_fraction: The share of a client's examples that is support, in (0, 1).
      split: "random", "ordered" or "same".
      shuffle: Whether the order of support is shuffled in every epoch.
      inner_optimizer: The rule of the inner steps, fresh in every meta-step.
      server_optimizer: Applies the mean update; None is SGD with rate 1, the mean itself.
      client_weighting: How much a client counts in the mean.
      model_aggregator: A TFF aggregation factory for updates.
      metrics_aggregator: As in `tff.learning.algorithms`.
      roles: Whether clients have a role (`failures.Role`).

    Returns:
      As `build_maml`.

    Raises:
      ValueError: As `build_maml`.
      TypeError: As `build_maml`.
    """
    budget = checks.check_local_training(inner_learning_rate, batch_size, inner_epochs, inner_steps)
    checks.check_number("meta_learning_rate", meta_learning_rate, 0)
    checks.check_count("local_meta_steps", local_meta_steps, 1)
    return _build_meta_gradient_process(
        model_fn,
        functools.partial(
            local_updates.per_fedavg,
            rule=inner_loop.build_rule(inner_optimizer, inner_learning_rate),
            meta_learning_rate=meta_learning_rate,
            local_meta_steps=local_meta_steps,
            first_order=first_order,
            **budget,
        ),
        second_order=not first_order,
        batch_size=batch_size,
        support_fraction=support_fraction,
        split=split,
        shuffle=shuffle,
        server_optimizer=server_optimizer or tff.learning.optimizers.build_sgdm(1.0),
        client_weighting=client_weighting,
        model_aggregator=model_aggregator,
        metrics_aggregator=metrics_aggregator,
        roles=roles,
    )


def _build_fomaml(model_fn: ModelFn, **arguments: Any) -> tff.learning.templates.LearningProcess:
    """Builds FOMAML: `build_maml` with `first_order=True`, whose other arguments it takes."""
    return build_maml(model_fn, first_order=True, **arguments)


# name -> builder; every builder takes (model_fn, **hyperparameters).
ALGORITHMS: dict[str, Callable[..., tff.learning.templates.LearningProcess]] = {
    "reptile": build_reptile,
    "fomaml": _build_fomaml,
    "maml": build_maml,
    "meta_sgd": build_meta_sgd,
    "anil": build_anil,
    "per_fedavg": build_per_fedavg,
}

# Those whose weights have learnt rates behind them.
LEARN_RATES = frozenset({"meta_sgd"})


def _build_meta_gradient_process(
    model_fn: ModelFn,
    local_update: Callable[..., local_updates.LocalUpdate],
    *,
    second_order: bool,
    batch_size: int,
    support_fraction: float,
    split: str,
    shuffle: bool,
    server_optimizer: Optional[tff.learning.optimizers.Optimizer],
    client_weighting: tff.learning.ClientWeighting,
    model_aggregator: Optional[Any],
    metrics_aggregator: Optional[Callable[..., Any]],
    roles: bool,
    initial_rate: Optional[float] = None,
) -> tff.learning.templates.LearningProcess:
    """Builds what the methods with a support and a query have in common; see `build_maml`."""
    checks.check_split(support_fraction, split)
    if second_order:
        model_checks.refuse_stochastic_layers(model_fn)
    learned_rates = initial_rate is not None
    settings = dict(
        batch_size=batch_size, support_fraction=support_fraction, split=split, shuffle=shuffle
    )

    def compute_update(model, examples, seed, rates, **partial):
        more = dict(rates=rates) if learned_rates else {}
        return local_update(model, examples, seed, **more, **settings, **partial)

    work = client_work.build_client_work(
        model_fn,
        compute_update,
        learned_rates=learned_rates,
        client_weighting=client_weighting,
        metrics_aggregator=metrics_aggregator,
        min_examples=1 if split == "same" else 2,
        roles=roles,
    )
    return compose(
        model_fn,
        work,
        server_optimizer or tff.learning.optimizers.build_adam(_META_LEARNING_RATE),
        model_aggregator,
        initial_rate,
    )


def compose(
    model_fn: ModelFn,
    work: tff.learning.templates.ClientWorkProcess,
    server_optimizer: tff.learning.optimizers.Optimizer,
    model_aggregator: Optional[Any] = None,
    initial_rate: Optional[float] = None,
) -> tff.learning.templates.LearningProcess:
    """Composes client work with TFF's broadcast, an aggregator and a server optimizer.

    Args:
      model_fn: A no-argument function returning a fresh `tff.learning.models.VariableModel`.
      work: What the clients do.
      server_optimizer: Applies the mean update.
      model_aggregator: A TFF aggregation factory; None is the weighted mean.
      initial_rate: What a learnt rate for each weight starts from; None: there are none.
    """

    @tff.tensorflow.computation
    def initial_weights():
        weights = tff.learning.models.ModelWeights.from_model(model_fn())
        if initial_rate is None:
            return weights
        rates = [tf.fill(w.shape, tf.cast(initial_rate, w.dtype)) for w in weights.trainable]
        return tff.learning.models.ModelWeights([*weights.trainable, *rates], weights.non_trainable)

    weights_type = initial_weights.type_signature.result
    aggregator = taking_weights(model_aggregator)
    return tff.learning.templates.compose_learning_process(
        initial_weights,
        tff.learning.templates.build_broadcast_process(weights_type),
        work,
        aggregator.create(weights_type.trainable, tff.TensorType(tf.float32.as_numpy_dtype)),
        tff.learning.templates.build_apply_optimizer_finalizer(server_optimizer, weights_type),
    )


def taking_weights(model_aggregator: Optional[Any]) -> Any:
    """Returns a TFF aggregation factory as one that is given the clients' weights.

    One that takes none, such as `tff.learning.dp_aggregator`, ignores them: all clients count the
    same. None is the weighted mean.
    """
    aggregator = model_aggregator or tff.aggregators.MeanFactory()
    if isinstance(aggregator, tff.aggregators.UnweightedAggregationFactory):
        return tff.aggregators.as_weighted_aggregator(aggregator)
    return aggregator
