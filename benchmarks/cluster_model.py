"""How long a round takes on N nodes, from single costs that were measured on one machine.

The model, its assumptions in `docs/cluster.md`:

    round = broadcast + waves * client + merging + what the driver does for tasks

It leaves out what nobody measured here: real networks beyond their bandwidth, stragglers, losses.
"""

from __future__ import annotations

import dataclasses
import math

from tff_fedmeta.runtime.cluster import blocks


@dataclasses.dataclass(frozen=True)
class Costs:
    """Measured costs.

    Attributes:
      client: Seconds of one core for one client.
      merge: Seconds to add two sums.
      broadcast: Seconds from the driver's weights to a worker's, on one machine.
      empty: Seconds of a task that does nothing, there and back.
      task: Seconds of the driver's processor for one task.
      reference: Seconds of the driver's processor for one client by reference.
      reference_bytes: What is sent of a client by reference.
      num_bytes: Of one sum, and of the weights.
    """

    client: float
    merge: float
    broadcast: float
    empty: float
    task: float
    reference: float
    reference_bytes: float
    num_bytes: float


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Equal nodes.

    Attributes:
      nodes: How many, each with one worker.
      cores: Of a node: the worker's threads.
      bandwidth: Bytes a second of each node's link; infinite on one machine.
    """

    nodes: int
    cores: int
    bandwidth: float


@dataclasses.dataclass(frozen=True)
class Round:
    """What the model says of a round.

    Attributes:
      num_blocks: Tasks that train.
      num_merges: Tasks that merge sums.
      depth: Levels of merging tasks.
      sent_by_driver: Bytes, with one copy of the weights for each node.
      clients: Seconds of training.
      moving: Seconds of sending weights and sums.
      merging: Seconds of adding sums.
      driver: Seconds of the driver's processor.
    """

    num_blocks: int
    num_merges: int
    depth: int
    sent_by_driver: float
    clients: float
    moving: float
    merging: float
    driver: float

    @property
    def seconds(self) -> float:
        """The whole: tasks are begun while others are computed, so the longer of the two counts."""
        return self.moving + self.merging + max(self.clients, self.driver)


def predict(costs: Costs, cluster: Cluster, num_clients: int) -> Round:
    """Returns what a round of equal clients takes, given by reference."""
    from tff_fedmeta.runtime.work import in_calls  # imports TensorFlow

    num_calls = len(in_calls(range(num_clients)))
    per_call = -(-num_clients // num_calls)
    length = blocks.size(num_calls, cluster.nodes, cluster.cores)
    num_blocks = -(-num_calls // length)
    block = math.ceil(length / cluster.cores) * per_call * costs.client + costs.empty
    waves = -(-num_blocks // cluster.nodes)
    depth, num_merges, left = 0, 0, num_blocks
    while left > 1:
        left = -(-left // blocks.FAN_IN)
        num_merges += left
        depth += 1
    fan_in = min(blocks.FAN_IN, num_blocks)
    copy = costs.num_bytes / cluster.bandwidth
    # Nodes pass the weights on, so that copies double; a merging task fetches its neighbours' sums.
    moving = costs.broadcast + math.log2(max(cluster.nodes, 1)) * copy
    moving += depth * (fan_in - 1) * copy + costs.broadcast
    return Round(
        num_blocks=num_blocks,
        num_merges=num_merges,
        depth=depth,
        sent_by_driver=cluster.nodes * costs.num_bytes + num_clients * costs.reference_bytes,
        clients=waves * block,
        moving=moving,
        merging=depth * ((fan_in - 1) * costs.merge + costs.empty),
        driver=(num_blocks + num_merges) * costs.task + num_clients * costs.reference,
    )
