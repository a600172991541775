"""`convolith filter`: a photo through a convolution."""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

import convolith
from convolith.cli.errors import CliError, require

if TYPE_CHECKING:
    from PIL import Image

Array = npt.NDArray[Any]

SOBEL = np.array([[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]], dtype=np.float32)
BINOMIAL = np.array([1, 4, 6, 4, 1], dtype=np.float32) / 16

KERNELS: dict[str, Array] = {
    "sobel": np.stack([SOBEL, SOBEL.T]),
    "sharpen": np.array([[0, -1, 0], [-1, 5, -1], [0, -1, 0]], dtype=np.float32)[None],
    "blur": np.outer(BINOMIAL, BINOMIAL)[None],
    "emboss": np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], dtype=np.float32)[None],
    "edge": np.array([[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]], dtype=np.float32)[None],
}
"""Matrices [matrix, row, column]; where there are two, the result is the length of their vector."""

LARGEST = 1e30
"""Of a kernel's numbers, so that sums stay finite in float32."""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = commands.add_parser(
        "filter",
        help="convolve a photo with a small kernel",
        description="Convolve a photo with a kernel (cross-correlation, edges replicated). Colours "
        "are filtered one by one, transparency is kept, the result is clipped to 0..255.",
    )
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="any format that Pillow reads")
    parser.add_argument(
        "--kernel",
        required=True,
        metavar="KERNEL",
        help=f"{', '.join(KERNELS)}, or a text file with a matrix of numbers",
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="OUT.png", help="the result"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Read, convolve, write."""
    image_module = require("PIL.Image", "viz")
    kernel = load_kernel(arguments.kernel)
    image = load_photo(arguments.photo)
    pixels, alpha = split_alpha(image)
    start = time.perf_counter()
    filtered = convolve(pixels, kernel)
    elapsed = time.perf_counter() - start
    result = np.clip(np.rint(filtered), 0, 255).astype(np.uint8)
    if alpha is not None:
        result = np.concatenate([result, alpha], axis=2)
    height, width, channels = result.shape
    output = image_module.fromarray(result[..., 0] if channels == 1 else result)
    try:
        output.save(arguments.output)
    except (OSError, ValueError) as error:
        raise CliError(f"cannot write {str(arguments.output)!r}: {error}") from error
    rows, columns = kernel.shape[1:]
    print(
        f"wrote {arguments.output}: {width} x {height} {output.mode}, {arguments.kernel} "
        f"{rows} x {columns}; the convolution took {1e3 * elapsed:.1f} ms"
    )
    return 0


def load_kernel(name: str) -> Array:
    """A named kernel, or the matrix in a text file, as float32 [matrix, row, column]."""
    if name in KERNELS:
        return KERNELS[name]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # an empty file is told of below
            matrix = np.loadtxt(name, dtype=np.float64, ndmin=2, encoding="utf-8")
    except FileNotFoundError as error:
        raise CliError(
            f"--kernel {name!r} is neither one of {', '.join(KERNELS)} nor a file"
        ) from error
    except OSError as error:
        raise CliError(f"--kernel {name!r} cannot be read: {error}") from error
    except ValueError as error:
        reason = str(error).partition("\n")[0]
        raise CliError(f"--kernel {name!r} is not a matrix of numbers: {reason}") from error
    if not matrix.size:
        raise CliError(f"--kernel {name!r} holds no numbers")
    if not (np.abs(matrix) <= LARGEST).all():
        raise CliError(f"--kernel {name!r} holds numbers that are not finite or beyond {LARGEST:g}")
    return matrix.astype(np.float32)[None]


def load_photo(path: Path) -> Image.Image:
    """The decoded photo, upright."""
    image_module = require("PIL.Image", "viz")
    ops = require("PIL.ImageOps", "viz")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", image_module.DecompressionBombWarning)
            with image_module.open(path) as image:
                image.load()
                upright: Image.Image = ops.exif_transpose(image)
                return upright
    except FileNotFoundError as error:
        raise CliError(f"no photo {str(path)!r}") from error
    except image_module.UnidentifiedImageError as error:
        raise CliError(f"{str(path)!r} is not an image that Pillow can read") from error
    except image_module.DecompressionBombError as error:
        raise CliError(f"{str(path)!r} is too large: {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        # Pillow's decoders report corrupt files with any of these.
        raise CliError(f"{str(path)!r} cannot be decoded: {error}") from error


def split_alpha(image: Image.Image) -> tuple[Array, Array | None]:
    """Pixels as float32 [row, column, channel] in 0..255, and the transparency as uint8, if any."""
    if image.mode == "I" or image.mode.startswith("I;16"):
        pixels = np.asarray(image).astype(np.float32)[..., None]
        if pixels.min() < 0 or pixels.max() > 65535:
            raise CliError("32-bit integer images are supported with values in 0..65535 only")
        return pixels / 257, None
    if image.mode == "F":
        raise CliError("floating-point images are not supported: their range is not known")
    if image.mode in ("1", "L"):
        mode = "L"
    elif image.mode in ("LA", "La"):
        mode = "LA"
    else:
        mode = "RGBA" if image.has_transparency_data else "RGB"
    if mode == "L" and image.has_transparency_data:
        mode = "LA"
    values = np.asarray(image.convert(mode))
    if mode in ("LA", "RGBA"):
        return values[..., :-1].astype(np.float32), values[..., -1:]
    return values.reshape(*values.shape[:2], -1).astype(np.float32), None


def convolve(pixels: Array, kernel: Array) -> Array:
    """Each channel with each matrix; the length of the vector where there are several.

    Parameters
    ----------
    pixels : float32 [row, column, channel]
    kernel : float32 [matrix, row, column]
    """
    channels = pixels.shape[2]
    matrices, rows, columns = kernel.shape
    weight = np.tile(kernel, (channels, 1, 1))[:, None]
    result = convolith.conv2d(
        np.ascontiguousarray(pixels),
        weight,
        padding=(((rows - 1) // 2, rows // 2), ((columns - 1) // 2, columns // 2)),
        groups=channels,
        data_format="channels_last",
        padding_mode="replicate",
    )
    if matrices == 1:
        return np.asarray(result)
    vectors = result.reshape(*result.shape[:2], channels, matrices)
    return np.asarray(np.sqrt(np.sum(vectors * vectors, axis=3)))
