"""Data that is computed here: samples of an exact teacher, pictures of the Gallery, and scikit-learn's digits."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from scoredistill.data.source import ImageSource, Item, floats
from scoredistill.ranges import require, require_rising
from scoredistill.rendering.camera import Camera
from scoredistill.teachers.analytic import GaussianMixture
from scoredistill.teachers.gallery import Gallery


class TeacherSamples(ImageSource):
    """Independent samples of an exact mixture, in a fixed set or without end.

    Args:
        teacher: the mixture; if it has labels, the class of a sample is that of its component.
        count: size of the fixed set, >= 1; None: each draw returns new samples.
        seed: seed of the fixed set, in [0, 2^32).

    Raises:
        ValueError: if count is not positive.
    """

    flippable = False

    def __init__(self, teacher: GaussianMixture, count: int | None = None, seed: int = 0) -> None:
        require(">= 1", count=count)
        require("[0, 2^32)", seed=seed)
        super().__init__(teacher.shape, None if teacher.labels is None else int(teacher.labels.max()) + 1)
        self.teacher = teacher
        self.endless = count is None
        self._fixed = None if count is None else self._new(count, torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        if self._fixed is None:
            raise TypeError("TeacherSamples without a count has no end: use draw, or set count")
        return len(self._fixed[0])

    def __getitem__(self, index: int) -> Item:
        samples, labels = self.take(torch.tensor([self._checked(index)]))
        return samples[0], None if labels is None else int(labels[0])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        if self._fixed is None:
            raise TypeError("TeacherSamples without a count has no end: use draw, or set count")
        samples, labels = self._fixed
        return samples[indices], None if labels is None else labels[indices]

    def draw(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        return self._new(n, rng) if self._fixed is None else super().draw(n, rng)

    @torch.no_grad()
    def _new(self, n: int, rng: torch.Generator) -> tuple[Tensor, Tensor | None]:
        samples, component = self.teacher.sample(n, rng=rng)
        labels = None if self.teacher.labels is None else self.teacher.labels[component].cpu()
        return samples.cpu(), labels


class DigitImages(ImageSource):
    """scikit-learn's 1,797 handwritten digits, (1, 8, 8) in [-1, 1], with their labels 0 to 9.

    Raises:
        ImportError: if scikit-learn is not installed.
    """

    flippable = False

    def __init__(self) -> None:
        try:
            from sklearn.datasets import load_digits
        except ImportError as error:
            raise ImportError("DigitImages needs scikit-learn: install scoredistill[digits]") from error
        digits = load_digits()
        self.images = torch.as_tensor(digits.images, dtype=torch.float32)[:, None] / 8 - 1
        self.labels = torch.as_tensor(digits.target, dtype=torch.long)
        super().__init__(self.images.shape[1:], 10)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Item:
        index = self._checked(index)
        return self.images[index].to(torch.get_default_dtype()), int(self.labels[index])

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        return self.images[indices].to(torch.get_default_dtype()), self.labels[indices]


class GalleryImages(ImageSource):
    """Class-conditional pictures of the Gallery: the class is the index of the prompt.

    Picture i has class i mod P. Each random camera renders one prompt in as many pictures as the prompt has variants,
    each variant in proportion to its probability, that is once if they are equally likely. Azimuth and elevation are
    uniform. Pictures are rendered on first access and stored as 3 H W bytes each. They do not depend on the order of
    access.

    Args:
        prompts: P prompts, one per class; a view word in a prompt turns the cameras that contradict it.
        view_words: front, side, back or overhead: for each of these, all prompts with this view are P more classes.
        resolution: height and width in pixels, >= 1.
        count: number of pictures, >= 1.
        seed: seed of cameras and variants, in [0, 2^32).
        azimuth: range in degrees, in [-360, 720]; [0, 360] is a full circle, 0 the front.
        elevation: range in degrees, in [-90, 90].
        radius: distance of the cameras from the origin in world units, > 0.
        fov: vertical field of view in degrees, in (0, 180).
        background: color behind the object in [-1, 1].

    Raises:
        ValueError: if the gallery does not support a prompt, or there is no prompt or no picture.
    """

    def __init__(
        self,
        prompts: Sequence[str],
        resolution: int = 32,
        count: int = 4096,
        seed: int = 0,
        azimuth: tuple[float, float] = (0.0, 360.0),
        elevation: tuple[float, float] = (-10.0, 45.0),
        radius: float = 2.6,
        fov: float = 40.0,
        background: tuple[float, float, float] = (0.7, 0.7, 0.7),
        view_words: Sequence[str] = (),
    ) -> None:
        require(">= 1", resolution=resolution, count=count)
        require("[0, 2^32)", seed=seed)
        require("[-360, 720]", azimuth=azimuth)
        require("[-90, 90]", elevation=elevation)
        require("> 0", radius=radius)
        require("(0, 180)", fov=fov)
        require("[-1, 1]", background=background)
        require_rising(azimuth=azimuth, elevation=elevation)
        if isinstance(prompts, str) or not prompts:
            raise ValueError(f"prompts: expected a list of at least one prompt, got {prompts!r}")
        with_views = [f"{prompt}, {view} view" for view in view_words for prompt in prompts]
        self.prompts = (*prompts, *with_views)
        self.count = count
        super().__init__((3, resolution, resolution), len(self.prompts))
        self.gallery = Gallery(background=background, cache_bytes=0)
        self.gallery.check(self.prompts)
        self._weights = [self.gallery.weights(prompt) for prompt in self.prompts]
        # Explicit types, here float64 and below float32: the pictures must not depend on the default type.
        chance = torch.rand(count, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
        self._azimuth = azimuth[0] + (azimuth[1] - azimuth[0]) * chance[:, 0]
        self._elevation = elevation[0] + (elevation[1] - elevation[0]) * chance[:, 1]
        self._offset = chance[:, 2]
        self._radius = radius
        self._fov = fov
        self._pixels = torch.zeros(count, *self.shape, dtype=torch.uint8)
        self._done: set[tuple[int, int]] = set()

    @property
    def captions(self) -> tuple[str, ...]:
        return tuple(self.prompts[index % len(self.prompts)] for index in range(self.count))

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Item:
        label = self._render(self._checked(index))
        return floats(self._pixels[index]), label

    def take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        labels = torch.tensor([self._render(self._checked(index)) for index in indices.tolist()], dtype=torch.long)
        return floats(self._pixels[indices]), labels

    def contents(self) -> Iterator[bytes]:
        """The settings, which determine every picture: rendering all pictures would take as long as encoding them."""
        yield repr((self.prompts, self._radius, self._fov, self.gallery.settings)).encode()
        for values in (self._azimuth, self._elevation, self._offset):
            yield values.numpy().tobytes()

    def _render(self, index: int) -> int:
        """Render a picture and the others from its camera, if that was not done yet, and return its class."""
        row, label = divmod(index, len(self.prompts))
        variants = len(self._weights[label])
        camera = row // variants
        if (label, camera) not in self._done:
            rows = torch.arange(camera * variants, (camera + 1) * variants) * len(self.prompts) + label
            rows = rows[rows < self.count]
            self._pixels[rows] = self._pictures(label, int(rows[0]))[: len(rows)]
            self._done.add((label, camera))
        return label

    def _pictures(self, label: int, first: int) -> Tensor:
        """K pictures (K, 3, H, W) uint8 of a prompt from one camera, with the random numbers of picture `first`."""
        angles = [self._azimuth[first], self._elevation[first]]
        ends = [torch.tensor(value, dtype=torch.float64) for value in (self._radius, self._fov)]
        camera = Camera.orbit(*(value.float()[None] for value in (*angles, *ends)))
        rgb = self.gallery.renders(self.prompts[label], camera, *self.shape[1:]).rgb[0]
        weights = self._weights[label]
        # Systematic resampling: the expected number of pictures of each variant is K times its probability.
        places = (torch.arange(len(weights), dtype=torch.float64) + self._offset[first]) / len(weights)
        variant = torch.searchsorted(weights.cumsum(0), places, right=True).clamp(max=len(weights) - 1)
        return ((rgb[variant] + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
