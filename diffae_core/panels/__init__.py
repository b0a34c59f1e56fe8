"""The interactive panels of the notebooks: controls above one picture, and a pure function from them to it."""

try:
    import anywidget  # noqa: F401
    import ipywidgets  # noqa: F401
except ImportError as error:
    raise ImportError('expected the packages of the extra "lab": pip install "diffae-core[lab]"') from error

from diffae_core.panels.base import Panel
from diffae_core.panels.blend import BlendPanel
from diffae_core.panels.canvas import Canvas
from diffae_core.panels.clue import CluePanel
from diffae_core.panels.denoiser import DenoiserPanel
from diffae_core.panels.filmstrip import FilmstripPanel
from diffae_core.panels.interpolation import InterpolationPanel
from diffae_core.panels.noise import NoisePanel
from diffae_core.panels.playground import Playground

__all__ = [
    "BlendPanel",
    "Canvas",
    "CluePanel",
    "DenoiserPanel",
    "FilmstripPanel",
    "InterpolationPanel",
    "NoisePanel",
    "Panel",
    "Playground",
]
