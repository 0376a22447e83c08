"""The objectives of meta-learning in float64 JAX, and their gradients as finite differences.

Weights are lists of arrays in Keras' order. A network takes (weights, x) and returns logits; a
batch is a pair (x, y) with y [n] classes. Nothing here comes from the package under test.
"""

import collections
import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import enable_x64
from jax.flatten_util import ravel_pytree


def dense(weights, x):
    """Dense, tanh, dense."""
    kernel_1, bias_1, kernel_2, bias_2 = weights
    return jnp.tanh(x @ kernel_1 + bias_1) @ kernel_2 + bias_2


def convolved(x, kernel, bias):
    """Without padding, in steps of one."""
    height, width = kernel.shape[:2]
    rows = np.arange(x.shape[1] - height + 1)[:, None] + np.arange(height)
    columns = np.arange(x.shape[2] - width + 1)[:, None] + np.arange(width)
    patches = x[:, rows[:, None, :, None], columns[None, :, None, :]]
    return bias + jnp.einsum("nrchwi,hwio->nrco", patches, kernel)


def conv(weights, x):
    """Convolution, tanh, convolution, softplus, flatten, dense."""
    kernel_1, bias_1, kernel_2, bias_2, kernel_3, bias_3 = weights
    hidden = jax.nn.softplus(convolved(jnp.tanh(convolved(x, kernel_1, bias_1)), kernel_2, bias_2))
    return hidden.reshape([len(x), -1]) @ kernel_3 + bias_3


def conv_pool(weights, x):
    """Convolution, relu, max pooling by 2, flatten, dense."""
    kernel_1, bias_1, kernel_2, bias_2 = weights
    hidden = jnp.maximum(convolved(x, kernel_1, bias_1), 0.0)
    n, rows, columns, channels = hidden.shape
    pooled = hidden.reshape([n, rows // 2, 2, columns // 2, 2, channels]).max(axis=(2, 4))
    return pooled.reshape([n, -1]) @ kernel_2 + bias_2


def recurrent(weights, x, mask_zero=False):
    """Embedding, LSTM, dense on its last state; with a mask, word 0 leaves the state as it is."""
    embedding, kernel, recurrent_kernel, bias, output_kernel, output_bias = weights

    def step(state, words):
        hidden, cell = state
        gates = embedding[words] @ kernel + hidden @ recurrent_kernel + bias
        let_in, keep, candidate, let_out = jnp.split(gates, 4, axis=1)
        next_cell = jax.nn.sigmoid(keep) * cell + jax.nn.sigmoid(let_in) * jnp.tanh(candidate)
        next_hidden = jax.nn.sigmoid(let_out) * jnp.tanh(next_cell)
        seen = (words != 0)[:, None] | (not mask_zero)
        return (jnp.where(seen, next_hidden, hidden), jnp.where(seen, next_cell, cell)), None

    start = jnp.zeros([len(x), len(recurrent_kernel)])
    (hidden, _), _ = jax.lax.scan(step, (start, start), jnp.asarray(x).T)
    return hidden @ output_kernel + output_bias


masked_recurrent = functools.partial(recurrent, mask_zero=True)


Client = collections.namedtuple("Client", "x y steps query")


def client(x, y, *, batch_size, inner_steps, support_fraction=None):
    """A client whose batches and query are rows of weights over its examples, in their order.

    The first `support_fraction` of the examples is support and the rest query, None has all on both
    sides. The steps walk the batches of the support, and start over when they run out.
    """
    n = n_support = len(y)
    query = np.full(n, 1 / n)
    if support_fraction is not None:
        n_support = min(max(math.floor(support_fraction * n + 0.5), 1), n - 1)
        query = np.where(np.arange(n) < n_support, 0, 1 / (n - n_support))
    starts = itertools.cycle(range(0, n_support, batch_size))
    steps = np.zeros([inner_steps, n])
    for weights, start in zip(steps, starts):
        batch = weights[start : min(start + batch_size, n_support)]
        batch[:] = 1 / len(batch)
    return Client(x, y, steps, query)


def stacked(clients, num_examples, num_steps):
    """Clients as one, with an axis more in front, after they got examples and steps of no weight.

    Such a step moves nothing, without momentum.
    """

    def padded(array, *shape):
        return np.pad(array, [(0, n - m) for m, n in itertools.zip_longest(array.shape, shape)])

    return Client(
        np.stack([padded(c.x, num_examples, *c.x.shape[1:]) for c in clients]),
        np.stack([padded(c.y, num_examples) for c in clients]),
        np.stack([padded(c.steps, num_steps, num_examples) for c in clients]),
        np.stack([padded(c.query, num_examples) for c in clients]),
    )


def loss(network, weights, client, example_weights):
    """Cross-entropy, its weighted mean."""
    log_probabilities = jax.nn.log_softmax(network(weights, client.x))
    return -example_weights @ log_probabilities[np.arange(len(client.y)), client.y]


def adapted(network, weights, rates, client, momentum=0.0):
    """The weights after the client's steps, each weight with a rate, or rates, of its own."""

    def step(state, example_weights):
        weights, velocities = state
        gradients = jax.grad(loss, argnums=1)(network, weights, client, example_weights)
        velocities = [momentum * v + g for v, g in zip(velocities, gradients)]
        weights = [w - rate * v for w, rate, v in zip(weights, rates, velocities)]
        return (weights, velocities), None

    start = (weights, [jnp.zeros_like(w) for w in weights])
    return jax.lax.scan(step, start, client.steps)[0][0]


def meta_loss(network, weights, rates, client, momentum=0.0):
    """The query loss after adapting. A rate of 0 holds its weights, as ANIL's inner loop does."""
    return loss(network, adapted(network, weights, rates, client, momentum), client, client.query)


def first_order_gradient(network, weights, rates, client):
    """The gradient of the query loss at the adapted weights."""
    end = adapted(network, weights, rates, client)
    return jax.grad(loss, argnums=1)(network, end, client, client.query)


def finite_differences(f, point, eps=1e-5):
    """The gradient of f at a structure of arrays, by central differences in every coordinate."""
    flat, unravel = ravel_pytree(point)
    steps = eps * jnp.eye(len(flat))
    values = jax.lax.map(lambda at: f(unravel(at)), jnp.concatenate([flat + steps, flat - steps]))
    above, below = jnp.split(values, 2)
    return unravel((above - below) / (2 * eps))


def in_float64(function):
    """Compiles a function of arrays, and has it calculate and return float64."""
    compiled = jax.jit(function)

    @functools.wraps(function)
    def call(*arguments):
        with enable_x64():
            return jax.tree_util.tree_map(np.asarray, compiled(*as_float64(arguments)))

    return call


def as_float64(arrays):
    """Integers stay what they are."""

    def convert(array):
        is_integer = np.issubdtype(np.asarray(array).dtype, np.integer)
        return jnp.asarray(array, None if is_integer else jnp.float64)

    return jax.tree_util.tree_map(convert, arrays)
