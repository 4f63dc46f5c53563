"""Tokenizer and prior, which belong together: one pair for everything that encodes or decodes video."""

from dataclasses import dataclass

from helix_jax.errors import HelixError
from helix_jax.prior import weights as prior_weights
from helix_jax.prior.weights import Prior
from helix_jax.tokenizer import weights as tokenizer_weights
from helix_jax.tokenizer.weights import Model


@dataclass(frozen=True, eq=False)
class Nets:
    """The nets of the codec.

    tokenizer: video <-> tokens. prior: predicts tokens that are not known, for coding and for concealment; None: tokens
    are written raw, which takes about twice the nucleotides, and lost ones are copied from their neighbours.
    Raises HelixError where the prior was trained with another tokenizer.
    """

    tokenizer: Model
    prior: Prior | None = None

    def __post_init__(self):
        if self.prior is not None and self.prior.tokenizer != self.tokenizer.digest:
            raise HelixError(
                f"the prior belongs to tokenizer {self.prior.tokenizer[:8].hex()}, not to "
                f"{self.tokenizer.digest[:8].hex()}: give the two that were trained together, with --model and --prior"
            )


def load(tokenizer=tokenizer_weights.DEFAULT, prior=None) -> Nets:
    """Weights files -> Nets.

    tokenizer: path of the tokenizer's weights; default: those that are shipped. prior: path of the prior's; None: the
    shipped ones where they belong to this tokenizer, else no prior.
    Raises WeightsError for a file that is not such, and HelixError where the two do not belong together.
    """
    model = tokenizer_weights.load(tokenizer)
    if prior is not None:
        return Nets(model, prior_weights.load(prior))
    shipped = prior_weights.load()
    return Nets(model, shipped if shipped.tokenizer == model.digest else None)
