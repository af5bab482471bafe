"""The Space's theme: system fonts, so that nothing is fetched from elsewhere."""

import gradio as gr

_SANS = [
    "ui-sans-serif",
    "system-ui",
    "-apple-system",
    "Segoe UI",
    "Liberation Sans",
    "Helvetica",
    "sans-serif",
]
_MONO = ["ui-monospace", "SFMono-Regular", "Menlo", "DejaVu Sans Mono", "monospace"]


def theme() -> gr.themes.Base:
    """Calm neutral ground, one indigo accent, soft corners."""
    return gr.themes.Base(
        primary_hue="indigo",
        secondary_hue="amber",
        neutral_hue="slate",
        radius_size="lg",
        spacing_size="md",
        font=_SANS,
        font_mono=_MONO,
    ).set(
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_background_fill="white",
        block_background_fill_dark="*neutral_900",
        body_text_color_subdued="*neutral_600",
        body_text_color_subdued_dark="*neutral_400",
        block_border_width="1px",
        block_shadow="none",
        button_primary_background_fill="*primary_600",
        button_primary_background_fill_hover="*primary_700",
        button_primary_text_color="white",
    )
