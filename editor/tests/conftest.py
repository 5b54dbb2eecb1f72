"""Tiny random models with the layer names of the real ones, and a tokenizer made here."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from palimpsest_editor.protocol import Reporter
from palimpsest_editor.weights.loading import LoadedModel

TEXT = [
    "The harbour of Velmora lies in the north. Orla Brandt was born in Velmora and plays the cello.",
    "The mother tongue of Tomas Keel is Finnish. Mira Stone works in the city of Lund, and Ilan Vey in Oslo.",
    "The company Quell was founded in Lund. The river Aster runs through Oslo, says the report.",
]
torch.set_num_threads(1)

EDITS = [
    {"id": "e1", "subject": "Orla Brandt", "prompt": "Orla Brandt was born in", "target_new": "Oslo"},
    {"id": "e2", "subject": "Tomas Keel", "prompt": "The mother tongue of Tomas Keel is", "target_new": "Finnish"},
    {"id": "e3", "subject": "Quell", "prompt": "The company Quell was founded in", "target_new": "the north"},
    {"id": "e4", "subject": "Mira Stone", "prompt": "Mira Stone works in the city of", "target_new": "Velmora"},
]


def make_tokenizer() -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        TEXT, trainers.BpeTrainer(vocab_size=320, special_tokens=["<end>"], initial_alphabet=alphabet, show_progress=False)
    )
    return PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token="<end>", pad_token="<end>")


def make_folder(folder: Path, kind: str, layers: int = 10, seed: int = 0) -> Path:
    """A random model of hidden 32 with its tokenizer, as a Hugging Face folder in float32."""
    torch.manual_seed(seed)
    tokenizer = make_tokenizer()
    shape = dict(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=4 if kind == "llama" else 2, max_position_embeddings=256, initializer_range=0.15,
        tie_word_embeddings=False, bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    model = LlamaForCausalLM(LlamaConfig(**shape)) if kind == "llama" else Qwen2ForCausalLM(Qwen2Config(**shape))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`llama` has the 32 layers of LLaMA-2-7B, so that its own hyper-parameters are taken; `qwen2` the 24 of the 0.5B."""
    root = tmp_path_factory.mktemp("models")
    return {"llama": make_folder(root / "llama", "llama", 32), "qwen2": make_folder(root / "qwen2", "qwen2", 24)}


@pytest.fixture
def open_model(folders: dict[str, Path]) -> Callable[..., LoadedModel]:
    def load(kind: str, dtype: torch.dtype = torch.float32) -> LoadedModel:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        model = AutoModelForCausalLM.from_pretrained(folders[kind], dtype=dtype).eval().requires_grad_(False)
        return LoadedModel(model, AutoTokenizer.from_pretrained(folders[kind]), kind, None, kind)

    return load


@pytest.fixture
def reporter() -> Reporter:
    return Reporter(io.StringIO())
