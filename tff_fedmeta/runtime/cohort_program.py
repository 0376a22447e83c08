"""A cohort's part of a round as a program: trains clients and adds up their updates.

What is in memory is the sums and the clients that are being trained, however many there are.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable, Optional

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.runtime import tff_values
from tff_fedmeta.runtime.client_feeds import ClientInputs, largest_first
from tff_fedmeta.runtime.programs import GraphFunction, Program, placeholder, placeholders

# A map that computes side by side and yields in order.
InOrder = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]

# Clients that one call trains, one after the other: a call costs as much as a small client does.
# Smaller cohorts take one at a time, for all threads to have work.
_CLIENTS_PER_CALL = 4
_SMALL_COHORT = 64


class Sums:
    """How updates are added up: TFF's accumulators, and behind them its secure sums.

    Secure sums are computed as they are defined; their cryptography is the deployment's.
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
            self._zero_program = Program(graph, [], self.zero())
        with tf.Graph().as_default() as graph:
            one, other = ([placeholder(leaf) for leaf in self._types] for _ in range(2))
            count = self.num_accumulators
            merged = merge(one[:count] + other[:count])
            moduli = [modulus for _, modulus in self._limits]
            merged += map(_added, one[count:], other[count:], moduli)
            self._merge_program = Program(graph, one + other, merged)

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

    def total(self, parts: Iterable[Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Returns the sum of the sums, added in the order given."""
        total: list[np.ndarray] = []
        for part in parts:
            total = self._merge_program([*total, *part]) if total else list(part)
        return total or self._zero_program([])

    def close(self) -> None:
        """Frees the programs."""
        self._zero_program.close()
        self._merge_program.close()


class CohortProgram:
    """The program that trains a few clients, one after the other, and adds up their updates."""

    def __init__(self, form: Any, inputs: ClientInputs, sums: Sums):
        self._inputs = inputs
        work = GraphFunction(form.work, "work")
        with tf.Graph().as_default() as graph:
            work.add_library()
            sums.add_library()
            context = placeholders(form.prepare.type_signature.result)
            num_clients = tf.compat.v1.placeholder(tf.int32, [])
            slots = [
                [tf.compat.v1.placeholder(spec.dtype, spec.shape) for spec in inputs.specs]
                for _ in range(_CLIENTS_PER_CALL)
            ]
            # A dataset of one element is how tensors of any shape become items of a list.
            dtypes, shapes = zip(*((spec.dtype, spec.shape) for spec in inputs.specs))
            clients = tf.stack(
                [tf.raw_ops.TensorDataset(components=slot, output_shapes=shapes) for slot in slots]
            )

            def step(index: tf.Tensor, *totals: tf.Tensor) -> list[tf.Tensor]:
                client = tf.raw_ops.DatasetToSingleElement(
                    dataset=clients[index], output_types=dtypes, output_shapes=shapes
                )
                update = work([*inputs.arguments(client), *context])
                return [index + 1, *sums.add(totals, update)]

            _, *totals = tf.while_loop(
                lambda index, *_: index < num_clients,
                step,
                [tf.constant(0), *sums.zero()],
                [tf.TensorShape([]), *sums.shapes],
                parallel_iterations=1,
            )
            feeds = [num_clients, *context, *(tensor for slot in slots for tensor in slot)]
            self._program = Program(graph, feeds, totals)

    def __call__(
        self, clients: Sequence[list[Any]], context: Sequence[np.ndarray], in_order: InOrder
    ) -> Iterator[Sequence[np.ndarray]]:
        """Yields sums over all of the clients, in parts."""
        order = largest_first(clients)
        count = 1 if len(clients) < _SMALL_COHORT else _CLIENTS_PER_CALL
        empty = self._inputs.empty()

        def train(start: int) -> Sequence[np.ndarray]:
            fed = [self._inputs.feed(clients[index]) for index in order[start : start + count]]
            slots = fed + [empty] * (_CLIENTS_PER_CALL - len(fed))
            return self._program(
                [np.int32(len(fed)), *context, *(array for slot in slots for array in slot)]
            )

        return in_order(train, range(0, len(clients), count))

    def close(self) -> None:
        """Frees the program."""
        self._program.close()


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
    program = Program.of(computation)
    values = [int(value) for value in program([])]
    program.close()
    return values
