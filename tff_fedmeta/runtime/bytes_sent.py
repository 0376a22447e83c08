"""What a round of learning sends: bytes to and from each client."""

from typing import Any, NamedTuple

import tensorflow_federated as tff

from tff_fedmeta.runtime import cohort_program, computations, tff_values


class Traffic(NamedTuple):
    """Bytes that cross the boundary between the server and one client in one round.

    Attributes:
      down: What the server sends to a client.
      up: What a client sends to the server.
    """

    down: int
    up: int


def bytes_per_client(
    process: tff.learning.templates.LearningProcess, clients_per_round: int
) -> Traffic:
    """Returns how much a learning process sends in a round, the same in each and for every client.

    Counted are the tensors that TFF's own split of a round moves (`tff.backends.mapreduce`), by the
    bytes of their elements: down, the weights and whatever else is broadcast, such as a clipping
    norm; up, the update as the aggregator sends it, encoded if it compresses, the client's weight,
    metrics and counts. A number of a secure sum counts as many bits as the sum's modulus has: the
    least that the sum over the cohort fits into.

    Not counted is what depends on the transport: framing, the names of tensors, compression of the
    bytes, encryption, and the keys and shares of secure aggregation.

    Args:
      process: The process.
      clients_per_round: How many clients add to a secure sum, >= 1.
    """
    form = computations.learning_form(process.next)
    in_the_clear, *secure = form.work.type_signature.result
    types = [leaf for sums in secure for leaf in tff_values.leaf_types(sums)]
    limits = cohort_program.secure_sum_limits(form)
    bits = [
        _num_elements(leaf) * ((modulus or clients_per_round * greatest + 1) - 1).bit_length()
        for leaf, (greatest, modulus) in zip(types, limits)
    ]
    return Traffic(
        _num_bytes(form.prepare.type_signature.result),
        _num_bytes(in_the_clear) + -(-sum(bits) // 8),
    )


def _num_bytes(type_spec: Any) -> int:
    return sum(
        _num_elements(leaf) * leaf.dtype.itemsize for leaf in tff_values.leaf_types(type_spec)
    )


def _num_elements(leaf: tff.TensorType) -> int:
    return tff.types.num_elements_in_shape(leaf.shape)
