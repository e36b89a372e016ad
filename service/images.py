"""Owns the way from an image file's bytes to one row of a model's input, exactly as Keras does it.

The steps are keras.utils.load_img and img_to_array (keras/src/utils/image_utils.py, Keras 3.15) on the same
Pillow calls in the same order, so the pixels are equal bit for bit; then `preprocess`. Like Keras it ignores
EXIF orientation unless `exif_orientation` asks for it (TIFF is turned by Pillow itself, in Keras as well),
takes the first frame of an animation, and lets a 16-bit grey picture keep its 0..65535 where the input is grey.

Two settings go beyond load_img. `resize = "pad"` has the geometry of tf.image.resize_with_pad with the
filters of Pillow: the whole picture in the middle, zeros (with alpha: transparent) around it; with `nearest`
the pixels are the same too, but for samples on the very edge of two. `decode = "fast"` lets the JPEG decoder
scale by 1/2, 1/4 or 1/8 where the picture is at least twice the input in both axes: other pixels, sooner.

It knows neither HTTP nor files' names. Many threads may decode at a time; Pillow's flags are read, never set.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageFile, ImageOps, UnidentifiedImageError
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

from service.errors import BodyTooLarge, ImageTooLarge, MemoryFull, RepositoryError, UndecodableImage
from service.memory import paid
from service.model_config import PreprocessConfig
from service.picture_structure import check_parts, check_work, is_progressive
from service.preprocess import active_settings, cast, check, preprocess
from service.tensors import Array, TensorSpec

# Asked for a format that it has not imported, Pillow imports all of its plugins. With these six here it never
# has to: threads do not race to import, and nothing is loaded that starts a program (EPS calls Ghostscript).
_FORMATS = tuple(
    plugin.format
    for plugin in (JpegImageFile, PngImageFile, WebPImageFile, GifImageFile, BmpImageFile, TiffImageFile)
)
_CHANNELS = {1: "grayscale", 3: "rgb", 4: "rgba"}
_ONE_BYTE = ("1", "L", "P")
_DECODER_BYTES = {"WEBP": 12, "GIF": 4}  # a pixel, beside what it is stored in
_COEFFICIENT_BYTES = 6
_FITTED_BYTES = 16  # a pixel of the result: resized, and as an array
_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "hamming": Image.Resampling.HAMMING,
    "box": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True, slots=True)
class ImageInput:
    """A model's input that takes pictures.

    Args:
        name: the input's name.
        height: rows of pixels; `None`: as many as the picture has.
        width: pixels a row; `None`: as many as the picture has.
        channels: 1 (grey), 3 (R, G, B) or 4 (R, G, B, alpha).
        channels_first: a row is (C, H, W), not (H, W, C).
        dtype: of the input, numpy's name.
        config: the model's `[preprocess]`.
        flat: the input has no channel axis; a row is (H, W), grey.
    """

    name: str
    height: int | None
    width: int | None
    channels: int
    channels_first: bool
    dtype: str
    config: PreprocessConfig
    flat: bool = False

    @property
    def color_mode(self) -> str:
        """The word for `channels` in load_img: grayscale, rgb or rgba."""
        return _CHANNELS[self.channels]


def image_input(spec: TensorSpec, config: PreprocessConfig) -> ImageInput | None:
    """How pictures fit this input, or `None` where they do not.

    Pictures fit numbers of rank 4 with 1, 3 or 4 channels on the last axis, or else on axis 1; and numbers
    of rank 3, (N, H, W), where the configuration says `color_mode = "grayscale"` in so many words.

    Raises:
        RepositoryError: the configuration contradicts the input.
    """
    if spec.dtype == "string" or np.dtype(spec.dtype).kind not in "iuf":
        return None
    match spec.shape:
        case (_, height, width, (1 | 3 | 4) as channels):
            target = ImageInput(spec.name, height, width, channels, False, spec.dtype, config)
        case (_, (1 | 3 | 4) as channels, height, width):
            target = ImageInput(spec.name, height, width, channels, True, spec.dtype, config)
        case (_, height, width) if config.color_mode == "grayscale":
            target = ImageInput(spec.name, height, width, 1, False, spec.dtype, config, flat=True)
        case _:
            return None
    if config.color_mode not in {None, target.color_mode}:
        raise RepositoryError(
            f"Expected color_mode '{target.color_mode}' in [preprocess], or none, as input '{spec.name}' has "
            f"shape {spec.shape}. Received: '{config.color_mode}'."
        )
    check(config, target.channels, spec.dtype, spec.name)
    return target


def prepare(data: bytes | memoryview, target: ImageInput, *, max_pixels: int) -> Array:
    """One row of the input, from the bytes of a JPEG, PNG, GIF, BMP, WebP or TIFF file.

    Preprocessing runs in float32, as Keras' floatx; its result is then cast to the input's dtype. An input of
    whole numbers has no preprocessing and gets the pixel values themselves, as `img_to_array(dtype=...)`
    gives them, as long as they fit.

    Args:
        data: the whole file.
        target: the input, from `image_input`.
        max_pixels: width times height at most, by the header, before anything is decoded. Above Pillow's own
            limit (`PIL.Image.MAX_IMAGE_PIXELS`, 89 million unless someone changed it) that one counts.

    Returns:
        (H, W, C), (C, H, W) or (H, W) as the input has it, in its dtype, C-contiguous, perhaps read-only.
        Before preprocessing R, G, B in 0..255; grey up to 65535 from 16-bit pictures.

    Raises:
        UndecodableImage: not an image of these formats, damaged, cut off, or with values that do not fit the
            input's dtype.
        ImageTooLarge: more pixels than allowed, or more work.
        MemoryFull, BodyTooLarge: it needs more memory than the request may have (`service.memory`).
    """
    pixels = _decode(data, target, max_pixels)
    if pixels.ndim == 2:
        pixels = pixels[:, :, np.newaxis]
    if target.channels_first:
        pixels = pixels.transpose(2, 0, 1)
    if active_settings(target.config):
        pixels = preprocess(pixels.astype(np.float32), target.config, channels_first=target.channels_first)
    row = cast(pixels, target.dtype, target.name)
    return np.ascontiguousarray(row[:, :, 0] if target.flat else row)


def _decode(data: bytes | memoryview, target: ImageInput, max_pixels: int) -> Array:
    """(H, W) or (H, W, C) pixels of the target's size and colours, in Pillow's dtype, read-only."""
    if Image.MAX_IMAGE_PIXELS is not None:
        max_pixels = min(max_pixels, Image.MAX_IMAGE_PIXELS)
    kind = "image"
    check_parts(data)
    try:
        with Image.open(io.BytesIO(data), formats=_FORMATS) as picture:
            kind = f"{picture.format} of {picture.width} x {picture.height} pixels"
            _limit(*picture.size, max_pixels)
            check_work(picture, data)
            with paid(_bytes_to_decode(picture, target), f"an {kind}"):
                coloured = _convert(_orient(picture, target), target.color_mode)
                return np.asarray(_fit(coloured, target))
    except (UndecodableImage, MemoryFull, BodyTooLarge):
        raise
    except UnidentifiedImageError as error:
        opening = f" that start with {bytes(data[:12])!r}" if len(data) else ""
        raise UndecodableImage(
            f"Expected a picture in {', '.join(_FORMATS[:-1])} or {_FORMATS[-1]} format. "
            f"Received: {len(data)} bytes{opening}."
        ) from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageTooLarge(
            f"Expected a picture of at most {max_pixels} pixels. Received: one that claims more."
        ) from error
    except Exception as error:  # decoders raise whatever hostile bytes lead them to
        raise UndecodableImage(
            f"Expected a whole and sound picture. Received: {kind} that does not decode "
            f"({type(error).__name__}: {error})."
        ) from error


def _bytes_to_decode(picture: ImageFile.ImageFile, target: ImageInput) -> int:
    """The most bytes that are in use at once while a picture is decoded, converted and fitted.

    Pillow stores a pixel of several colours in 4 bytes, of one in as many as it needs; a WebP's decoder has the file's
    frame and two canvases, a progressive JPEG's all coefficients.
    """
    stored = 1 if picture.mode in _ONE_BYTE else 4
    converted = 0 if picture.mode == _mode(target.color_mode) else 4 if target.channels > 1 else 1
    decoder = _DECODER_BYTES.get(picture.format or "", 0)
    if is_progressive(picture):
        decoder = _COEFFICIENT_BYTES
    elif picture.format == "TIFF":
        decoder = stored  # a strip may be all of it
    width, height = _target_size(picture.size, target)
    return (
        picture.width * picture.height * (stored + max(converted, decoder)) + _FITTED_BYTES * width * height
    )


def _limit(width: int, height: int, max_pixels: int) -> None:
    if width * height > max_pixels:
        raise ImageTooLarge(
            f"Expected a picture of at most {max_pixels} pixels. "
            f"Received: {width} x {height} = {width * height} pixels."
        )


def _orient(picture: ImageFile.ImageFile, target: ImageInput) -> Image.Image:
    """The picture, not yet decoded unless it has to be turned; a fast decode is arranged here."""
    turn = target.config.exif_orientation
    if target.config.decode == "fast" and isinstance(picture, JpegImageFile):
        size = _target_size(picture.size, target)
        if turn and picture.getexif().get(ExifTags.Base.Orientation, 1) >= 5:  # 5 to 8 swap the axes
            size = _target_size(picture.size[::-1], target)[::-1]
        picture.draft(None, size)
    if turn:
        ImageOps.exif_transpose(picture, in_place=True)
    return picture


def _convert(picture: Image.Image, color_mode: str) -> Image.Image:
    mode = _mode(color_mode)
    if picture.mode == mode or (mode == "L" and picture.mode in {"I;16", "I"}):
        return picture
    if mode != "RGBA":
        picture.load()
        if isinstance(picture.info.get("transparency"), bytes):
            # Alpha per palette entry is dropped by the conversion; gone before, Pillow does not warn.
            del picture.info["transparency"]
    return picture.convert(mode)


def _mode(color_mode: str) -> str:
    """Pillow's word for Keras' color_mode."""
    return "L" if color_mode == "grayscale" else color_mode.upper()


def _target_size(size: tuple[int, int], target: ImageInput) -> tuple[int, int]:
    width, height = size
    return target.width or width, target.height or height


def _fit(picture: Image.Image, target: ImageInput) -> Image.Image:
    """The picture resized to the input's (width, height), untouched where it has them already."""
    size = _target_size(picture.size, target)
    if picture.size == size:
        return picture
    resample = _FILTERS[target.config.interpolation]
    if target.config.resize == "crop":
        return picture.resize(size, resample, _crop_box(picture.size, size))
    if target.config.resize == "pad":
        left, upper, right, lower = _inner_box(picture.size, size)
        canvas = Image.new(picture.mode, size)
        canvas.paste(picture.resize((right - left, lower - upper), resample), (left, upper))
        return canvas
    return picture.resize(size, resample)


