"""Looking inside networks: weights, maps, what excites a unit, dreams, errors and curves.

Pictures are matplotlib Figures, without pyplot's state: notebooks show them, `path=` writes them to
a file, and further drawing on them is matplotlib's. matplotlib is imported by the first picture;
`pip install 'convolith[viz]'` brings it.
"""

from convolith.viz._ascent import deep_dream, dreamed, maximize, maximized_input, unit_value
from convolith.viz._capture import capture, layer_output, module_named
from convolith.viz._exciting import Excitation, exciting_images, most_exciting
from convolith.viz._overview import overview
from convolith.viz._pictures import (
    activations,
    confusion_counts,
    confusion_matrix,
    filters,
    templates,
    training_curves,
)
from convolith.viz._receptive_field import receptive_field

__all__ = [
    "Excitation",
    "activations",
    "capture",
    "confusion_counts",
    "confusion_matrix",
    "deep_dream",
    "dreamed",
    "exciting_images",
    "filters",
    "layer_output",
    "maximize",
    "maximized_input",
    "module_named",
    "most_exciting",
    "overview",
    "receptive_field",
    "templates",
    "training_curves",
    "unit_value",
]
