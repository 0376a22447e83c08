"""Clients that send something else than what they computed, as their `failures.Role` says."""

from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.client import minibatches
from tff_fedmeta.config import failures


def role_of(client: Any) -> Any:
    """Returns the `failures.Role` that a client's element holds, of float32 scalars."""
    return failures.Role(*tf.unstack(client["role"]))


def corrupting(work: Any, prepare: Any = None) -> Any:
    """Returns client work whose clients send what their roles say.

    Args:
      work: A `tff.learning.templates.ClientWorkProcess`.
      prepare: A TFF computation that makes of a client what `work` takes; None: it takes a client,
        one element that holds a role.

    Returns:
      Client work over clients with roles, otherwise the same.
    """
    signature = work.next.type_signature
    sent_type = signature.result.result.member
    client_type = (
        signature.parameter[2].member if prepare is None else prepare.type_signature.parameter
    )

    @tff.tensorflow.computation(sent_type, client_type)
    def corrupt(sent: Any, dataset: Any) -> Any:
        client = dataset.get_single_element()
        role = role_of(client)
        update = tf.nest.map_structure(
            lambda tensor: tf.cast(role.factor, tensor.dtype) * tensor, sent.update
        )
        noisy = tf.cond(
            role.noise > 0,
            lambda: _add_noise(update, sent.update, role.noise, client["seed"]),
            lambda: update,
        )
        return tff.learning.templates.ClientResult(noisy, sent.update_weight)

    @tff.federated_computation(
        signature.parameter[0],
        signature.parameter[1],
        tff.FederatedType(client_type, tff.CLIENTS),
    )
    def next_round(state: Any, weights: Any, clients: Any) -> Any:
        prepared = clients if prepare is None else tff.federated_map(prepare, clients)
        output = work.next(state, weights, prepared)
        sent = tff.federated_map(corrupt, (output.result, clients))
        return tff.templates.MeasuredProcessOutput(output.state, sent, output.measurements)

    return tff.learning.templates.ClientWorkProcess(work.initialize, next_round)


def _add_noise(update: Any, computed: Any, noise: Any, seed: Any) -> Any:
    """Adds Gaussian noise of `noise` times the norm of what the client computed."""
    flat = tf.nest.flatten(update)
    fold_in = tf.random.experimental.stateless_fold_in
    stream = fold_in(seed, minibatches.ATTACK_STREAM)
    drawn = [
        tf.random.stateless_normal(tensor.shape, fold_in(stream, index), dtype=tensor.dtype)
        for index, tensor in enumerate(flat)
    ]
    scale = noise * tf.linalg.global_norm(tf.nest.flatten(computed)) / tf.linalg.global_norm(drawn)
    noisy = [t + tf.cast(scale, t.dtype) * z for t, z in zip(flat, drawn)]
    return tf.nest.pack_sequence_as(update, noisy)
