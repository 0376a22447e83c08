"""TFF's computations, split into plain TensorFlow programs for the server and for the clients.

The split is TFF's own (`tff.backends.mapreduce`). Each class here is a computation that can be
called with its packed argument and the engine that is to work on clients (`engine.py`).
"""

import weakref
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_federated as tff

from tff_fedmeta.runtime import tff_values
from tff_fedmeta.runtime.client_feeds import ClientFeeds, have_one_element, largest_first
from tff_fedmeta.runtime.cohort_program import Sums, cohort_program
from tff_fedmeta.runtime.engine import Engine
from tff_fedmeta.runtime.graph_functions import GraphFunction, placeholders, program, program_of
from tff_fedmeta.runtime.programs import Program
from tff_fedmeta.runtime.work import ClientWork, CohortWork, in_calls

# TFF would inline loops in a way that keeps them out of other loops; sessions optimize anyway.
_AS_TRACED = tf.compat.v1.ConfigProto()
_AS_TRACED.graph_options.rewrite_options.disable_meta_optimizer = True

# What `learning_form` has made, for as long as the computations are there.
_FORMS: weakref.WeakKeyDictionary[tff.Computation, Any] = weakref.WeakKeyDictionary()


class UnsupportedComputationError(ValueError):
    """A computation that cannot be split into the server's and the clients' parts."""


def split(computation: tff.Computation) -> Any:
    """Returns the computation as one of this module's classes.

    Raises:
      UnsupportedComputationError: If it has none of their forms.
    """
    signature = computation.type_signature
    try:
        results = tff_values.leaf_types(signature.result)
        if not all(isinstance(leaf, tff.TensorType) for leaf in results):
            raise TypeError("A dataset cannot be a result.")
        if not has_clients(signature.parameter):
            return ServerComputation(computation)
        if _is_placed(signature.result, tff.CLIENTS):
            return ClientMap(computation)
        return Round(computation)
    except Exception as error:  # TFF's compiler has many
        raise UnsupportedComputationError(
            "This computation cannot be run by local_runtime() and ray_runtime(), because TFF does "
            "not split it into the server's and the clients' parts; perhaps worker_runtime() runs "
            f"it: {signature}"
        ) from error


class ServerComputation:
    """A computation without clients, such as a process's `initialize`."""

    def __init__(self, computation: tff.Computation):
        self._type = computation.type_signature
        self._program = program_of(_as_tensorflow(computation))

    def __call__(self, argument: Any, engine: Engine) -> Any:
        """Returns the computation's result."""
        del engine
        parameter = self._type.parameter
        feeds = [] if parameter is None else _of_server(argument, parameter)
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
        self._prepare = program_of(form.compute_server_context)
        self._work = GraphFunction(form.client_processing, "work")
        self._context_type = form.compute_server_context.type_signature.result
        self._programs: dict[bool, tuple[ClientFeeds, Program]] = {}

    def __call__(self, argument: Any, engine: Engine) -> list[Any]:
        """Returns the clients' results, in the order of the clients."""
        leaves, clients = self._parameter.split(argument)
        feeds, client_program = self._program_for(clients)
        work = ClientWork((client_program,), feeds, self._prepare(leaves))
        order = largest_first(clients)
        computed = engine.map(work, [clients[index] for index in order])
        results = {
            index: tff_values.pack(result, self._result_type)
            for index, result in zip(order, computed)
        }
        return [results[index] for index in range(len(clients))]

    def _program_for(self, clients: Sequence[list[Any]]) -> tuple[ClientFeeds, Program]:
        one_element = have_one_element(clients)
        if one_element not in self._programs:
            feeds = ClientFeeds(tff_values.leaf_specs(self._parameter.client_type), one_element)
            with tf.Graph().as_default() as graph:
                context = placeholders(self._context_type)
                client = [tf.compat.v1.placeholder(s.dtype, s.shape) for s in feeds.specs]
                results = self._work([*context, *feeds.arguments(client)])
                self._programs[one_element] = feeds, program(graph, context + client, results)
        return self._programs[one_element]

    def close(self) -> None:
        """Frees the programs."""
        self._prepare.close()
        for _, client_program in self._programs.values():
            client_program.close()


