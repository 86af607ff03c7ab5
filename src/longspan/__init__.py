"""longspan: Transformers with memory, for sequences that do not fit in one context window.

Names are imported when they are first used, so that `longspan --help` does not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from longspan.decoding.decode import Decoding as Decoding
    from longspan.decoding.decode import decode as decode
    from longspan.decoding.filters.constraint import Constraint as Constraint
    from longspan.decoding.filters.min_p import MinP as MinP
    from longspan.decoding.filters.no_repeat import NoRepeat as NoRepeat
    from longspan.decoding.filters.prefix import Prefix as Prefix
    from longspan.decoding.filters.repetition import Repetition as Repetition
    from longspan.decoding.filters.temperature import Temperature as Temperature
    from longspan.decoding.filters.top_k import TopK as TopK
    from longspan.decoding.filters.top_p import TopP as TopP
    from longspan.decoding.filters.typical import Typical as Typical
    from longspan.decoding.generate import generate as generate
    from longspan.decoding.hypothesis import Hypothesis as Hypothesis
    from longspan.decoding.step import Draft as Draft
    from longspan.decoding.strategies.beam import Beam as Beam
    from longspan.decoding.strategies.contrastive import Contrastive as Contrastive
    from longspan.decoding.strategies.diverse import Diverse as Diverse
    from longspan.decoding.strategies.greedy import Greedy as Greedy
    from longspan.decoding.strategies.sample import Sample as Sample
    from longspan.decoding.strategies.speculative import Speculative as Speculative
    from longspan.errors import (
        ConfigError as ConfigError,
    )
    from longspan.errors import (
        IncompatibleConfig as IncompatibleConfig,
    )
    from longspan.errors import (
        LongspanError as LongspanError,
    )
    from longspan.interop.transfo_xl import import_run as import_run
    from longspan.kernels.auto import Auto as Auto
    from longspan.measure.cost import cost as cost
    from longspan.measure.perplexity import evaluate as evaluate
    from longspan.measure.perplexity import sliding as sliding
    from longspan.measure.stream import Stream as Stream
    from longspan.measure.stream import stream as stream
    from longspan.memories.cache import Cache as Cache
    from longspan.memories.compressive import Compressive as Compressive
    from longspan.memories.infini import Infini as Infini
    from longspan.memories.layer import MemoryLayer as MemoryLayer
    from longspan.memories.nearest import Nearest as Nearest
    from longspan.memories.none import NoMemory as NoMemory
    from longspan.memories.recent import Recent as Recent
    from longspan.memories.sinks import Sinks as Sinks
    from longspan.memories.tokens import Tokens as Tokens
    from longspan.mixers.convolution import Convolution as Convolution
    from longspan.mixers.favor import Favor as Favor
    from longspan.mixers.gru import GRU as GRU
    from longspan.mixers.linear import LinearAttention as LinearAttention
    from longspan.mixers.linformer import Linformer as Linformer
    from longspan.mixers.lstm import LSTM as LSTM
    from longspan.mixers.nystrom import Nystrom as Nystrom
    from longspan.mixers.rnn import RNN as RNN
    from longspan.mixers.softmax import Attention as Attention
    from longspan.mixers.softmax import Softmax as Softmax
    from longspan.models.cross import CrossAttention as CrossAttention
    from longspan.models.cross import CrossConfig as CrossConfig
    from longspan.models.decoder import Decoder as Decoder
    from longspan.models.decoder import DecoderConfig as DecoderConfig
    from longspan.models.encoder import Encoder as Encoder
    from longspan.models.encoder import EncoderConfig as EncoderConfig
    from longspan.models.encoder_decoder import (
        EncoderDecoder as EncoderDecoder,
    )
    from longspan.models.encoder_decoder import (
        EncoderDecoderConfig as EncoderDecoderConfig,
    )
    from longspan.models.stack import Different as Different
    from longspan.models.stepping import prepared as prepared
    from longspan.models.vocabulary import VocabularyConfig as VocabularyConfig
    from longspan.patterns.bigbird import BigBird as BigBird
    from longspan.patterns.blocks import Blocks as Blocks
    from longspan.patterns.causal import Causal as Causal
    from longspan.patterns.fixed import Fixed as Fixed
    from longspan.patterns.full import Full as Full
    from longspan.patterns.longformer import Longformer as Longformer
    from longspan.patterns.segments import Segments as Segments
    from longspan.patterns.sinks import SinkWindow as SinkWindow
    from longspan.patterns.strided import Strided as Strided
    from longspan.patterns.window import Window as Window
    from longspan.positions.alibi import Alibi as Alibi
    from longspan.positions.interpolated import Interpolated as Interpolated
    from longspan.positions.learned import Learned as Learned
    from longspan.positions.none import NoPosition as NoPosition
    from longspan.positions.ntk import NTK as NTK
    from longspan.positions.rotary import Rotary as Rotary
    from longspan.positions.shaw import Shaw as Shaw
    from longspan.positions.sinusoidal import Sinusoidal as Sinusoidal
    from longspan.positions.t5 import T5 as T5
    from longspan.positions.xl import XL as XL
    from longspan.positions.yarn import YaRN as YaRN
    from longspan.scores.additive import Additive as Additive
    from longspan.scores.concat import Concat as Concat
    from longspan.scores.dot import Dot as Dot
    from longspan.scores.general import General as General
    from longspan.scores.scaled import Scaled as Scaled
    from longspan.state import State as State
    from longspan.training.loop import train as train
    from longspan.training.run import Run as Run
    from longspan.training.run import load as load

_HOMES = {
    "longspan.decoding.decode": ("Decoding", "decode"),
    "longspan.decoding.filters.constraint": ("Constraint",),
    "longspan.decoding.filters.min_p": ("MinP",),
    "longspan.decoding.filters.no_repeat": ("NoRepeat",),
    "longspan.decoding.filters.prefix": ("Prefix",),
    "longspan.decoding.filters.repetition": ("Repetition",),
    "longspan.decoding.filters.temperature": ("Temperature",),
    "longspan.decoding.filters.top_k": ("TopK",),
    "longspan.decoding.filters.top_p": ("TopP",),
    "longspan.decoding.filters.typical": ("Typical",),
    "longspan.decoding.generate": ("generate",),
    "longspan.decoding.hypothesis": ("Hypothesis",),
    "longspan.decoding.step": ("Draft",),
    "longspan.decoding.strategies.beam": ("Beam",),
    "longspan.decoding.strategies.contrastive": ("Contrastive",),
    "longspan.decoding.strategies.diverse": ("Diverse",),
    "longspan.decoding.strategies.greedy": ("Greedy",),
    "longspan.decoding.strategies.sample": ("Sample",),
    "longspan.decoding.strategies.speculative": ("Speculative",),
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
    "longspan.mixers.convolution": ("Convolution",),
    "longspan.mixers.favor": ("Favor",),
    "longspan.mixers.gru": ("GRU",),
    "longspan.mixers.linear": ("LinearAttention",),
    "longspan.mixers.linformer": ("Linformer",),
    "longspan.mixers.lstm": ("LSTM",),
    "longspan.mixers.nystrom": ("Nystrom",),
    "longspan.mixers.rnn": ("RNN",),
    "longspan.mixers.softmax": ("Attention", "Softmax"),
    "longspan.models.cross": ("CrossAttention", "CrossConfig"),
    "longspan.models.decoder": ("Decoder", "DecoderConfig"),
    "longspan.models.encoder": ("Encoder", "EncoderConfig"),
    "longspan.models.encoder_decoder": ("EncoderDecoder", "EncoderDecoderConfig"),
    "longspan.models.stack": ("Different",),
    "longspan.models.stepping": ("prepared",),
    "longspan.models.vocabulary": ("VocabularyConfig",),
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

__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version("longspan")
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'longspan' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
