"""TFF's computations, split into plain TensorFlow programs for the server and for the clients.

The split is TFF's own (`tff.backends.mapreduce`). Each class here is a computation that can be
called with its packed argument and `in_order`, a map that computes side by side and yields in order
(`in_process.py`).
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Callable

import numpy as np
import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta import tff_values
from tff_fedmeta.client_inputs import ClientInputs, have_one_element, largest_first
from tff_fedmeta.tensorflow_programs import GraphFunction, Program, placeholders

InOrder = Callable[[Callable[[Any], Any], Iterable[Any]], Iterator[Any]]

# Clients that one call trains, one after the other: a call costs as much as a small client does.
# Smaller cohorts take one at a time, for all threads to have work.
_CLIENTS_PER_CALL = 4
_SMALL_COHORT = 32

# TFF would inline loops in a way that keeps them out of other loops; sessions optimize anyway.
_AS_TRACED = tf.compat.v1.ConfigProto()
_AS_TRACED.graph_options.rewrite_options.disable_meta_optimizer = True


class UnsupportedComputationError(ValueError):
    """A computation that cannot be split into the server's and the clients' parts."""


def split(computation: tff.Computation) -> Any:
    """Returns the computation as one of this module's classes.

    Raises:
      UnsupportedComputationError: If it has none of their forms.
    """
    signature = computation.type_signature
    try:
        if not _has_clients(signature.parameter):
            return ServerComputation(computation)
        if _is_placed(signature.result, tff.CLIENTS):
            return ClientMap(computation)
        return Round(computation)
    except Exception as error:  # TFF's compiler has many
        raise UnsupportedComputationError(
            f"This computation cannot be run in this process; worker_runtime() runs it: {signature}"
        ) from error


class ServerComputation:
    """A computation without clients, such as a process's `initialize`."""

    def __init__(self, computation: tff.Computation):
        self._type = computation.type_signature
        self._program = Program.of(_as_tensorflow(computation))

    def __call__(self, argument: Any, in_order: InOrder) -> Any:
        """Returns the computation's result."""
        del in_order
        parameter = self._type.parameter
        feeds = [] if parameter is None else tff_values.flatten(argument, parameter)
        return tff_values.pack(self._program(feeds), self._type.result)

    def close(self) -> None:
        """Frees the program."""
        self._program.close()


class ClientMap:
    """A computation of (server's value, clients' values) -> clients' values."""

    def __init__(self, computation: tff.Computation):
        form = tff.backends.mapreduce.get_broadcast_form_for_computation(computation, _AS_TRACED)
        self._parameter = _Parameter(computation.type_signature.parameter)
        self._result_type = computation.type_signature.result.member
        self._prepare = Program.of(form.compute_server_context)
        self._work = GraphFunction(form.client_processing, "work")
        self._context_type = form.compute_server_context.type_signature.result
        self._programs: dict[bool, tuple[ClientInputs, Program]] = {}

    def __call__(self, argument: Any, in_order: InOrder) -> list[Any]:
        """Returns the clients' results, in the order of the clients."""
        leaves, clients = self._parameter.split(argument)
        context = self._prepare(leaves)
        inputs, program = self._program_for(clients)

        def work(index: int) -> Any:
            result = program([*context, *inputs.feed(clients[index])])
            return tff_values.pack(result, self._result_type)

        order = largest_first(clients)
        results = dict(zip(order, in_order(work, order)))
        return [results[index] for index in range(len(clients))]

    def _program_for(self, clients: Sequence[list[Any]]) -> tuple[ClientInputs, Program]:
        one_element = have_one_element(clients)
        if one_element not in self._programs:
            inputs = ClientInputs(self._parameter.client_type, one_element)
            with tf.Graph().as_default() as graph:
                context = placeholders(self._context_type)
                client = [tf.compat.v1.placeholder(s.dtype, s.shape) for s in inputs.specs]
                results = self._work([*context, *inputs.arguments(client)])
                self._programs[one_element] = inputs, Program(graph, context + client, results)
        return self._programs[one_element]

    def close(self) -> None:
        """Frees the programs."""
        self._prepare.close()
        for _, program in self._programs.values():
            program.close()


