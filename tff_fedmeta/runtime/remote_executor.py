"""TFF's way to a worker that listens on this machine, without TFF's endless retries."""

from __future__ import annotations

import types
from typing import Any

import grpc

# Messages as long as in TFF. The worker is on this machine: the environment's proxy is not for it.
_CHANNEL_OPTIONS = [
    ("grpc.max_receive_message_length", 2_000_000_000),
    ("grpc.max_send_message_length", 2_000_000_000),
    ("grpc.enable_http_proxy", 0),
]


def channel(port: int) -> grpc.Channel:
    """Opens the connection to a worker that listens on a port of this machine."""
    return grpc.insecure_channel(f"127.0.0.1:{port}", _CHANNEL_OPTIONS)


def context(channel: grpc.Channel) -> Any:
    """Returns TFF's own local context, for a worker that TFF did not start."""
    import tensorflow_federated as tff

    # Given the channel itself the stub watches it, in a thread that prints an error when it closes.
    calls_only = types.SimpleNamespace(
        unary_unary=channel.unary_unary, subscribe=lambda *args, **kwargs: None
    )
    stub = _ImpatientStub(tff.framework.RemoteExecutorGrpcStub(calls_only))

    def executor(cardinalities: dict[Any, int]) -> Any:
        remote = tff.framework.RemoteExecutor(stub)
        # Computations without client arguments, such as initialize(), have no clients.
        remote.set_cardinalities({tff.CLIENTS: 0, **cardinalities})
        return remote

    return tff.framework.SyncExecutionContext(
        tff.framework.ResourceManagingExecutorFactory(executor),
        compiler_fn=tff.backends.native.desugar_and_transform_to_native,
        transform_args=tff.tensorflow.transform_args,
        transform_result=tff.tensorflow.transform_result,
    )


class _ImpatientStub:
    """A `RemoteExecutorGrpcStub` that lets the loss of the worker be seen.

    TFF answers the stub's "retryable" error with endless retries; here the plain gRPC error goes
    up.
    """

    def __init__(self, stub: Any):
        self._stub = stub

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._stub, name)

        def request(message: Any) -> Any:
            try:
                return method(message)
            except (grpc.RpcError, ValueError) as error:  # ValueError: on a closed channel
                if name in ("dispose", "dispose_executor"):
                    return None  # nothing is left to dispose of
                if is_unavailable(error):
                    raise error.__context__ or error from None
                raise

        return request


def is_unavailable(error: Exception) -> bool:
    """Returns whether an error says that nobody answers at the other end."""
    return isinstance(error, grpc.Call) and error.code() == grpc.StatusCode.UNAVAILABLE
