"""User of the page: clicks, files and texts by which a test drives it in a browser."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

WAIT = 20.0


class PageUser:
    """User of the page in a browser.

    Args:
        browser: WebDriver.
        url: of the page.
    """

    def __init__(self, browser: Any, url: str) -> None:
        self.browser = browser
        browser.get(url)
        self.until(lambda: self.all('#search'), 'the page')

    def all(self, selector: str) -> list[Any]:
        """Return the elements of a CSS selector."""
        return list(self.browser.find_elements('css selector', selector))

    def until(self, ready: Callable[[], Any], what: str) -> Any:
        """Wait for a value that is true, and return it."""
        from selenium.common.exceptions import StaleElementReferenceException, TimeoutException
        from selenium.webdriver.support.ui import WebDriverWait

        wait = WebDriverWait(
            self.browser, WAIT, 0.05, ignored_exceptions=[StaleElementReferenceException]
        )
        try:
            return wait.until(lambda _: ready())
        except TimeoutException as error:
            raise AssertionError(f'no {what}: {self.text("body")[:900]}') from error

    def text(self, selector: str) -> str:
        """Return the text that is seen in an element."""
        found = self.all(selector)
        return str(found[0].text) if found else ''

    def tab(self, name: str) -> None:
        """Open a tab."""
        self.named('[role=tab]', name).click()

    def named(self, selector: str, text: str) -> Any:
        """Wait for an element with a text, perhaps after the sign of a choice, and return it."""

        def found() -> list[Any]:
            return [each for each in self.all(selector) if each.text.strip().endswith(text)]

        return self.until(found, f'{selector} with the text {text!r}')[0]

    def upload(self, where: str, files: Sequence[Path]) -> None:
        """Choose files, and wait until the page shows them."""
        box = self.until(lambda: self.all(f'#{where} input[type=file]'), 'file input')[0]
        box.send_keys('\n'.join(map(str, files)))
        shown = 'img' if where == 'search_image' else '.file-preview tr, .file'
        self.until(lambda: self.all(f'#{where} {shown}'), f'upload in {where}')

    def answer(self, button: str, place: str) -> str:
        """Click a button, and return the new answer."""
        number = self._number(place)
        self.all(f'#{button}')[0].click()

        def changed() -> str:
            return self.text(f'#{place}') if self._number(place) != number else ''

        return str(self.until(changed, f'answer to {button}'))

    def _number(self, place: str) -> str | None:
        found = self.all(f'#{place} [data-answer]')
        return found[0].get_attribute('data-answer') if found else None

    def search(self, image: Path) -> str:
        """Search for the person of an image, and return the answer."""
        self.tab('Search')
        self.upload('search_image', [image])
        return self.answer('search', 'found')

    def fill_in(self, name: str, files: Sequence[Path] = ()) -> None:
        """Type the name of a person to enrol, and choose the files."""
        self.tab('Enrol')
        self.until(lambda: not self.ticked(), 'box without a tick')
        box = self.all('#name input, #name textarea')[0]
        box.clear()
        box.send_keys(name)
        if files:
            self.upload('files', files)

    def ticked(self) -> bool:
        """Return whether the box of the consent is ticked."""
        return bool(self.all('#consent input')[0].is_selected())

    def consent_and_enrol(self) -> str:
        """Tick the box, enrol, and return the answer."""
        self.all('#consent input')[0].click()
        self.until(lambda: self.all('#enrol')[0].is_enabled(), 'button to enrol')
        return self.answer('enrol', 'enrolled')

    def photograph(self) -> None:
        """Take an image of the person to enrol by the webcam."""
        ask, take = '[title="grant webcam access"] button', 'button[aria-label="capture photo"]'
        self.until(lambda: self.all(f'#photo {ask}'), 'webcam')[0].click()
        shutter = self.until(lambda: self.all(f'#photo {take}'), 'camera')
        width = "return document.querySelector('#photo video').videoWidth"
        self.until(lambda: self.browser.execute_script(width), 'stream of the camera')
        shutter[0].click()
        self.until(lambda: self.all('#photo img[src*="file="]'), 'photo')

    def delete(self, name: str) -> str:
        """Delete a person, and return the answer."""
        self.tab('People')
        self.all('#chosen input')[0].click()
        self.named('#chosen [role=option]', name).click()
        return self.answer('delete', 'removed')