def _crop_box(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int, int, int]:
    """The largest centred part with the wanted aspect ratio: left, upper, right, lower, in pixels."""
    width, height = size
    crop_width = min(width, height * wanted[0] // wanted[1])
    crop_height = min(height, width * wanted[1] // wanted[0])
    if not crop_width or not crop_height:
        raise UndecodableImage(
            f"Expected a picture that can be cropped to {wanted[0]} x {wanted[1]} pixels. "
            f"Received: {width} x {height} pixels."
        )
    left, upper = (width - crop_width) // 2, (height - crop_height) // 2
    return left, upper, left + crop_width, upper + crop_height


def _inner_box(size: tuple[int, int], wanted: tuple[int, int]) -> tuple[int, int, int, int]:
    """Where a picture lies once padded to the wanted size: left, upper, right, lower, in pixels.

    In float32 with its roundings, so that it is tf.image.resize_with_pad's place to the pixel
    (tensorflow/python/ops/image_ops_impl.py); a side that would vanish there keeps one pixel.
    """
    sides, frame = np.array(size, np.float32), np.array(wanted, np.float32)
    inner = sides / np.max(sides / frame)
    left, upper = np.maximum(0, np.floor((frame - inner) / 2)).astype(int).tolist()
    width, height = np.maximum(1, np.floor(inner)).astype(int).tolist()
    return left, upper, left + width, upper + height
