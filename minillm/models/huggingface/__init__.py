"""Models and tokenizers in Hugging Face's form, a folder of config.json, safetensors files and tokenizer.json, in both
directions and without its libraries for models.

    model, tokenizer = load_pretrained("gpt2")      # a folder, as `hf download gpt2 --local-dir gpt2` makes it
    save_pretrained(model, "mine", tokenizer)       # transformers.AutoModelForCausalLM.from_pretrained("mine") reads it

gpt2.py, llama.py   which setting and which weight of the format is which of GPT's
load.py, save.py    the two directions
fields.py           config.json, value by value
weights.py          safetensors files
"""

from .errors import HubError
from .load import load_pretrained
from .save import save_pretrained

__all__ = ["HubError", "load_pretrained", "save_pretrained"]
