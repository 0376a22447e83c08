"""How clients fail: they may be absent, not answer, do a part of their work, or attack.

`experiment/cohorts.py` draws who fails in a round. A client that does less work or sends something
else is told so by its `Role`, a part of its element (`algorithms/client_roles.py`). Importing this
needs no TensorFlow.
"""

import dataclasses
from typing import Any, Callable, NamedTuple

import numpy as np

from tff_fedmeta.config import schema
from tff_fedmeta.config.schema import setting

# Rounds after which the same clients are available again.
DAY = 24


class Role(NamedTuple):
    """What a client is told to do: float32 [3] under "role" in its element.

    Attributes:
      work_share: The share of its local steps that it takes, in (0, 1], at least one.
      factor: What it multiplies its update by; may be NaN.
      noise: The norm of the Gaussian noise that it adds, in norms of its update, >= 0.
    """

    work_share: float = 1.0
    factor: float = 1.0
    noise: float = 0.0


# attack -> what its clients do with their update, from `attack_scale`; "label_flip" attacks data.
ROLE_OF_ATTACK: dict[str, Callable[[float], Role]] = {
    "sign_flip": lambda s: Role(factor=-s),
    "scale": lambda s: Role(factor=s),
    "noise": lambda s: Role(factor=0.0, noise=s),
    "nan": lambda s: Role(factor=float("nan")),
    "label_flip": lambda s: Role(),
}
ATTACKS = tuple(ROLE_OF_ATTACK)


@dataclasses.dataclass(frozen=True)
class Failures:
    """How clients fail.

    Fractions are of the clients that answer in a round, drawn anew in each. Where they make no
    whole number of clients, chance rounds them, so that they hold over the rounds.
    """

    client_dropout: float = setting(
        0.0,
        "Probability that a sampled client never answers in a round.",
        at_least=0,
        at_most=1,
    )
    straggler_fraction: float = setting(
        0.0,
        "Fraction of a round's clients that take only a random share of their local steps, at "
        "least one.",
        at_least=0,
        at_most=1,
    )
    availability: float = setting(
        1.0,
        f"Share of the rounds in which a client can be sampled: its own window of every {DAY} "
        "rounds.",
        above=0,
        at_most=1,
    )
    byzantine_fraction: float = setting(
        0.0, "Fraction of a round's clients that attack.", at_least=0, at_most=1
    )
    attack: str = setting(
        "sign_flip",
        "What attackers send, s being attack_scale: sign_flip -s times the update, scale s times, "
        "noise Gaussian noise of s times its norm instead, nan NaN; label_flip trains on the "
        "classes in reverse.",
        choices=ATTACKS,
    )
    attack_scale: float = setting(1.0, "How strong an attack is.", above=0, at_most=1e12)

    def __post_init__(self) -> None:
        schema.check(self)
        if self.byzantine_fraction == 0 and (self.attack, self.attack_scale) != ("sign_flip", 1.0):
            raise ValueError(
                "attack and attack_scale need a byzantine_fraction > 0: otherwise no client "
                "attacks."
            )
        if self.byzantine_fraction and self.attack == "scale" and self.attack_scale == 1:
            raise ValueError("attack scale needs an attack_scale other than 1, e.g. 1000.")

    @property
    def any(self) -> bool:
        """Whether any client fails."""
        return self.availability < 1 or any(
            (self.client_dropout, self.straggler_fraction, self.byzantine_fraction)
        )

    @property
    def flip_labels(self) -> bool:
        """Whether there are attackers that train on flipped labels."""
        return self.byzantine_fraction > 0 and self.attack == "label_flip"

    @property
    def need_roles(self) -> bool:
        """Whether clients' elements must hold a `Role`."""
        return self.straggler_fraction > 0 or (self.byzantine_fraction > 0 and not self.flip_labels)


def flip_labels(y: Any, num_classes: int) -> np.ndarray:
    """Returns class c as class num_classes - 1 - c: what an attacker that flips labels trains on.

    Raises:
      ValueError: If the labels are not whole numbers.
    """
    y = np.asarray(y)
    check_labels(y.dtype)
    return (num_classes - 1 - y).astype(y.dtype)


def check_labels(dtype: Any) -> None:
    """Raises ValueError unless labels of this type, None if there are several, can be flipped."""
    if dtype is None or not np.issubdtype(dtype, np.integer):
        kind = "several arrays" if dtype is None else np.dtype(dtype).name
        others = ", ".join(attack for attack in ATTACKS if attack != "label_flip")
        raise ValueError(
            "attack=label_flip needs labels that are whole numbers (classes), but the labels of "
            f"this task are {kind}; choose another attack: {others}."
        )
