"""Seeded specimens of widely different kinds, drawn on a torus so that a stage may move for ever.

Sizes are in um. The sharp layer lies at offset 0; haze, thickness and debris are further layers
around it, balanced so that the sharpest plane stays at 0. Brightness is relative: the renderer
turns it into photons.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import fft

Image = NDArray[np.float32]
Modality = Literal["fluorescence", "brightfield"]


@dataclass(frozen=True)
class Specimen:
    """Thin layers of light or matter.

    Attributes
    ----------
    layers : tuple of (float, ndarray of shape (height, width), float32 >= 0)
        Offset from the plane in focus in um (positive: in focus at a larger z), and what is there:
        relative brightness (fluorescence) or an amount of matter (brightfield).
    kind : str
        The name it was made by.
    modality : "fluorescence" or "brightfield"
    density, phase_rad : float
        Brightfield only: optical density (natural logarithm) and phase (rad) of a unit of matter.
    """

    layers: tuple[tuple[float, Image], ...]
    kind: str
    modality: Modality
    density: float = 0.0
    phase_rad: float = 0.0

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width in pixels."""
        height, width = self.layers[0][1].shape
        return height, width


def make_specimen(
    kind: str, *, shape: tuple[int, int], pixel_size_um: float, rng: np.random.Generator
) -> Specimen:
    """Draw one specimen; every draw differs in size, number, texture and contrast.

    Parameters
    ----------
    kind : str
        One of `KINDS`.
    shape : (int, int)
        Height and width in pixels; the picture continues at the opposite edge.
    pixel_size_um : float
        Pixel in the specimen, um.
    rng : numpy.random.Generator
        The only source of randomness.

    Raises
    ------
    ValueError
        For an unknown kind; the message lists them.
    """
    if kind not in KINDS:
        raise ValueError(f"unknown specimen kind {kind!r}; known are {', '.join(KINDS)}")
    return KINDS[kind](_Canvas(shape, pixel_size_um, rng))


def make_dust(
    *, shape: tuple[int, int], pixel_size_um: float, fine: bool, rng: np.random.Generator
) -> Image:
    """Draw dirt alone, 1 where it is bright: a few specks and fibres, or many fine grains.

    Parameters
    ----------
    shape, pixel_size_um, rng
        As of `make_specimen`.
    fine : bool
        Grains instead of the specks and fibres that the kind ``debris`` has.

    Returns
    -------
    ndarray of shape (height, width), float32
    """
    draw = _draw_fine_dirt if fine else _draw_dirt
    return _level(draw(_Canvas(shape, pixel_size_um, rng)))


