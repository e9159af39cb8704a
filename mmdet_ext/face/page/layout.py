"""Layout of the page, in Gradio: tabs to search, to enrol, and to list and delete people."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

import cv2
import gradio as gr
import numpy as np

from mmdet_ext.face.page.desk import EnrolReport, FaceDesk, SearchReport
from mmdet_ext.face.page.uploads import Limits, UploadFolder

#: Longest side of the image that a search shows, px.
_SHOWN = 1024
CONSENT = "I have this person's consent to store embeddings of these images"
STYLE = """
.done, .refused { padding: .6em .9em; border-radius: 6px; border-left: 5px solid; margin: .2em 0; }
.done { border-color: #15803d; } .refused { border-color: #b91c1c; font-weight: 600; }
#found img { max-width: 100%; border-radius: 6px; } #people table { width: auto; }
"""


def paths_alone(component: Any) -> Any:
    """Make an input of Gradio give the paths of its uploads, a list, and return it.

    By itself, Gradio decodes images before any limit is checked, and fetches addresses that a
    request names in place of an upload.
    """

    def preprocess(payload: Any) -> list[Path]:
        files = getattr(payload, 'root', payload) or []
        return [Path(each.path) for each in (files if isinstance(files, list) else [files])]

    async def stay(file: Any) -> str:
        if not Path(str(file)).is_file():
            raise gr.Error('the upload is no longer here: upload it again', print_exception=False)
        return str(file)

    component.preprocess = preprocess
    component.async_move_resource_to_block_cache = stay
    return component


def build_page(desk: FaceDesk, uploads: UploadFolder) -> Any:
    """Build the page.

    Args:
        desk: does the work.
        uploads: folder of Gradio's uploads; those of a request are deleted when it ends.

    Returns:
        Blocks: of Gradio; its uploads go where GRADIO_TEMP_DIR says now.
    """
    with gr.Blocks(title='Faces', analytics_enabled=False) as page:
        gr.Markdown('# Faces\n' + _rules(desk.limits))
        with gr.Tab('Search'):
            image = _image_input(
                'Image to search', ['upload', 'webcam', 'clipboard'], 'search_image'
            )
            look = gr.Button('Search', variant='primary', elem_id='search')
            found = gr.HTML(elem_id='found')
        with gr.Tab('Enrol'):
            name = gr.Textbox(label='Name', max_lines=1, elem_id='name')
            with gr.Row():
                files = paths_alone(
                    gr.File(
                        label='Images with one face each', file_count='multiple', elem_id='files'
                    )
                )
                photo = _image_input('Or by webcam', ['webcam'], 'photo')
            consent = gr.Checkbox(label=CONSENT, value=False, elem_id='consent')
            add = gr.Button('Enrol', variant='primary', elem_id='enrol', interactive=False)
            enrolled = gr.HTML(elem_id='enrolled')
        with gr.Tab('People'):
            people = gr.HTML(elem_id='people')
            chosen = gr.Dropdown(label='Person to delete', choices=[], elem_id='chosen')
            drop = gr.Button('Delete this person', variant='stop', elem_id='delete')
            removed = gr.HTML(elem_id='removed')
        actions = Actions(desk, uploads)
        hidden: dict[str, Any] = {'api_visibility': 'private', 'show_progress': 'minimal'}
        look.click(actions.search, image, [found, image], **hidden)
        consent.change(_ready, consent, add, **hidden)
        add.click(
            actions.enrol,
            [name, files, photo, consent],
            [enrolled, name, files, photo, consent, people, chosen],
            **hidden,
        )
        drop.click(actions.remove, chosen, [removed, people, chosen], **hidden)
        page.load(actions.refresh, None, [people, chosen], **hidden)
    return page


class Actions:
    """Answers of the page: what the user reads, and inputs emptied.

    Args:
        desk: does the work.
        uploads: folder of Gradio's uploads.
    """

    def __init__(self, desk: FaceDesk, uploads: UploadFolder) -> None:
        self.desk = desk
        self.uploads = uploads
        self._numbers = itertools.count(1)

    def search(self, files: Sequence[Path]) -> tuple[Any, ...]:
        """Search, and delete the image."""
        with self._deleting(files):
            if not files:
                reason = 'there is no image: choose a file, or take one by the webcam'
                return self._answer(lambda: _refused(reason)), None
            return self._answer(lambda: _found(self.desk.search(files[0]))), None

    def enrol(
        self, name: str, files: Sequence[Path], photo: Sequence[Path], consent: bool
    ) -> tuple[Any, ...]:
        """Enrol, and delete the images."""
        images = [*files, *photo]
        with self._deleting(images):
            done = self._answer(lambda: _enrolled(self.desk.enrol(name, images, consent)))
            success = 'class="done"' in done
            kept = ('', None, None, False) if success else (name, None, None, consent)
            return (done, *kept, *self.refresh())

    def remove(self, name: str | None) -> tuple[Any, ...]:
        """Delete a person."""
        if not name:
            return (self._answer(lambda: _refused('choose a person first')), *self.refresh())

        def remove() -> str:
            count = self.desk.remove(name)
            return _done(f'{escape(name)} is deleted, with the embeddings of {count} images.')

        return (self._answer(remove), *self.refresh())

    def refresh(self) -> tuple[Any, Any]:
        """Return the table of people, and the choices of the list."""
        people = self.desk.people()
        return _people(people), gr.Dropdown(choices=list(people), value=None)

    def _answer(self, work: Callable[[], str]) -> str:
        """Return what the work reports, or why it was refused, with the number of the answer."""
        try:
            text = work()
        except ValueError as error:
            text = _refused(str(error))
        return f'<div data-answer="{next(self._numbers)}">{text}</div>'

    @contextmanager
    def _deleting(self, files: Sequence[Path]) -> Iterator[None]:
        try:
            yield
        finally:
            self.uploads.forget(files)


def _image_input(label: str, sources: Any, name: str) -> Any:
    return paths_alone(gr.Image(label=label, sources=sources, buttons=[], height=300, elem_id=name))


def _ready(consent: bool) -> Any:
    """Return the button to enrol, which works with consent alone."""
    return gr.Button(interactive=bool(consent))


def _rules(limits: Limits) -> str:
    return (
        'Enrolment stores embeddings of faces, no images; every image is deleted after its '
        'request. Accepted are JPEG, PNG, BMP and WebP of at most '
        f'{limits.max_bytes / 2**20:.3g} MB and {limits.max_pixels / 1e6:.3g} million pixels.'
    )


def _done(text: str) -> str:
    return f'<div class="done" role="status">{text}</div>'


def _refused(reason: str) -> str:
    return f'<div class="refused" role="alert">{escape(reason)}</div>'


def _found(report: SearchReport) -> str:
    names = ', '.join(escape(face.name) for face in report.faces)
    rows = ''.join(
        f'<tr><td>{escape(face.name)}</td><td>{_cosine(face.similarity)}</td><td>'
        + ', '.join(f'{escape(each.name)} {each.cosine:.3f}' for each in face.candidates)
        + '</td></tr>'
        for face in report.faces
    )
    if not report.faces:
        return _done('No face was found.') + _image(report.image)
    table = f'<table><tr><th>Name</th><th>Similarity</th><th>Most similar</th></tr>{rows}</table>'
    return _done(f'Found: {names}') + table + _image(report.image)


def _cosine(value: float | None) -> str:
    return 'nobody is enrolled' if value is None else f'{value:.3f}'


def _enrolled(report: EnrolReport) -> str:
    reasons = ''.join(_refused(f'{name}: {reason}') for name, reason in report.refused)
    if not report.images:
        return _refused('No image could be used; nobody was enrolled.') + reasons
    count = f'{report.images} image' + ('s' if report.images > 1 else '')
    return _done(f'{escape(report.name)} is enrolled with {count}.') + reasons


def _people(people: dict[str, int]) -> str:
    if not people:
        return '<p>Nobody is enrolled.</p>'
    rows = ''.join(f'<tr><td>{escape(name)}</td><td>{n}</td></tr>' for name, n in people.items())
    return f'<table><tr><th>Name</th><th>Images</th></tr>{rows}</table>'


def _image(image: np.ndarray) -> str:
    """Return an image within the page itself, so that no file of it is written."""
    factor = _SHOWN / max(image.shape[:2])
    if factor < 1:
        size = max(1, round(image.shape[1] * factor)), max(1, round(image.shape[0] * factor))
        image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    coded = cv2.imencode('.jpg', image)[1].tobytes()
    text = base64.b64encode(coded).decode('ascii')
    return f'<img alt="the image with names" src="data:image/jpeg;base64,{text}">'
