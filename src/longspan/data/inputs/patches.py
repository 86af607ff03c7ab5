"""Images as patches (2010.11929, section 3.1), row by row from the top.

{name: patches, height: 4, width: 4}            squares, as ViT has them
{name: patches, height: 1, width: null}         each row of pixels is a vector
{name: patches, height: 1, width: 1}            each pixel by itself, one long sequence
"""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from longspan.data.input import Encoding, Input
from longspan.data.labelled.item import File, Item
from longspan.errors import CheckpointError, ConfigError, DataError

FILE = "pixels.json"
"""Name of the file that `PatchEncoding.save` writes."""

Mode = Literal["L", "RGB"]
"""Grey, or three colours."""


@dataclass(frozen=True)
class Shape:
    """What all images of a run are.

    Attributes:
        mode: grey or colours.
        size: pixels, height and width.
        patch: pixels of a patch, height and width.
        fixed: images of another mode or size are converted; otherwise they are refused.
        shift: pixels by which images move in training.
        mirror: half of them are mirrored in training.
        mean, std: of each channel over training, of pixels from 0 to 1.
    """

    mode: Mode
    size: tuple[int, int]
    patch: tuple[int, int]
    fixed: tuple[bool, bool]
    shift: int
    mirror: bool
    mean: tuple[float, ...]
    std: tuple[float, ...]