class _Canvas:
    """Drawing tools in um on a torus of pixels."""

    def __init__(
        self, shape: tuple[int, int], pixel_size_um: float, rng: np.random.Generator
    ) -> None:
        self.shape, self.pixel_um, self.rng = shape, pixel_size_um, rng
        self.area_um2 = shape[0] * shape[1] * pixel_size_um**2
        fy = fft.fftfreq(shape[0], pixel_size_um)[:, None]
        fx = fft.rfftfreq(shape[1], pixel_size_um)[None, :]
        self._frequency = np.hypot(fy, fx).astype(np.float32)

    def blank(self) -> Image:
        return np.zeros(self.shape, np.float32)

    def between(self, low: float, high: float) -> float:
        """Log-uniform: every octave is equally likely."""
        return float(np.exp(self.rng.uniform(math.log(low), math.log(high))))

    def count(self, coverage: float, size_um: float, *, most: int = 400) -> int:
        """How many things of this size cover this share of the field, at least one."""
        mean = coverage * self.area_um2 / (size_um**2)
        return int(np.clip(self.rng.poisson(mean), 1, most))

    def anywhere(self, count: int) -> NDArray[np.float64]:
        """Positions (count, 2) in pixels."""
        return self.rng.uniform(0, 1, (count, 2)) * self.shape

    def clustered(self, count: int, spread_um: float) -> NDArray[np.float64]:
        """Positions (count, 2) around a few centres."""
        centres = self.anywhere(int(self.rng.integers(1, 6)))
        chosen = centres[self.rng.integers(0, len(centres), count)]
        return chosen + self.rng.normal(0, spread_um / self.pixel_um, (count, 2))

    def blur(self, image: Image, sigma_um: float) -> Image:
        transfer = np.exp(-2 * (math.pi * sigma_um * self._frequency) ** 2)
        blurred = fft.irfft2(fft.rfft2(image) * transfer, s=self.shape)
        return np.maximum(blurred, 0).astype(np.float32)

    def noise(self, size_um: float, *, roughness: float = 0.0) -> Image:
        """Random field of unit variance with grains of ``size_um``; roughness 0..1 adds detail."""
        spectrum = fft.rfft2(self.rng.standard_normal(self.shape, dtype=np.float32))
        f = self._frequency * size_um
        spectrum *= (1 - roughness) * np.exp(-((2 * f) ** 2)) + roughness / (1 + (4 * f) ** 2)
        spectrum[0, 0] = 0
        field = fft.irfft2(spectrum, s=self.shape).astype(np.float32)
        return field / max(float(field.std()), 1e-9)

    def stamp(self, image: Image, patch: Image, at: NDArray[np.float64], *, add: bool) -> None:
        """Put ``patch`` at (y, x), around the edges; add to what is there or keep the larger."""
        height, width = (min(a, b) for a, b in zip(patch.shape, self.shape, strict=True))
        patch = patch[:height, :width]
        rows = (int(at[0]) - height // 2 + np.arange(height)) % self.shape[0]
        columns = (int(at[1]) - width // 2 + np.arange(width)) % self.shape[1]
        here = np.ix_(rows, columns)
        image[here] = image[here] + patch if add else np.maximum(image[here], patch)

    def splat(self, points: NDArray[np.float64], weights: NDArray[np.float64]) -> Image:
        """Deposit point sources between pixels (bilinear), shape (n, 2) in pixels."""
        floor = np.floor(points).astype(np.int64)
        part = points - floor
        total = np.zeros(self.shape[0] * self.shape[1])
        for dy in (0, 1):
            for dx in (0, 1):
                share = np.abs(1 - dy - part[:, 0]) * np.abs(1 - dx - part[:, 1])
                row, column = (floor[:, 0] + dy) % self.shape[0], (floor[:, 1] + dx) % self.shape[1]
                index = row * self.shape[1] + column
                total += np.bincount(index, weights * share, minlength=total.size)
        return total.reshape(self.shape).astype(np.float32)

    def blob(self, length_um: float, width_um: float, irregularity: float) -> Image:
        """One rounded, irregular body: signed depth below its outline, in pixels (0 outside)."""
        a, b = length_um / 2 / self.pixel_um, width_um / 2 / self.pixel_um
        reach = int(1.4 * max(a, b)) + 3
        y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1].astype(np.float32)
        turn = self.rng.uniform(0, math.pi)
        u = (x * math.cos(turn) + y * math.sin(turn)) / a
        v = (y * math.cos(turn) - x * math.sin(turn)) / b
        angle = np.arctan2(v, u)
        outline = np.ones_like(u)
        for order in range(2, 7):
            amount = irregularity * self.rng.normal() / order
            outline += amount * np.cos(order * angle + self.rng.uniform(0, 2 * math.pi))
        depth = (np.clip(outline, 0.4, 1.4) - np.hypot(u, v)) * min(a, b)
        return np.maximum(depth + 0.5, 0)

    def random_walks(
        self, count: int, length_um: float, persistence_um: float
    ) -> NDArray[np.float64]:
        """Worm-like chains: points (count, steps, 2) in pixels, half a pixel apart."""
        steps = int(np.clip(2 * length_um / self.pixel_um, 8, 3000))
        bend = math.sqrt(0.5 * self.pixel_um / persistence_um)
        turns = self.rng.normal(0, bend, (count, steps))
        angle = self.rng.uniform(0, 2 * math.pi, (count, 1)) + np.cumsum(turns, axis=1)
        moves = 0.5 * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        return self.anywhere(count)[:, None, :] + np.cumsum(moves, axis=1)


def _level(image: Image) -> Image:
    """Scale to 1 where the structure is bright, however small a share of the field it is."""
    total = float(image.sum())
    return image if total <= 0 else image / (float((image**2).sum()) / total)


def _soft(depth: Image, edge_px: float = 1.0) -> Image:
    return np.clip(depth / edge_px, 0, 1)


def _dome(depth: Image) -> Image:
    """Thickness of a rounded body, 0..1."""
    peak = max(float(depth.max()), 1e-6)
    return np.sqrt(np.clip(depth / peak, 0, 1) * (2 - np.clip(depth / peak, 0, 1)))


def _with_haze(canvas: _Canvas, sharp: Image, kind: str, *, most: float = 0.5) -> Specimen:
    """Fluorescence with faint light from above and below, as any thick specimen has."""
    sharp = _level(sharp)
    if canvas.rng.random() < 0.35:
        return Specimen(((0.0, sharp),), kind, "fluorescence")
    amount = canvas.rng.uniform(0.02, most) / 2
    away_um = canvas.between(3.0, 20.0)
    layers = [(0.0, sharp)]
    for side in (-1, 1):
        shift = tuple(int(s) for s in canvas.rng.integers(0, canvas.shape))
        elsewhere = np.roll(sharp, shift, axis=(0, 1))
        haze = canvas.blur(elsewhere, canvas.between(0.6, 4.0))
        layers.append((side * away_um, (amount * haze).astype(np.float32)))
    return Specimen(tuple(layers), kind, "fluorescence")


def _chromatin(canvas: _Canvas) -> Image:
    """Texture 0..1 of a whole field, from smooth to strongly granular."""
    fine = canvas.noise(canvas.between(0.4, 1.6), roughness=canvas.rng.uniform(0, 0.5))
    coarse = canvas.noise(canvas.between(1.5, 5.0))
    contrast = canvas.rng.uniform(0.08, 0.55)
    return np.clip(np.exp(contrast * (0.8 * fine + 0.5 * coarse)) / 2, 0.05, 3).astype(np.float32)


def _draw_nuclei(canvas: _Canvas) -> Image:
    rng, size_um = canvas.rng, canvas.between(5.0, 20.0)
    spread, irregularity = rng.uniform(0.05, 0.35), rng.uniform(0.0, 0.25)
    elongation, brightness = rng.uniform(1.0, 1.7), rng.uniform(0.1, 0.7)
    count = canvas.count(canvas.between(0.03, 0.5), size_um)
    places = canvas.clustered(count, 4 * size_um) if rng.random() < 0.3 else canvas.anywhere(count)
    field, texture, nucleolus = canvas.blank(), _chromatin(canvas), rng.random() < 0.6
    rounded = rng.uniform(0, 1)
    for place in places:
        length = size_um * max(0.4, rng.normal(1, spread)) * math.sqrt(elongation)
        depth = canvas.blob(length, length / elongation, irregularity)
        body = _soft(depth) * ((1 - rounded) + rounded * _dome(depth))
        if rng.random() < 0.05:  # in division: small, condensed, bright
            body = 2.5 * _soft(canvas.blob(length * 0.9, length * 0.3, 0.3))
        elif nucleolus:
            body = _with_holes(canvas, body, length)
        canvas.stamp(field, body * np.float32(rng.lognormal(0, brightness)), place, add=False)
    return field * texture


def _with_holes(canvas: _Canvas, body: Image, length_um: float) -> Image:
    body = body.copy()
    middle = np.array(body.shape) / 2
    for _ in range(int(canvas.rng.integers(0, 5))):
        hole = _soft(
            canvas.blob(length_um * canvas.rng.uniform(0.08, 0.25), length_um * 0.15, 0.2), 2
        )
        reach = length_um / canvas.pixel_um / 4
        y, x = (middle + canvas.rng.uniform(-reach, reach, 2)).astype(int) - np.array(
            hole.shape
        ) // 2
        y0, x0 = max(y, 0), max(x, 0)
        here = body[y0 : y + hole.shape[0], x0 : x + hole.shape[1]]
        here *= 1 - 0.7 * hole[: here.shape[0], : here.shape[1]]
    return body


def _nuclei(canvas: _Canvas) -> Specimen:
    field = _draw_nuclei(canvas)
    if canvas.rng.random() < 0.4:  # unspecific staining of the cytoplasm
        field = field + canvas.rng.uniform(0.02, 0.2) * canvas.blur(field, canvas.between(2, 8))
    return _with_haze(canvas, field, "nuclei")


def _draw_filaments(canvas: _Canvas) -> Image:
    rng = canvas.rng
    length_um, persistence_um = canvas.between(10, 120), canvas.between(3, 200)
    total_um = canvas.between(0.02, 0.5) * canvas.area_um2 / 2
    count = int(np.clip(total_um / length_um, 2, 250))
    walks = canvas.random_walks(count, length_um, persistence_um)
    if rng.random() < 0.5:  # growing out of a few cell centres
        centres = canvas.clustered(count, canvas.between(0.5, 10))
        walks += (centres - walks[:, 0])[:, None, :]
    weights = np.repeat(rng.lognormal(0, rng.uniform(0.1, 0.8), count), walks.shape[1])
    line = canvas.splat(walks.reshape(-1, 2), weights)
    line = canvas.blur(line, canvas.between(0.05, 0.5))
    if rng.random() < 0.4:
        line *= np.clip(1 + 0.5 * canvas.noise(canvas.between(0.5, 3)), 0.1, 3)
    return line


def _filaments(canvas: _Canvas) -> Specimen:
    return _with_haze(canvas, _draw_filaments(canvas), "filaments")


def _draw_puncta(canvas: _Canvas, *, density_per_um2: float) -> Image:
    rng = canvas.rng
    count = int(np.clip(rng.poisson(density_per_um2 * canvas.area_um2), 3, 4000))
    places = canvas.clustered(count, canvas.between(3, 30)) if rng.random() < 0.5 else None
    places = canvas.anywhere(count) if places is None else places
    spots = canvas.splat(places, rng.lognormal(0, rng.uniform(0.1, 1.0), count))
    return canvas.blur(spots, canvas.between(0.05, 0.6))


def _puncta(canvas: _Canvas) -> Specimen:
    spots = _level(_draw_puncta(canvas, density_per_um2=canvas.between(0.0008, 0.05)))
    if canvas.rng.random() < 0.5:  # cytoplasm between them
        glow = np.clip(canvas.noise(canvas.between(8, 30)), 0, 2)
        spots = spots + (canvas.rng.uniform(0.02, 0.25) * glow).astype(np.float32)
    return _with_haze(canvas, spots, "puncta", most=0.3)


def _beads(canvas: _Canvas) -> Specimen:
    rng, field = canvas.rng, canvas.blank()
    for _ in range(int(rng.integers(1, 3))):
        size_um = canvas.between(max(0.2, canvas.pixel_um / 2), max(6.0, 4 * canvas.pixel_um))
        bead = _dome(canvas.blob(size_um, size_um, 0.0))
        for place in canvas.anywhere(canvas.count(canvas.between(0.001, 0.08), size_um)):
            canvas.stamp(field, bead * np.float32(rng.lognormal(0, 0.15)), place, add=True)
    return Specimen(((0.0, _level(field)),), "beads", "fluorescence")


def _draw_cells(canvas: _Canvas) -> tuple[Image, list[NDArray[np.float64]]]:
    """Draw cells of several sizes, some in division: thickness 0..1, and where they are."""
    rng, field = canvas.rng, canvas.blank()
    size_um = canvas.between(max(1.5, 4 * canvas.pixel_um), max(25.0, 8 * canvas.pixel_um))
    elongation, dividing = canvas.between(1.0, 4.0), rng.uniform(0.0, 0.5)
    irregularity = rng.uniform(0, 0.12)
    places = list(canvas.anywhere(canvas.count(canvas.between(0.03, 0.4), size_um)))
    for place in places:
        length = size_um * canvas.between(0.5, 1.6)
        body = _dome(canvas.blob(length, length / elongation, irregularity))
        canvas.stamp(field, body, place, add=False)
        if rng.random() < dividing:  # a daughter of any size, touching
            bud = length * rng.uniform(0.4, 1.0)
            away = (length + bud) / 2.3 / canvas.pixel_um / math.sqrt(elongation)
            turn = rng.uniform(0, 2 * math.pi)
            beside = place + away * np.array([math.sin(turn), math.cos(turn)])
            canvas.stamp(field, _dome(canvas.blob(bud, bud / elongation, 0.05)), beside, add=False)
    return field, places


def _cells(canvas: _Canvas) -> Specimen:
    rng = canvas.rng
    thickness, _ = _draw_cells(canvas)
    inside = thickness > 0.02
    texture = np.clip(1 + rng.uniform(0.05, 0.5) * canvas.noise(canvas.between(0.3, 3)), 0.05, 3)
    staining = rng.random()
    if staining < 0.35:  # membrane: bright where the body is thin
        rim = np.where(inside, np.exp(-6 * thickness), 0).astype(np.float32)
        field = rim + np.float32(rng.uniform(0.02, 0.3)) * thickness * texture
    elif staining < 0.7:  # organelles
        spots = _draw_puncta(canvas, density_per_um2=canvas.between(0.05, 1.0))
        field = thickness * (np.float32(rng.uniform(0.05, 0.5)) + spots / max(spots.max(), 1e-6))
    else:
        field = thickness * texture
    return _with_haze(canvas, field.astype(np.float32), "cells")


def _draw_tissue_layer(canvas: _Canvas, size_um: float) -> Image:
    """Dense structure without gaps: fibres, cell bodies and fine grains in any proportion."""
    rng = canvas.rng
    grains = np.exp(rng.uniform(0.3, 0.9) * canvas.noise(size_um / 3, roughness=0.4))
    bodies = np.clip(canvas.noise(size_um) - rng.uniform(-0.3, 0.8), 0, 1.5)
    fibres = np.exp(-np.abs(canvas.noise(1.5 * size_um)) / rng.uniform(0.05, 0.25))
    shares = rng.dirichlet([1, 1, 1])
    return (grains * (0.3 * shares[0] + shares[1] * bodies + shares[2] * fibres)).astype(np.float32)


def _tissue(canvas: _Canvas) -> Specimen:
    rng, size_um = canvas.rng, canvas.between(3, 12)
    thickness_um, fall_off = canvas.between(2, 20), rng.uniform(0.3, 0.8)
    layers = [(0.0, _level(_draw_tissue_layer(canvas, size_um)))]
    for step in (1, 2):
        weight = np.float32(fall_off**step / 2)
        for side in (-1, 1):
            layer = _level(_draw_tissue_layer(canvas, size_um))
            layers.append((side * step * thickness_um / 4, weight * layer))
    return Specimen(tuple(layers), "tissue", "fluorescence")


def _absorption(canvas: _Canvas) -> Specimen:
    """Stained section or smear in transmitted light."""
    rng, style = canvas.rng, canvas.rng.random()
    matter = canvas.blank()
    if style < 0.75:
        matter = np.minimum(_draw_nuclei(canvas), 2)
    if style > 0.4:
        tissue = _draw_tissue_layer(canvas, canvas.between(3, 12))
        matter = matter + np.float32(rng.uniform(0.2, 0.6)) * _level(tissue)
    if rng.random() < 0.3:  # pigment
        matter = matter + 2 * _level(
            _draw_puncta(canvas, density_per_um2=canvas.between(0.001, 0.05))
        )
    # The mounting medium hides the refraction of a section: its best plane is its middle.
    density = canvas.between(0.1, 1.2)
    phase_rad = density * rng.uniform(0, 0.1)
    matter = np.minimum(_level(matter), 3)
    return Specimen(((0.0, matter),), "absorption", "brightfield", density, phase_rad)


def _phase(canvas: _Canvas) -> Specimen:
    """Unstained cells: they delay the light and hardly absorb it."""
    rng = canvas.rng
    thickness, _ = _draw_cells(canvas)
    grains = canvas.noise(canvas.between(0.4, 2.0), roughness=rng.uniform(0, 0.5))
    matter = thickness * np.clip(1 + rng.uniform(0.05, 0.35) * grains, 0, 2)
    if rng.random() < 0.6:  # vesicles
        spots = _draw_puncta(canvas, density_per_um2=canvas.between(0.01, 0.3))
        matter = matter + rng.uniform(0.1, 0.5) * thickness * spots / max(spots.max(), 1e-6)
    matter = matter.astype(np.float32)
    density = rng.uniform(0.0, 0.03)
    return Specimen(((0.0, matter),), "phase", "brightfield", density, canvas.between(0.3, 2.0))


def _draw_dirt(canvas: _Canvas) -> Image:
    """A few specks and fibres, longer than wide."""
    rng, dirt = canvas.rng, canvas.blank()
    for _ in range(int(rng.integers(2, 12))):
        _add_speck(canvas, dirt, canvas.between(2, 15), narrowest=0.2, irregularity=0.3, spread=0.6)
    fibres = canvas.random_walks(int(rng.integers(1, 4)), canvas.between(20, 150), 100)
    dirt += canvas.splat(fibres.reshape(-1, 2), np.full(fibres.shape[0] * fibres.shape[1], 0.5))
    return dirt


def _draw_fine_dirt(canvas: _Canvas) -> Image:
    """Many grains, most of them small, as on glass that was wiped dry."""
    dirt = canvas.blank()
    for _ in range(int(canvas.rng.integers(10, 80))):
        size_um = max(canvas.between(0.2, 8), canvas.pixel_um)  # a smaller one would be as large
        _add_speck(canvas, dirt, size_um, narrowest=0.5, irregularity=0.2, spread=0.4)
    return dirt


def _add_speck(
    canvas: _Canvas,
    dirt: Image,
    size_um: float,
    *,
    narrowest: float,
    irregularity: float,
    spread: float,
) -> None:
    """One, anywhere; ``narrowest`` is its least width as a share, ``spread`` of its brightness."""
    width_um = size_um * canvas.rng.uniform(narrowest, 1)
    speck = _soft(canvas.blob(size_um, width_um, irregularity))
    brightness = np.float32(canvas.rng.lognormal(0, spread))
    canvas.stamp(dirt, speck * brightness, canvas.anywhere(1)[0], add=False)


def _debris(canvas: _Canvas) -> Specimen:
    """A fluorescent specimen with dust and fibres on another plane, up to as bright as itself."""
    rng = canvas.rng
    draw: Callable[[_Canvas], Image] = (_draw_nuclei, _draw_filaments)[int(rng.integers(0, 2))]
    dirt = _draw_dirt(canvas)
    away_um = float(rng.choice([-1, 1])) * canvas.between(8, 40)
    amount = np.float32(rng.uniform(0.1, 0.6))
    layers = ((0.0, _level(draw(canvas))), (away_um, amount * _level(dirt)))
    return Specimen(layers, "debris", "fluorescence")


def _empty(canvas: _Canvas) -> Specimen:
    return Specimen(((0.0, canvas.blank()),), "empty", "fluorescence")


def _empty_brightfield(canvas: _Canvas) -> Specimen:
    return Specimen(((0.0, canvas.blank()),), "empty_brightfield", "brightfield")


KINDS: dict[str, Callable[[_Canvas], Specimen]] = {
    "nuclei": _nuclei,
    "filaments": _filaments,
    "puncta": _puncta,
    "cells": _cells,
    "tissue": _tissue,
    "beads": _beads,
    "absorption": _absorption,
    "phase": _phase,
    "debris": _debris,
    "empty": _empty,
    "empty_brightfield": _empty_brightfield,
}
