"""Autoencoder: squeeze the input through a narrow layer, and reproduce it.

    code  = encoder(x)        x (B, input_dim) -> (B, output_dim)
    x_hat = decoder(code)     (B, output_dim)  -> (B, input_dim)
    loss  = binary cross-entropy between x_hat and x, both in [0, 1]

With linear activations and squared error the best it can do is PCA (Baldi & Hornik 1989): that is its baseline.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from .. import functional as F
from .. import nn
from ..tensor import Tensor
from .common import activation_layer, check_sizes, from_dict


@dataclass(frozen=True)
class AutoencoderConfig:
    input_dim: int = 100  # features of one example
    encoding_dim: int = 32  # the narrow layer of encoder and decoder
    output_dim: int = 100  # what the encoder hands to the decoder
    encoder: tuple[int, ...] | None = None  # widths of the encoder's layers; None: (encoding_dim, output_dim)
    decoder: tuple[int, ...] | None = None  # widths of the decoder's layers; None: (encoding_dim, input_dim)
    activation: str = "relu"  # after every layer but the last of each half
    code_activation: str = "sigmoid"  # after the encoder's last layer
    output_activation: str = "sigmoid"  # after the decoder's last layer; sigmoid is trained on its logits

    @property
    def encoder_widths(self) -> tuple[int, ...]:
        return (self.encoding_dim, self.output_dim) if self.encoder is None else tuple(self.encoder)

    @property
    def decoder_widths(self) -> tuple[int, ...]:
        return (self.encoding_dim, self.input_dim) if self.decoder is None else tuple(self.decoder)


def _layers(width: int, widths: tuple[int, ...], activation: str, last: str | None) -> nn.Sequential:
    """Dense layers, each followed by its activation; none after the last one where `last` is None."""
    layers: list[nn.Module] = []
    for i, w in enumerate(widths):
        layers.append(nn.Linear(width, w))
        name = activation if i < len(widths) - 1 else last
        if name is not None:
            layers.append(activation_layer(name))
        width = w
    return nn.Sequential(*layers)


class Autoencoder(nn.Module):
    """Unless configured otherwise: encoder and decoder each Dense(32, relu), Dense(100, sigmoid).

    >>> import minillm
    >>> model = Autoencoder(input_dim=64, encoding_dim=16, output_dim=8)
    >>> model(minillm.zeros(2, 64)).shape
    (2, 64)
    """

    def __init__(self, input_dim: int = 100, encoding_dim: int = 32, output_dim: int = 100, **settings: Any):
        super().__init__()
        sizes = {"input_dim": input_dim, "encoding_dim": encoding_dim, "output_dim": output_dim}
        config = from_dict(AutoencoderConfig, {**sizes, **settings})
        check_sizes(config, *sizes, "encoder_widths", "decoder_widths")
        if not config.encoder_widths or not config.decoder_widths:
            raise ValueError("Autoencoder: encoder and decoder need at least one layer each")
        if config.decoder_widths[-1] != input_dim:
            raise ValueError(
                f"Autoencoder: the decoder's last width is {config.decoder_widths[-1]}, "
                f"but it must reproduce input_dim={input_dim}"
            )
        self.config = config
        self.encoder = _layers(input_dim, config.encoder_widths, config.activation, config.code_activation)
        self.decoder = _layers(
            config.encoder_widths[-1], config.decoder_widths, config.activation, None
        )  # ends in logits
        self.output = activation_layer(config.output_activation)

    @classmethod
    def from_config(cls, config: AutoencoderConfig | dict) -> Autoencoder:
        config = from_dict(AutoencoderConfig, config)
        return cls(**{f: getattr(config, f) for f in config.__dataclass_fields__})

    def encode(self, x: Tensor) -> Tensor:
        """The code of x: (B, input_dim) -> (B, output_dim)."""
        return self.encoder(x)

    def decode(self, code: Tensor) -> Tensor:
        """The input that a code stands for: (B, output_dim) -> (B, input_dim)."""
        return self.output(self.decoder(code))

    def forward(self, x: Tensor) -> Tensor:
        return self.decode(self.encode(x))

    def loss(self, x: Tensor, reduction: str = "mean") -> Tensor:
        """Binary cross-entropy for a sigmoid output (computed from its logits), squared error for any other."""
        logits = self.decoder(self.encode(x))
        if self.config.output_activation == "sigmoid":
            return F.binary_cross_entropy_with_logits(logits, x, reduction=reduction)
        return F.mse_loss(self.output(logits), x, reduction=reduction)


def linear_autoencoder(input_dim: int, code_dim: int) -> Autoencoder:
    """No activations: with squared error it learns the space of PCA with code_dim components."""
    names: dict[str, Any] = dict.fromkeys(("activation", "code_activation", "output_activation"), "identity")
    return Autoencoder(input_dim, encoder=(code_dim,), decoder=(input_dim,), **names)


__all__ = ["Autoencoder", "AutoencoderConfig", "linear_autoencoder"]
