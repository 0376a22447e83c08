"""A cohort's part of a round as programs: one trains clients and adds up, one adds up sums."""

from collections.abc import Sequence
from typing import Any, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.runtime import tff_values
from tff_fedmeta.runtime.client_feeds import ClientFeeds
from tff_fedmeta.runtime.graph_functions import (
    GraphFunction,
    placeholder,
    placeholders,
    program,
    program_of,
)
from tff_fedmeta.runtime.programs import Program
from tff_fedmeta.runtime.work import CLIENTS_PER_CALL


class Sums:
    """How updates are added up: TFF's accumulators, and behind them its secure sums.

    Secure sums are computed as they are defined; their cryptography is the deployment's.

    Attributes:
      num_accumulators: How many of the sums' tensors are TFF's accumulators.
      merge_program: (sums, sums) -> their sum.
    """

    def __init__(self, form: Any):
        *_, bits, bounded, modular = form.work.type_signature.result
        self._secure_types = [
            leaf for sums in (bits, bounded, modular) for leaf in tff_values.leaf_types(sums)
        ]
        self._limits = secure_sum_limits(form)
        self._zero = GraphFunction(form.zero, "zero")
        self._accumulate = GraphFunction(form.accumulate, "accumulate")
        accumulator_types = tff_values.leaf_types(form.accumulate.type_signature.result)
        self.num_accumulators = len(accumulator_types)
        self._types = accumulator_types + self._secure_types
        merge = GraphFunction(form.merge, "merge")
        with tf.Graph().as_default() as graph:
            self._zero_program = program(graph, [], self.zero())
        with tf.Graph().as_default() as graph:
            one, other = ([placeholder(leaf) for leaf in self._types] for _ in range(2))
            count = self.num_accumulators
            merged = merge(one[:count] + other[:count])
            moduli = [modulus for _, modulus in self._limits]
            merged += map(_added, one[count:], other[count:], moduli)
            self.merge_program = program(graph, one + other, merged)

    @property
    def shapes(self) -> list[tf.TensorShape]:
        """The shapes of the sums' tensors."""
        return [tf.TensorShape(type_spec.shape) for type_spec in self._types]

    def add_library(self) -> None:
        """Adds the functions that `zero` and `add` call to the current graph."""
        self._zero.add_library()
        self._accumulate.add_library()

    def zero(self) -> list[tf.Tensor]:
        """Returns the sums of no clients, in the current graph."""
        return self._zero([]) + [tf.zeros(t.shape, t.dtype) for t in self._secure_types]

    def add(self, sums: Sequence[tf.Tensor], update: Sequence[tf.Tensor]) -> list[tf.Tensor]:
        """Returns the sums with a client's update added, in the current graph."""
        first = len(update) - len(self._secure_types)
        accumulators = self._accumulate([*sums[: self.num_accumulators], *update[:first]])
        secure = []
        for total, value, (greatest, modulus) in zip(
            sums[self.num_accumulators :], update[first:], self._limits
        ):
            most = min(greatest, value.dtype.max)
            message = f"A client's value for a secure sum must be in [0, {greatest}]."
            fits = [
                tf.debugging.assert_non_negative(value, message),
                tf.debugging.assert_less_equal(value, tf.constant(most, value.dtype), message),
            ]
            with tf.control_dependencies(fits):
                secure.append(_added(total, value, modulus))
        return accumulators + secure

    def nothing(self) -> list[np.ndarray]:
        """Returns the sums of no clients."""
        return self._zero_program([])

    def close(self) -> None:
        """Frees the programs."""
        self._zero_program.close()
        self.merge_program.close()


def cohort_program(form: Any, feeds: ClientFeeds, sums: Sums) -> Program:
    """Returns the program that trains a few clients, one after the other, and adds up updates.

    It is fed how many of its slots hold a client, the context, and `CLIENTS_PER_CALL` slots.
    """
    work = GraphFunction(form.work, "work")
    with tf.Graph().as_default() as graph:
        work.add_library()
        sums.add_library()
        context = placeholders(form.prepare.type_signature.result)
        num_clients = tf.compat.v1.placeholder(tf.int32, [])
        slots = [
            [tf.compat.v1.placeholder(spec.dtype, spec.shape) for spec in feeds.specs]
            for _ in range(CLIENTS_PER_CALL)
        ]
        # A dataset of one element is how tensors of any shape become items of a list.
        dtypes, shapes = zip(*((spec.dtype, spec.shape) for spec in feeds.specs))
        clients = tf.stack(
            [tf.raw_ops.TensorDataset(components=slot, output_shapes=shapes) for slot in slots]
        )

        def step(index: tf.Tensor, *totals: tf.Tensor) -> list[tf.Tensor]:
            client = tf.raw_ops.DatasetToSingleElement(
                dataset=clients[index], output_types=dtypes, output_shapes=shapes
            )
            update = work([*feeds.arguments(client), *context])
            return [index + 1, *sums.add(totals, update)]

        _, *totals = tf.while_loop(
            lambda index, *_: index < num_clients,
            step,
            [tf.constant(0), *sums.zero()],
            [tf.TensorShape([]), *sums.shapes],
            parallel_iterations=1,
        )
        fed = [num_clients, *context, *(tensor for slot in slots for tensor in slot)]
        return program(graph, fed, totals)


def _added(total: tf.Tensor, value: tf.Tensor, modulus: Optional[int]) -> tf.Tensor:
    if modulus is None:
        return total + value
    # Two values below the modulus may not fit together into its type.
    return tf.cast((tf.cast(total, tf.int64) + tf.cast(value, tf.int64)) % modulus, value.dtype)


def secure_sum_limits(form: Any) -> list[tuple[int, Optional[int]]]:
    """Returns, for each tensor of a form's secure sums, its elements' greatest value and modulus.

    The greatest is what one client may contribute; the modulus is None where TFF leaves it to the
    protocol to choose one that the sum fits into.
    """
    widths, bounds, moduli = (
        _constants(computation)
        for computation in (
            form.secure_sum_bitwidth,
            form.secure_sum_max_input,
            form.secure_modular_sum_modulus,
        )
    )
    limits: list[tuple[int, Optional[int]]] = [(2**width - 1, None) for width in widths]
    limits += [(bound, None) for bound in bounds]
    return limits + [(modulus - 1, modulus) for modulus in moduli]


def _constants(computation: tff.Computation) -> list[int]:
    constants = program_of(computation)
    values = [int(value) for value in constants([])]
    constants.close()
    return values
