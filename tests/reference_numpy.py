"""The maths once more, in float64 NumPy and by hand, for one network: dense, tanh, dense, softmax.

Weights are [kernel_1, bias_1, kernel_2, bias_2]; x is [n, inputs], y is [n] classes. Examples are
used in the order given. Nothing here comes from the package under test.
"""

import itertools

import numpy as np


def forward(weights, x):
    kernel_1, bias_1, kernel_2, bias_2 = (np.asarray(w, np.float64) for w in weights)
    hidden = np.tanh(np.asarray(x, np.float64) @ kernel_1 + bias_1)
    logits = hidden @ kernel_2 + bias_2
    logits = logits - logits.max(axis=1, keepdims=True)
    return hidden, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def loss(weights, x, y):
    """Mean cross-entropy."""
    _, probabilities = forward(weights, x)
    return -np.mean(np.log(probabilities[np.arange(len(y)), y]))


def accuracy(weights, x, y):
    _, probabilities = forward(weights, x)
    return np.mean(probabilities.argmax(axis=1) == y)


def gradient(weights, x, y):
    hidden, probabilities = forward(weights, x)
    d_logits = (probabilities - np.eye(probabilities.shape[1])[y]) / len(y)
    d_hidden = d_logits @ np.asarray(weights[2], np.float64).T * (1 - hidden**2)
    x = np.asarray(x, np.float64)
    return [x.T @ d_hidden, d_hidden.sum(axis=0), hidden.T @ d_logits, d_logits.sum(axis=0)]


def batches(x, y, batch_size, *, epochs=None, steps=None):
    """The batches of `epochs` passes, or the first `steps` of as many passes as that takes."""
    epoch = [(x[i : i + batch_size], y[i : i + batch_size]) for i in range(0, len(y), batch_size)]
    if steps is None:
        return epoch * epochs
    return list(itertools.islice(itertools.cycle(epoch), steps))


def sgd(weights, steps, rate):
    """Returns the weights before the first and after every step, each on a batch of its own.

    `rate` is a number, or a list with an array of rates for each weight.
    """
    rates = rate if isinstance(rate, list) else [rate] * len(weights)
    trajectory = [[np.asarray(w, np.float64) for w in weights]]
    for x, y in steps:
        gradients = gradient(trajectory[-1], x, y)
        trajectory.append([w - r * g for w, r, g in zip(trajectory[-1], rates, gradients)])
    return trajectory


def reptile_round(weights, clients, *, rate, server_rate, batch_size, by_examples, **budget):
    """theta + epsilon * weighted mean of (theta_K - theta), arXiv:1803.02999, Algorithm 1."""
    ends = [sgd(weights, batches(x, y, batch_size, **budget), rate)[-1] for x, y in clients]
    shares = np.array([len(y) if by_examples else 1 for _, y in clients], np.float64)
    shares /= shares.sum()
    return [
        start + server_rate * sum(share * (end - start) for share, end in zip(shares, client_ends))
        for start, client_ends in zip(weights, zip(*ends))
    ]


def adaptation_curve(weights, support, query, *, rate, batch_size, epochs=None, steps=None):
    """Loss and accuracy on query, before adapting and after every step (or epoch) on support."""
    trajectory = sgd(weights, batches(*support, batch_size, epochs=epochs, steps=steps), rate)
    points = trajectory[:: 1 if epochs is None else -(-len(support[1]) // batch_size)]
    return {
        "loss": [loss(point, *query) for point in points],
        "accuracy": [accuracy(point, *query) for point in points],
    }
