"""longspan: Transformers with memory, for sequences that do not fit in one context window.

Names are imported when they are first used, so that `longspan --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longspan.decoding.generate import generate
    from longspan.errors import ConfigError, IncompatibleConfig, LongspanError
    from longspan.interop.transfo_xl import import_run
    from longspan.kernels.auto import Auto
    from longspan.measure.cost import cost
    from longspan.measure.perplexity import evaluate, sliding
    from longspan.measure.stream import Stream, stream
    from longspan.memories.cache import Cache
    from longspan.memories.compressive import Compressive
    from longspan.memories.infini import Infini
    from longspan.memories.layer import MemoryLayer
    from longspan.memories.nearest import Nearest
    from longspan.memories.none import NoMemory
    from longspan.memories.recent import Recent
    from longspan.memories.sinks import Sinks
    from longspan.memories.tokens import Tokens
    from longspan.mixers.convolution import Convolution
    from longspan.mixers.favor import Favor
    from longspan.mixers.gru import GRU
    from longspan.mixers.linear import LinearAttention
    from longspan.mixers.linformer import Linformer
    from longspan.mixers.lstm import LSTM
    from longspan.mixers.nystrom import Nystrom
    from longspan.mixers.rnn import RNN
    from longspan.mixers.softmax import Attention, Softmax
    from longspan.models.cross import CrossAttention, CrossConfig
    from longspan.models.decoder import Decoder, DecoderConfig
    from longspan.models.encoder import Encoder, EncoderConfig
    from longspan.models.encoder_decoder import EncoderDecoder, EncoderDecoderConfig
    from longspan.patterns.bigbird import BigBird
    from longspan.patterns.blocks import Blocks
    from longspan.patterns.causal import Causal
    from longspan.patterns.fixed import Fixed
    from longspan.patterns.full import Full
    from longspan.patterns.longformer import Longformer
    from longspan.patterns.segments import Segments
    from longspan.patterns.sinks import SinkWindow
    from longspan.patterns.strided import Strided
    from longspan.patterns.window import Window
    from longspan.positions.alibi import Alibi
    from longspan.positions.interpolated import Interpolated
    from longspan.positions.learned import Learned
    from longspan.positions.none import NoPosition
    from longspan.positions.ntk import NTK
    from longspan.positions.rotary import Rotary
    from longspan.positions.shaw import Shaw
    from longspan.positions.sinusoidal import Sinusoidal
    from longspan.positions.t5 import T5
    from longspan.positions.xl import XL
    from longspan.positions.yarn import YaRN
    from longspan.scores.additive import Additive
    from longspan.scores.concat import Concat
    from longspan.scores.dot import Dot
    from longspan.scores.general import General
    from longspan.scores.scaled import Scaled
    from longspan.state import State
    from longspan.training.loop import train
    from longspan.training.run import Run, load

_HOMES = {
    "longspan.decoding.generate": ("generate",),
    "longspan.errors": ("ConfigError", "IncompatibleConfig", "LongspanError"),
    "longspan.interop.transfo_xl": ("import_run",),
    "longspan.kernels.auto": ("Auto",),
    "longspan.measure.cost": ("cost",),
    "longspan.measure.perplexity": ("evaluate", "sliding"),
    "longspan.measure.stream": ("Stream", "stream"),
    "longspan.memories.cache": ("Cache",),
    "longspan.memories.compressive": ("Compressive",),
    "longspan.memories.infini": ("Infini",),
    "longspan.memories.layer": ("MemoryLayer",),
    "longspan.memories.nearest": ("Nearest",),
    "longspan.memories.none": ("NoMemory",),
    "longspan.memories.recent": ("Recent",),
    "longspan.memories.sinks": ("Sinks",),
    "longspan.memories.tokens": ("Tokens",),
    "longspan.mixers.favor": ("Favor",),
    "longspan.mixers.linear": ("LinearAttention",),
    "longspan.mixers.softmax": ("Attention", "Softmax"),
    "longspan.mixers.convolution": ("Convolution",),
    "longspan.mixers.gru": ("GRU",),
    "longspan.mixers.linformer": ("Linformer",),
    "longspan.mixers.lstm": ("LSTM",),
    "longspan.mixers.nystrom": ("Nystrom",),
    "longspan.mixers.rnn": ("RNN",),
    "longspan.models.cross": ("CrossAttention", "CrossConfig"),
    "longspan.models.decoder": ("Decoder", "DecoderConfig"),
    "longspan.models.encoder": ("Encoder", "EncoderConfig"),
    "longspan.models.encoder_decoder": ("EncoderDecoder", "EncoderDecoderConfig"),
    "longspan.patterns.bigbird": ("BigBird",),
    "longspan.patterns.blocks": ("Blocks",),
    "longspan.patterns.causal": ("Causal",),
    "longspan.patterns.fixed": ("Fixed",),
    "longspan.patterns.full": ("Full",),
    "longspan.patterns.longformer": ("Longformer",),
    "longspan.patterns.segments": ("Segments",),
    "longspan.patterns.sinks": ("SinkWindow",),
    "longspan.patterns.strided": ("Strided",),
    "longspan.patterns.window": ("Window",),
    "longspan.positions.alibi": ("Alibi",),
    "longspan.positions.interpolated": ("Interpolated",),
    "longspan.positions.learned": ("Learned",),
    "longspan.positions.none": ("NoPosition",),
    "longspan.positions.ntk": ("NTK",),
    "longspan.positions.rotary": ("Rotary",),
    "longspan.positions.shaw": ("Shaw",),
    "longspan.positions.sinusoidal": ("Sinusoidal",),
    "longspan.positions.t5": ("T5",),
    "longspan.positions.xl": ("XL",),
    "longspan.positions.yarn": ("YaRN",),
    "longspan.scores.additive": ("Additive",),
    "longspan.scores.concat": ("Concat",),
    "longspan.scores.dot": ("Dot",),
    "longspan.scores.general": ("General",),
    "longspan.scores.scaled": ("Scaled",),
    "longspan.state": ("State",),
    "longspan.training.loop": ("train",),
    "longspan.training.run": ("Run", "load"),
}
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "GRU",
    "LSTM",
    "NTK",
    "RNN",
    "T5",
    "XL",
    "Additive",
    "Alibi",
    "Attention",
    "Auto",
    "BigBird",
    "Blocks",
    "Cache",
    "Causal",
    "Compressive",
    "Concat",
    "ConfigError",
    "Convolution",
    "CrossAttention",
    "CrossConfig",
    "Decoder",
    "DecoderConfig",
    "Dot",
    "Encoder",
    "EncoderConfig",
    "EncoderDecoder",
    "EncoderDecoderConfig",
    "Favor",
    "Fixed",
    "Full",
    "General",
    "IncompatibleConfig",
    "Infini",
    "Interpolated",
    "Learned",
    "LinearAttention",
    "Linformer",
    "Longformer",
    "LongspanError",
    "MemoryLayer",
    "Nearest",
    "NoMemory",
    "NoPosition",
    "Nystrom",
    "Recent",
    "Rotary",
    "Run",
    "Scaled",
    "Segments",
    "Shaw",
    "SinkWindow",
    "Sinks",
    "Sinusoidal",
    "Softmax",
    "State",
    "Stream",
    "Strided",
    "Tokens",
    "Window",
    "YaRN",
    "cost",
    "evaluate",
    "generate",
    "import_run",
    "load",
    "sliding",
    "stream",
    "train",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("longspan")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'longspan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