class Round:
    """A computation of server's and clients' values -> server's values: a round of learning.

    context = prepare(state)                                      on the server
    update = work(client, context)                                on each client
    total = merge(total, accumulate(accumulate(zero, update), ...))
    state, output = update(state, report(total))                  on the server
    """

    def __init__(self, computation: tff.Computation):
        self._signature = computation.type_signature
        form = tff.backends.mapreduce.get_map_reduce_form_for_computation(
            computation if _is_learning_round(self._signature) else _as_learning_round(computation),
            _AS_TRACED,
        )
        self._parameter = _Parameter(self._signature.parameter)
        self._form = form
        self._prepare = Program.of(form.prepare)
        self._report = Program.of(form.report)
        self._update = Program.of(form.update)
        self._sums = _Sums(form)
        self._cohorts: dict[bool, _Cohort] = {}

    def __call__(self, argument: Any, in_order: InOrder) -> Any:
        """Returns the computation's result."""
        leaves, clients = self._parameter.split(argument)
        context = self._prepare(leaves)
        total = self._sums.total(self._cohort(clients)(clients, context, in_order))
        aggregate = self._report(total[: self._sums.num_accumulators])
        result = self._update([*leaves, *aggregate, *total[self._sums.num_accumulators :]])
        first = 0 if _is_learning_round(self._signature) else len(leaves)
        return tff_values.pack(result[first:], self._signature.result)

    def _cohort(self, clients: Sequence[list[Any]]) -> "_Cohort":
        one_element = have_one_element(clients)
        if one_element not in self._cohorts:
            inputs = ClientInputs(self._parameter.client_type, one_element)
            self._cohorts[one_element] = _Cohort(self._form, inputs, self._sums)
        return self._cohorts[one_element]

    def close(self) -> None:
        """Frees the programs."""
        for program in (self._prepare, self._report, self._update):
            program.close()
        self._sums.close()
        for cohort in self._cohorts.values():
            cohort.close()


class _Sums:
    """How updates are added up: TFF's accumulators, and behind them its secure sums.

    Secure sums are computed as they are defined; their cryptography is the deployment's.
    """

    def __init__(self, form: Any):
        *_, bits, bounded, modular = form.work.type_signature.result
        self._secure_types = [
            leaf for sums in (bits, bounded, modular) for leaf in tff_values.leaf_types(sums)
        ]
        widths, bounds, moduli = (
            _constants(computation)
            for computation in (
                form.secure_sum_bitwidth,
                form.secure_sum_max_input,
                form.secure_modular_sum_modulus,
            )
        )
        # The greatest value that a client may contribute to each sum, and the sums' moduli.
        self._greatest = [2**width - 1 for width in widths] + bounds + [m - 1 for m in moduli]
        self._moduli = [None] * len(widths + bounds) + moduli
        self._zero = GraphFunction(form.zero, "zero")
        self._accumulate = GraphFunction(form.accumulate, "accumulate")
        self._accumulator_types = tff_values.leaf_types(form.accumulate.type_signature.result)
        self.num_accumulators = len(self._accumulator_types)
        self._zero_program = Program.of(form.zero)
        self._merge_program = Program.of(form.merge)

    @property
    def shapes(self) -> list[tf.TensorShape]:
        """The shapes of the sums' tensors."""
        types = self._accumulator_types + self._secure_types
        return [tf.TensorShape(type_spec.shape) for type_spec in types]

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
        for total, value, greatest, modulus in zip(
            sums[self.num_accumulators :], update[first:], self._greatest, self._moduli
        ):
            message = f"A client's value for a secure sum must be in [0, {greatest}]."
            fits = [
                tf.debugging.assert_non_negative(value, message),
                tf.debugging.assert_less_equal(value, tf.constant(greatest, value.dtype), message),
            ]
            with tf.control_dependencies(fits):
                secure.append(total + value if modulus is None else (total + value) % modulus)
        return accumulators + secure

    def total(self, parts: Iterable[Sequence[np.ndarray]]) -> list[np.ndarray]:
        """Returns the sum of the sums, added in the order given."""
        secure_zeros = [np.zeros(t.shape, t.dtype) for t in self._secure_types]
        total: list[np.ndarray] = []
        for part in parts:
            total = self._merge(total, part) if total else list(part)
        return total or self._zero_program([]) + secure_zeros

    def _merge(self, one: Sequence[np.ndarray], other: Sequence[np.ndarray]) -> list[np.ndarray]:
        count = self.num_accumulators
        secure = [
            a + b if modulus is None else (a + b) % modulus
            for a, b, modulus in zip(one[count:], other[count:], self._moduli)
        ]
        return self._merge_program([*one[:count], *other[:count]]) + secure

    def close(self) -> None:
        """Frees the programs."""
        self._zero_program.close()
        self._merge_program.close()


