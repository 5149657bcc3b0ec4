"""The demo's web page, built with Gradio."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import gradio as gr
from markupsafe import escape

from grit_lightning.demo.answerer import LONGEST_QUESTION, Answerer
from grit_lightning.errors import UserError
from grit_lightning.report.completions import shown
from grit_lightning.report.page import completion_html, source
from grit_lightning.report.pictures import Pictures
from grit_lightning.system.printable import printable_lines

GREEDY, SAMPLED = "greedy", "sampled"

_SECONDS = 0.15
"""Seconds between two updates of a growing answer."""

_WAITING = 20
"""Questions that may wait for their turn; the model answers one at a time."""

STYLE = """
.completion{color:var(--fore)}
.demo-problem{color:#b3261e;font-weight:600}
@media (max-width:700px){.completion{grid-template-columns:1fr}}
"""


class Example(NamedTuple):
    """An example to choose: image file, question and reference answer."""

    image: str
    question: str
    reference: str


def build(answerer: Answerer, *, title: str, prompt: str, examples: Sequence[Example]) -> gr.Blocks:
    """Build the page.

    Args:
        answerer: answers the questions.
        title: name of the model.
        prompt: name of the prompt that is chosen at first.
        examples: examples to choose.
    """
    # Uploaded files are deleted after an hour.
    with gr.Blocks(title="grit_lightning", analytics_enabled=False, delete_cache=(600, 3600)) as page:
        gr.HTML(f"<h1>grit_lightning</h1><p>{_text(title)}</p>")
        with gr.Row():
            with gr.Column(scale=2):
                image = gr.Image(
                    label="image", type="filepath", image_mode=None, sources=["upload", "clipboard"], height=300
                )
                # The file is handed on as it was uploaded, so that the answerer can say what is wrong with it.
                image.preprocess = lambda payload: None if payload is None else payload.path
                question = gr.Textbox(label="question", lines=2, max_length=LONGEST_QUESTION, elem_id="question")
                with gr.Row():
                    prompts = gr.Dropdown(answerer.prompts, value=prompt, label="prompt")
                    how = gr.Radio([GREEDY, SAMPLED], value=GREEDY, label="tokens")
                reference = gr.Textbox(label="reference answer, to see the reward", max_length=LONGEST_QUESTION)
                with gr.Row():
                    ask = gr.Button("Ask", variant="primary", elem_id="ask")
                    halt = gr.Button("Stop", elem_id="stop")
                if examples:
                    rows = [list(one) for one in examples]
                    gr.Examples(rows, [image, question, reference], label="examples")
            with gr.Column(scale=3):
                answer = gr.HTML("<p>The answer appears here.</p>", elem_id="answer", min_height=300)

        def answered(image: str | None, question: str, prompt: str, how: str, reference: str) -> Iterator[str]:
            yield from _answered(answerer, image, question, prompt, how, reference)

        inputs = [image, question, prompts, how, reference]
        asked = gr.on(
            [ask.click, question.submit], answered, inputs, answer,
            concurrency_limit=1, show_progress="minimal", api_name="ask",
        )  # fmt: skip
        halt.click(None, cancels=[asked])
    page.queue(max_size=_WAITING)
    return page


def launch(
    page: gr.Blocks, *, port: int | None, share: bool, open_browser: bool, max_upload_mb: float
) -> tuple[str, str | None]:
    """Serve the page on 127.0.0.1 in the background; return its address, and its public address if there is one.

    Args:
        page: the page.
        port: the port; ``None`` for the first free one from 7860.
        share: True to let Gradio make a public address for it.
        open_browser: True to open it in a browser.
        max_upload_mb: largest size of an uploaded file in MB.

    Raises:
        OSError: the port is taken.
    """
    script = source("boxes.js").removeprefix('"use strict";')
    _, local, public = page.launch(
        server_name="127.0.0.1",
        server_port=port,
        share=share,
        inbrowser=open_browser,
        max_file_size=int(max_upload_mb * 1e6),
        # Gradio's own theme would load fonts from the network.
        theme=gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"]),
        css=source("completion.css") + STYLE,
        head=f"<script>{script}</script>",
        footer_links=[],
        ssr_mode=False,
        quiet=True,
        prevent_thread_lock=True,
    )
    return local, public


def _answered(
    answerer: Answerer, image: str | None, question: str, prompt: str, how: str, reference: str
) -> Iterator[str]:
    """Yield the HTML of the growing answer, or of what is wrong with the question."""
    pictures, heading, last, record = Pictures(), f"{prompt}, {how}", 0.0, None
    try:
        for record in answerer.answer(
            None if image is None else Path(image),
            question or "",
            prompt=prompt,
            sampled=how == SAMPLED,
            reference=reference or "",
        ):
            if time.monotonic() - last > _SECONDS:
                yield completion_html(shown(record, pictures.of(record)), heading, pictures)
                last = time.monotonic()
        if record is not None:
            yield completion_html(shown(record, pictures.of(record)), heading, pictures)
    except UserError as error:
        yield f'<p class="demo-problem">{_text(str(error))}</p>'


def _text(text: str) -> str:
    return str(escape(printable_lines(text)))