class PatchEncoding(Encoding):
    """Images as (T, F) patches of pixels; the model reads them less the mean, by the deviation."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape

    @property
    def size(self) -> None:
        return None

    @property
    def features(self) -> int:
        height, width = self.shape.patch
        return height * width * len(self.shape.mean)

    @property
    def fingerprint(self) -> str:
        return hashlib.sha256(self._definition().encode()).hexdigest()

    def encode(self, items: Iterable[Item]) -> Iterator[NDArray[Any]]:
        for item in items:
            yield patches(self._pixels(item), self.shape.patch)

    def model_input(self, values: NDArray[Any]) -> Tensor:
        repeats = values.shape[-1] // len(self.shape.mean)
        mean, std = (
            torch.tensor(each, dtype=torch.float32).repeat(repeats)
            for each in (self.shape.mean, self.shape.std)
        )
        return (torch.from_numpy(values).float() / 255 - mean) / std

    def varied(self, values: NDArray[Any], draw: np.random.Generator) -> NDArray[Any]:
        shape, batch = self.shape, len(values)
        if not shape.shift and not shape.mirror:
            return values
        pixels = whole(values, shape.size, shape.patch)
        if shape.mirror:
            pixels = np.where(draw.random((batch, 1, 1, 1)) < 0.5, pixels[:, :, ::-1], pixels)
        if shape.shift:
            far, (height, width) = shape.shift, shape.size
            room = np.pad(pixels, ((0, 0), (far, far), (far, far), (0, 0)))
            moved = draw.integers(0, 2 * far + 1, (batch, 2)).tolist()
            pixels = np.stack(
                [room[n, y : y + height, x : x + width] for n, (y, x) in enumerate(moved)]
            )
        return np.stack([patches(each, shape.patch) for each in pixels])

    def save(self, folder: str | os.PathLike[str]) -> None:
        path = Path(folder) / FILE
        part = path.with_name(f"{FILE}.part")
        try:
            part.write_text(self._definition(), "utf-8")
            os.replace(part, path)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CheckpointError(f"{path}: could not be written: {error}") from error

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Self:
        path = Path(folder) / FILE
        try:
            content = json.loads(path.read_bytes())
            kept: Any = {k: tuple(v) if isinstance(v, list) else v for k, v in content.items()}
            return cls(Shape(**kept))
        except FileNotFoundError as error:
            raise CheckpointError(f"{path}: there is no such file") from error
        except (OSError, ValueError, TypeError) as error:
            raise CheckpointError(f"{path}: is damaged ({error}); copy it anew") from error

    def _definition(self) -> str:
        return json.dumps(vars(self.shape))

    def _pixels(self, item: Item) -> NDArray[np.uint8]:
        shape, image = self.shape, opened(item)
        height, width = shape.size
        if image.mode != shape.mode:
            if not shape.fixed[0]:
                raise DataError(
                    f"{item.inside}: is of mode {image.mode}, the first image of training "
                    f"{shape.mode}; convert it, or set data.input.mode={shape.mode}"
                )
            image = image.convert(shape.mode)
        if image.size != (width, height):
            if not shape.fixed[1]:
                raise DataError(
                    f"{item.inside}: is of {image.height} x {image.width} pixels, the first image "
                    f"of training of {height} x {width}; resize it, or set "
                    f"data.input.size=[{height},{width}]"
                )
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        return _array(image)


@dataclass(frozen=True)
class Patches(Input, name="patches"):
    """Patches of an image.

    Attributes:
        height: pixels of a patch.
        width: pixels of a patch; None for all of a row.
        size: pixels of all images, height and width, to which others are resized; None for those of
            the first one, and others are refused.
        mode: "L" (grey) or "RGB", to which others are converted; None for that of the first image,
            and others are refused.
        shift: in training images move by up to so many pixels to each side, drawn anew each time;
            what comes in is black.
        mirror: in training half of the images are mirrored, left to right, drawn anew each time.
    """

    encoding: ClassVar[type[Encoding]] = PatchEncoding
    files: ClassVar[bool] = True
    vectors: ClassVar[bool] = True

    height: int = 4
    width: int | None = 4
    size: tuple[int, int] | None = None
    mode: Mode | None = None
    shift: int = 0
    mirror: bool = False

    def __post_init__(self) -> None:
        problems = [
            f"data.input.{name} must be 1 or more, not {value!r}"
            for name, value in (("height", self.height), ("width", self.width))
            if value is not None and (type(value) is not int or value < 1)
        ]
        if self.size is not None and (len(self.size) != 2 or min(self.size) < 1):
            problems.append(
                f"data.input.size must be [height, width] in pixels, not {list(self.size)}"
            )
        if type(self.shift) is not int or self.shift < 0:
            problems.append(f"data.input.shift must be 0 or more, not {self.shift!r}")
        if self.mode not in (None, "L", "RGB"):
            problems.append(f"data.input.mode must be 'L', 'RGB' or null, not {self.mode!r}")
        if problems:
            raise ConfigError(problems)

    def fit(self, items: Iterable[Item]) -> PatchEncoding:
        shape: Shape | None = None
        total = squares = np.zeros(1)
        count = 0
        for item in items:
            if shape is None:
                shape = self._first(item)
            pixels = PatchEncoding(shape)._pixels(item).reshape(-1, len(shape.mean)) / 255
            total = total + pixels.sum(0)
            squares = squares + (pixels**2).sum(0)
            count += len(pixels)
        if shape is None:
            raise DataError("there are no images to learn from")
        mean = total / count
        # a channel that never changes has nothing to be scaled by
        std = np.sqrt(np.maximum(squares / count - mean**2, 0))
        std = np.where(std > 1e-6, std, 1.0)
        fitted = replace(shape, mean=tuple(mean.tolist()), std=tuple(std.tolist()))
        return PatchEncoding(fitted)

    def _first(self, item: Item) -> Shape:
        image = opened(item)
        mode = self.mode or image.mode
        if mode not in ("L", "RGB"):
            raise DataError(
                f"{item.inside}: is of mode {mode}; set data.input.mode to L (grey) or RGB"
            )
        height, width = self.size or (image.height, image.width)
        patch = (self.height, self.width or width)
        if height % patch[0] or width % patch[1]:
            raise DataError(
                f"{item.inside}: {height} x {width} pixels are no whole number of patches of "
                f"{patch[0]} x {patch[1]}; set data.input.height and width to divide them, or "
                "data.input.size"
            )
        channels = 3 if mode == "RGB" else 1
        nothing = (0.0,) * channels
        fixed = (self.mode is not None, self.size is not None)
        own = (self.shift, self.mirror)
        return Shape(mode, (height, width), patch, fixed, *own, nothing, nothing)  # type: ignore[arg-type]


def opened(item: Item) -> Image.Image:
    """The image of a record: the path of a file, a file's bytes, or an array (H, W) or (H, W, 3).

    Raises:
        DataError: it is none.
    """
    content = item.content
    if isinstance(content, np.ndarray):
        return Image.fromarray(content)
    if isinstance(content, str):
        content = File(content)
    if isinstance(content, File):
        content = content.read()
    if not isinstance(content, bytes):
        held = "null" if content is None else type(content).__name__
        raise DataError(f"{item.inside} holds {held}, no image")
    try:
        image = Image.open(io.BytesIO(content))
        image.load()
    except UnidentifiedImageError as error:
        raise DataError(f"{item.inside}: is no image that Pillow knows") from error
    except (OSError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{item.inside}: is a damaged image ({error})") from error
    return image


def patches(pixels: NDArray[np.uint8], patch: tuple[int, int]) -> NDArray[np.uint8]:
    """(H, W, K) pixels as (T, F) patches, each row by row, K numbers a pixel."""
    (height, width), (high, wide, channels) = patch, pixels.shape
    cut = pixels.reshape(high // height, height, wide // width, width, channels)
    return cut.swapaxes(1, 2).reshape(-1, height * width * channels)


def whole(
    values: NDArray[np.uint8], size: tuple[int, int], patch: tuple[int, int]
) -> NDArray[np.uint8]:
    """The inverse of `patches` for a batch: (B, T, F) to (B, H, W, K)."""
    (high, wide), (height, width), batch = size, patch, len(values)
    cut = values.reshape(batch, high // height, wide // width, height, width, -1)
    return cut.swapaxes(2, 3).reshape(batch, high, wide, -1)


def _array(image: Image.Image) -> NDArray[np.uint8]:
    pixels = np.asarray(image, np.uint8)
    return pixels[:, :, None] if pixels.ndim == 2 else pixels