class _Cohort:
    """The program that trains a few clients, one after the other, and adds up their updates."""

    def __init__(self, form: Any, inputs: ClientInputs, sums: _Sums):
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


def _constants(computation: tff.Computation) -> list[int]:
    program = Program.of(computation)
    values = [int(value) for value in program([])]
    program.close()
    return values


def _as_tensorflow(computation: tff.Computation) -> tff.Computation:
    """Compiles a computation without clients to plain TensorFlow."""
    if tff.framework.serialize_computation(computation).WhichOneof("computation") == "tensorflow":
        return computation
    block, _ = tff.tensorflow.replace_intrinsics_with_bodies(computation.to_building_block())
    block = tff.backends.mapreduce.consolidate_and_extract_local_processing(block, _AS_TRACED)
    return tff.framework.ConcreteComputation.from_building_block(block)


def _is_learning_round(signature: tff.FunctionType) -> bool:
    """Whether it is (state, clients' values) -> (state, output)."""
    parameter, result = signature.parameter, signature.result
    return (
        isinstance(parameter, tff.StructType)
        and isinstance(result, tff.StructType)
        and len(parameter) == len(result) == 2
        and _is_placed(parameter[0], tff.SERVER)
        and _is_placed(parameter[1], tff.CLIENTS)
        and parameter[0].is_assignable_from(result[0])
        and _is_placed(result[1], tff.SERVER)
    )


def _as_learning_round(computation: tff.Computation) -> tff.Computation:
    """Returns (server's values, clients' values) -> (server's values, result)."""
    fields = _fields(computation.type_signature.parameter)
    of_server = [field.member for field in fields if _is_placed(field, tff.SERVER)]
    of_clients = [field.member for field in fields if _is_placed(field, tff.CLIENTS)]

    @tff.federated_computation(
        tff.FederatedType(of_server, tff.SERVER), tff.FederatedType(of_clients, tff.CLIENTS)
    )
    def learning_round(server, clients):
        places = {tff.SERVER: (server[i] for i in range(len(of_server)))}
        places[tff.CLIENTS] = (clients[i] for i in range(len(of_clients)))
        result = computation(*(next(places[field.placement]) for field in fields))
        if isinstance(result.type_signature, tff.StructType):
            result = tff.federated_zip(result)
        return server, result

    return learning_round


class _Parameter:
    """A computation's parameter, told apart into the server's and the clients' fields."""

    def __init__(self, parameter: Any):
        fields = _fields(parameter)
        self._is_single = isinstance(parameter, tff.FederatedType)
        self._of_server = [i for i, f in enumerate(fields) if _is_placed(f, tff.SERVER)]
        self._of_clients = [i for i, f in enumerate(fields) if _is_placed(f, tff.CLIENTS)]
        self._server_type = tff.StructType([fields[i].member for i in self._of_server])
        self.client_type = tff.StructType([fields[i].member for i in self._of_clients])

    def split(self, argument: Any) -> tuple[list[Any], list[list[Any]]]:
        """Returns the leaves of the server's values, and those of each client's values.

        Raises:
          TypeError: If the clients' values are not lists of equal length, one value a client.
        """
        values = [argument] if self._is_single else list(argument)
        of_clients = [values[i] for i in self._of_clients]
        if not all(isinstance(value, list) for value in of_clients):
            raise TypeError("Expected a list with a value for each client.")
        if len({len(value) for value in of_clients}) > 1:
            raise TypeError("Expected as many clients in each of the arguments.")
        server = tff_values.flatten([values[i] for i in self._of_server], self._server_type)
        clients = [tff_values.flatten(client, self.client_type) for client in zip(*of_clients)]
        return server, clients


def _fields(parameter: Any) -> list[Any]:
    if isinstance(parameter, tff.StructType):
        return [field for _, field in tff.structure.iter_elements(parameter)]
    return [parameter]


def _is_placed(type_spec: Any, placement: Any) -> bool:
    return isinstance(type_spec, tff.FederatedType) and type_spec.placement is placement


def _has_clients(parameter: Any) -> bool:
    return any(_is_placed(field, tff.CLIENTS) for field in _fields(parameter))
