"""Any causal model of transformers as the measures of reach see it: `longspan reach hf:PATH`.

PATH is a folder in Hugging Face's layout, a GGUF file, or a name that its cache or the Hub knows.
Only safetensors and GGUF are read, so nothing is unpickled and no code that comes with a model
runs. The state is transformers' own cache, copied before it is written to.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from longspan.data import Codec
from longspan.data.tokenizers.bytes import ByteCodec
from longspan.data.tokenizers.ids import IdCodec
from longspan.errors import CheckpointError, ConfigError, DataError, InputError
from longspan.machine import choose_device, choose_dtype
from longspan.measure.reach.predictor import Predictor, Price, Seen

Units = Literal["text", "bytes", "ids"]
"""How data are read: by the model's tokenizer, byte by byte, or as numbers."""

NUMBERS = 1 << 23
"""Logits of a row that are made at once when a text is read from its beginning."""


class Tokens(Codec):
    """A tokenizer of transformers.

    Args:
        tokenizer: as `AutoTokenizer` gives it.
        start: the token that precedes every document.
        size: ids of the model.
    """

    kind: ClassVar[str] = "transformers"
    unit: ClassVar[str] = "token"

    def __init__(self, tokenizer: Any, start: int, size: int) -> None:
        super().__init__([b""] * size, start)
        self._tokenizer = tokenizer

    def definition(self) -> dict[str, Any]:
        return {"vocabulary": dict(sorted(self._tokenizer.get_vocab().items()))}

    @classmethod
    def restore(cls, definition: Mapping[str, Any]) -> Self:
        raise CheckpointError("a tokenizer of transformers is read from the model's own folder")

    def blocks(
        self, document: bytes, start: int = 0, stop: int | None = None
    ) -> Iterator[NDArray[Any]]:
        try:
            text = document[start:stop].decode("utf-8")
        except UnicodeDecodeError as error:
            raise DataError(
                f"byte {start + error.start} is no UTF-8, which this tokenizer reads; "
                "use --units bytes for a model of bytes"
            ) from error
        ids = self._tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
        if ids and max(ids) >= self.size:
            raise DataError(
                f"the tokenizer gives token {max(ids)} and the model knows {self.size}: "
                "they do not belong together"
            )
        yield np.array(ids, np.int64)

    def feed(self, pending: bytes, more: bytes, final: bool) -> tuple[list[int], bytes]:
        raise InputError("a tokenizer of transformers reads whole documents only")

    def decode(self, ids: Any) -> bytes:
        return self._tokenizer.decode([int(i) for i in ids]).encode()


