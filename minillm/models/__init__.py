"""The models, a file each: a small frozen config, the module, its loss."""

from .attention_model import AttentionModel, AttentionModelConfig, AttentionOutput
from .autoencoder import Autoencoder, AutoencoderConfig, linear_autoencoder
from .gpt import GPT, GPTConfig
from .huggingface import HubError, load_pretrained, save_pretrained
from .vae import VAE, VAEConfig, VAEOutput

__all__ = [
    "AttentionModel", "AttentionModelConfig", "AttentionOutput", "Autoencoder", "AutoencoderConfig", "GPT", "GPTConfig",
    "HubError", "VAE", "VAEConfig", "VAEOutput", "linear_autoencoder", "load_pretrained", "save_pretrained",
]  # fmt: skip