class Round:
    """A computation of server's and clients' values -> server's values: a round of learning.

    context = prepare(state)                                      on the server
    update = work(client, context)                                on each client
    total = merge(total, accumulate(accumulate(zero, update), ...))
    state, output = update(state, report(total))                  on the server
    """

    def __init__(self, computation: tff.Computation):
        self._signature = computation.type_signature
        form = learning_form(
            computation if _is_learning_round(self._signature) else _as_learning_round(computation)
        )
        self._parameter = _Parameter(self._signature.parameter)
        self._form = form
        self._prepare = program_of(form.prepare)
        self._report = program_of(form.report)
        self._update = program_of(form.update)
        self._sums = Sums(form)
        self._cohorts: dict[bool, tuple[ClientFeeds, Program]] = {}

    def __call__(self, argument: Any, engine: Engine) -> Any:
        """Returns the computation's result."""
        leaves, clients = self._parameter.split(argument)
        feeds, cohort = self._cohort(clients)
        work = CohortWork((cohort, self._sums.merge_program), feeds, self._prepare(leaves))
        ordered = [clients[index] for index in largest_first(clients)]
        total = engine.reduce(work, in_calls(ordered)) or self._sums.nothing()
        aggregate = self._report(total[: self._sums.num_accumulators])
        result = self._update([*leaves, *aggregate, *total[self._sums.num_accumulators :]])
        first = 0 if _is_learning_round(self._signature) else len(leaves)
        return tff_values.pack(result[first:], self._signature.result)

    def _cohort(self, clients: Sequence[list[Any]]) -> tuple[ClientFeeds, Program]:
        one_element = have_one_element(clients)
        if one_element not in self._cohorts:
            feeds = ClientFeeds(tff_values.leaf_specs(self._parameter.client_type), one_element)
            self._cohorts[one_element] = feeds, cohort_program(self._form, feeds, self._sums)
        return self._cohorts[one_element]

    def close(self) -> None:
        """Frees the programs."""
        for server_program in (self._prepare, self._report, self._update):
            server_program.close()
        self._sums.close()
        for _, cohort in self._cohorts.values():
            cohort.close()


def learning_form(computation: tff.Computation) -> tff.backends.mapreduce.MapReduceForm:
    """Returns TFF's split of (state, clients' values) -> (state, output), made once."""
    if computation not in _FORMS:
        _FORMS[computation] = tff.backends.mapreduce.get_map_reduce_form_for_computation(
            computation, _AS_TRACED
        )
    return _FORMS[computation]


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
    def learning_round(server: Any, clients: Any) -> Any:
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
        self._type = parameter
        fields = list(enumerate(_fields(parameter)))
        # (index, type) of the fields
        self._of_server = [(i, f.member) for i, f in fields if _is_placed(f, tff.SERVER)]
        self._of_clients = [(i, f.member) for i, f in fields if _is_placed(f, tff.CLIENTS)]
        self.client_type = tff.StructType([member for _, member in self._of_clients])

    def split(self, argument: Any) -> tuple[list[Any], list[list[Any]]]:
        """Returns the leaves of the server's values, and the leaves of each client's values.

        Raises:
          TypeError: If the clients' values are not lists of equal length, one value a client.
        """
        single = isinstance(self._type, tff.FederatedType)
        values = [argument] if single else tff_values.fields(argument, self._type)
        of_clients = [values[i] for i, _ in self._of_clients]
        if not all(isinstance(value, list) for value in of_clients):
            raise TypeError("Expected a list with a value for each client.")
        if len({len(value) for value in of_clients}) > 1:
            raise TypeError("Expected as many clients in each of the arguments.")
        server = [leaf for i, kind in self._of_server for leaf in _of_server(values[i], kind)]
        return server, [_leaves(client, self._of_clients) for client in zip(*of_clients)]


def _of_server(value: Any, type_spec: Any) -> list[Any]:
    """Returns the leaves of a server's value, such as the state of a process.

    Raises:
      TypeError: If it is not of the type.
    """
    try:
        return tff_values.flatten(value, type_spec)
    except TypeError as error:
        raise TypeError(
            f"{_in_words(value)} is not what this computation takes for the server: give the state "
            "that initialize() or next() of the same process returned or, to an evaluation, the "
            f"weights of such a state, get_model_weights(state). {error}"
        ) from error


def _in_words(value: Any) -> str:
    return "None" if value is None else f"A value of {type(value).__name__}"


def _leaves(values: Sequence[Any], fields: Sequence[tuple[int, Any]]) -> list[Any]:
    return [
        leaf
        for value, (_, type_spec) in zip(values, fields)
        for leaf in tff_values.flatten(value, type_spec)
    ]


def _fields(parameter: Any) -> list[Any]:
    if isinstance(parameter, tff.StructType):
        return [field for _, field in tff.structure.iter_elements(parameter)]
    return [parameter]


def _is_placed(type_spec: Any, placement: Any) -> bool:
    return isinstance(type_spec, tff.FederatedType) and type_spec.placement is placement


def has_clients(parameter: Any) -> bool:
    """Whether a computation with this parameter takes values of clients."""
    return any(_is_placed(field, tff.CLIENTS) for field in _fields(parameter))