class CausalPredictor(Predictor):
    """A causal model of transformers.

    Args:
        name: what the report calls it.
        model: as `AutoModelForCausalLM` gives it.
        codec: reads its data.
    """

    def __init__(self, name: str, model: Any, codec: Codec) -> None:
        config = model.config.get_text_config()
        self.name, self.codec, self.model = name, codec, model.eval().requires_grad_(False)
        self.size, self.unit = config.vocab_size, codec.unit
        self.vocabulary = f"{codec.fingerprint} {config.vocab_size}"
        self.longest = getattr(config, "max_position_embeddings", None)
        self.segment = min(max(16, NUMBERS // self.size), 256, self.longest or 256)
        self.layers = getattr(config, "num_hidden_layers", 0)
        self._config = config
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters

    def start(self, batch: int) -> None:
        return None

    def losses(self, inputs: Tensor, targets: Tensor, state: Any) -> tuple[Tensor, Any]:
        count = targets.shape[1]
        out = self._call(inputs, state, keep=count)
        # a row a token: along another dimension a large vocabulary sums to 1e-4 only
        logits = out.logits[:, -count:].float().flatten(0, 1)
        goal = targets.to(logits.device).flatten()
        nats = cross_entropy(logits, goal, reduction="none")
        return nats.view(targets.shape), out.past_key_values

    def looks(self, inputs: Tensor, state: Any, told: Callable[[Seen], None]) -> Any:
        usual = self.model.config._attn_implementation
        # the other implementations never form the weights
        self.model.set_attn_implementation("eager")
        try:
            out = self._call(inputs, state, keep=1, output_attentions=True)
        finally:
            self.model.set_attn_implementation(usual)
        for layer, weights in enumerate(out.attentions or ()):
            if weights is not None:
                told(_seen(layer, weights))
        return out.past_key_values

    def embedding(self) -> nn.Module:
        return self.model.get_input_embeddings()

    def price(self, after: int) -> Price:
        """Products of all weights but the table of embeddings, and of `after` keys a layer."""
        after = after if self.longest is None else min(after, self.longest)
        numbers = sum(p.numel() for p in self.model.parameters())
        table = self.model.get_input_embeddings().weight
        head = self.model.get_output_embeddings()
        tied = head is not None and head.weight is table
        config = self._config
        heads = getattr(config, "num_attention_heads", 0)
        wide = getattr(config, "head_dim", None) or config.hidden_size // max(1, heads)
        pairs = 2 * self.layers * heads * wide * after
        flops = 2.0 * (numbers - (0 if tied else table.numel()) + pairs)
        with torch.no_grad():
            zeros = torch.zeros(1, after, dtype=torch.long, device=self.model.device)
            out = self._call(zeros, None, keep=1)
        return Price(numbers, flops, _bytes(out), after)

    def _call(self, inputs: Tensor, cache: Any, keep: int, **more: Any) -> Any:
        if self._keeps:
            more["logits_to_keep"] = keep
        if cache is not None:
            more["past_key_values"] = copy.deepcopy(cache)
        return self.model(input_ids=inputs.to(self.model.device), use_cache=True, **more)


def _seen(layer: int, weights: Tensor) -> Seen:
    queries, keys = weights.shape[-2:]
    k_pos = torch.arange(keys, device=weights.device).expand(len(weights), -1)
    # the cache is the window itself: nothing of it is a memory of what came before
    return Seen(layer, weights, k_pos[:, keys - queries :], k_pos, 0)


def _bytes(out: Any) -> int:
    layers = getattr(out.past_key_values, "layers", [])
    tensors = [t for layer in layers for t in vars(layer).values() if isinstance(t, Tensor)]
    return sum(t.numel() * t.element_size() for t in tensors)


def open_causal(path: str, units: Units | None, device: str, dtype: str) -> CausalPredictor:
    """The model that `path` names.

    Args:
        path: a folder, a GGUF file, or a name; without the prefix hf:.
        units: how data are read; None for text, or numbers if the model has no tokenizer.
        device: "auto", "cpu" or "cuda".
        dtype: "auto" (float32, which their own losses are compared in), or its name.

    Raises:
        ConfigError: transformers is not installed, or units that the model has no tokenizer for.
        CheckpointError: there is no such model, or it cannot be read.
    """
    try:
        import transformers
    except ImportError as error:
        raise ConfigError(
            f"hf:{path} needs transformers; install longspan[transformers]"
        ) from error
    where = choose_device(device)
    kind = choose_dtype("float32" if dtype == "auto" else dtype, where)
    file = Path(path)
    folder, more = (str(file.parent), {"gguf_file": file.name}) if _is_gguf(file) else (path, {})
    if not file.exists() and (file.is_absolute() or path.startswith(".") or path.count("/") != 1):
        raise CheckpointError(
            f"hf:{path}: there is no such folder or file; a name of the Hub is OWNER/NAME, such as "
            "openai-community/gpt2"
        )
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    try:
        safe = {} if more else {"use_safetensors": True}
        model = transformers.AutoModelForCausalLM.from_pretrained(
            folder, dtype=kind, **safe, **more
        )
    except Exception as error:  # whatever transformers raises of a model that it cannot read
        raise CheckpointError(f"hf:{path} cannot be read: {_said(error)}") from error
    model.to(where)
    return CausalPredictor(file.name, model, _codec(transformers, folder, more, model, units))


def _codec(transformers: Any, folder: str, more: Any, model: Any, units: Units | None) -> Codec:
    config = model.config.get_text_config()
    tokenizer = None
    # of some kinds transformers makes up an empty tokenizer where there is none
    local = Path(folder)
    files = [file for kind in ("tokenizer*", "vocab*", "*.model") for file in local.glob(kind)]
    missing = local.is_dir() and not more and not files
    if missing and units == "text":
        raise ConfigError(
            f"{folder} has no tokenizer; give numbers and --units ids, or --units bytes for a "
            "model of bytes"
        )
    if units in (None, "text") and not missing:
        try:
            tokenizer = transformers.AutoTokenizer.from_pretrained(folder, **more)
        except Exception as error:  # a folder without one; transformers says it in many ways
            if units == "text":
                raise ConfigError(
                    f"the tokenizer of {folder} cannot be read ({_said(error)}); give numbers and "
                    "--units ids, or --units bytes for a model of bytes"
                ) from error
    known = [getattr(one, "bos_token_id", None) for one in (tokenizer, config)]
    known += [getattr(one, "eos_token_id", None) for one in (tokenizer, config)]
    start = next((one for one in known if isinstance(one, int) and one < config.vocab_size), 0)
    if tokenizer is not None:
        return Tokens(tokenizer, start, config.vocab_size)
    if units == "bytes":
        codec = ByteCodec()
        if config.vocab_size < codec.size:
            raise ConfigError(
                f"{folder}: a vocabulary of {config.vocab_size} has no room for 256 bytes and a "
                "start symbol"
            )
        return codec
    return IdCodec(config.vocab_size, start)


def _is_gguf(path: Path) -> bool:
    return path.suffix == ".gguf"


def _said(error: Exception) -> str:
    """The first line of what was raised."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
