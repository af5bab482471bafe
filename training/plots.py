"""The evaluation table as a picture."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

_SHOWN = {
    "coherence": "coherence",
    "shape_accuracy": "shape accuracy",
    "diversity": "diversity (bits)",
    "token_divergence": "token divergence (bits)",
}
_COLOURS = ("#c2703d", "#5b7f95", "#7a9a5c")


def draw_table(measured: Mapping[str, Any], path: Path) -> None:
    """Draw the metrics that must be seen together, one panel each, the parts of the table side by side.

    Args:
        measured: What `evaluate` returns.
        path: PNG file to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    parts = list(measured["table"])
    # A voice that cannot be asked about one part has a row without a bar there.
    rows = list(dict.fromkeys(row for part in parts for row in measured["table"][part]))
    figure = Figure(figsize=(11, 1.2 + 0.55 * len(rows)), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(_SHOWN), sharey=True)
    height = 0.8 / len(parts)
    for axis, (metric, title) in zip(axes, _SHOWN.items(), strict=True):
        for offset, part in enumerate(parts):
            found = measured["table"][part]
            cells = [found.get(row, {}).get(metric) or {"value": None} for row in rows]
            # What a voice was told is no achievement to draw.
            known = [i for i, cell in enumerate(cells) if cell["value"] is not None and not cell.get("given")]
            values = [cells[index]["value"] for index in known]
            below = [max(cells[i]["value"] - cells[i]["low"], 0) for i in known]
            above = [max(cells[i]["high"] - cells[i]["value"], 0) for i in known]
            axis.barh(
                [index + (offset - (len(parts) - 1) / 2) * height for index in known],
                values,
                height,
                xerr=[below, above],
                color=_COLOURS[offset % len(_COLOURS)],
                error_kw={"elinewidth": 0.8},
                label=f"{part} (n = {measured['windows'][part]})",
            )
        axis.set_title(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].invert_yaxis()
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(parts))
    figure.savefig(path, dpi=110, metadata={"Software": None})
