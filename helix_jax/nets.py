"""The tokenizer and its prior belong together: one pair for everything that encodes or decodes video."""

import os
from dataclasses import dataclass

from helix_jax.errors import HelixError
from helix_jax.prior import weights as prior_weights
from helix_jax.prior.weights import Prior
from helix_jax.tokenizer import weights as tokenizer_weights
from helix_jax.tokenizer.weights import Model


@dataclass(frozen=True, eq=False)
class Nets:
    """The nets of the codec.

    Attributes:
        tokenizer: Turns video into tokens, and tokens into video.
        prior: Predicts unknown tokens, for coding and for concealment. With None, tokens are written raw, which takes
            about twice the nucleotides, and lost tokens are copied from their neighbours.

    Raises:
        HelixError: The prior was trained with another tokenizer.
    """

    tokenizer: Model
    prior: Prior | None = None

    def __post_init__(self):
        if self.prior is not None and self.prior.tokenizer != self.tokenizer.digest:
            raise HelixError(
                f"the prior belongs to tokenizer {self.prior.tokenizer[:8].hex()}, not to "
                f"{self.tokenizer.digest[:8].hex()}: give the two that were trained together, with --model and --prior"
            )


def load(
    tokenizer: str | os.PathLike[str] = tokenizer_weights.DEFAULT, prior: str | os.PathLike[str] | None = None
) -> Nets:
    """Load the nets from their weights files.

    Args:
        tokenizer: Path of the tokenizer's weights; by default, the shipped weights.
        prior: Path of the prior's weights. None stands for the shipped weights if they belong to this tokenizer, and
            for no prior if they do not.

    Raises:
        WeightsError: A file is missing or damaged, or is not a weights file of this kind.
        HelixError: The two do not belong together.
    """
    model = tokenizer_weights.load(tokenizer)
    if prior is not None:
        return Nets(model, prior_weights.load(prior))
    shipped = prior_weights.load()
    return Nets(model, shipped if shipped.tokenizer == model.digest else None)
