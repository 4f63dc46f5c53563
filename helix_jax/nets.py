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


def released(model_hash: bytes, prior_hash: bytes) -> Nets:
    """Load the shipped nets that a pool was written with: those of this release, or of an earlier one.

    Args:
        model_hash: First bytes of the tokenizer's digest, from the header of the pool.
        prior_hash: First bytes of the prior's digest; zeros where the pool needs none.

    Returns:
        The nets with these hashes, or the shipped ones of this release where no others fit; the decoder then says what
        is missing.
    """
    folder, usual = tokenizer_weights.DEFAULT.parent, load()
    models = (tokenizer_weights.load(path) for path in sorted(folder.glob("tokenizer*.safetensors")))
    if usual.tokenizer.digest.startswith(model_hash):
        model = usual.tokenizer
    else:
        model = next((one for one in models if one.digest.startswith(model_hash)), usual.tokenizer)
    wanted = prior_hash if any(prior_hash) else b""
    if usual.prior and usual.prior.tokenizer == model.digest and usual.prior.digest.startswith(wanted):
        return Nets(model, usual.prior)
    priors = (prior_weights.load(path) for path in sorted(folder.glob("prior*.safetensors")))
    fitting = (one for one in priors if one.tokenizer == model.digest and one.digest.startswith(wanted))
    return Nets(model, next(fitting, None))


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
