"""Debian's Chromium, which tests drive; it is installed where it is not there."""

import shutil
import subprocess
from contextlib import contextmanager

import pytest


def chromium():
    """The path of Chromium; skips where it cannot be installed, and says why."""
    if shutil.which("chromium") is None and shutil.which("apt-get") is not None:
        command = ["apt-get", "install", "--yes", "--quiet", "--no-install-recommends", "chromium"]
        for step in (command, ["apt-get", "update", "--quiet"], command):
            if subprocess.run(step, capture_output=True).returncode == 0 and shutil.which("chromium"):
                break
    found = shutil.which("chromium")
    if found is None:
        pytest.skip("Chromium is not installed, and apt-get cannot install it here")
    return found


class Page:
    """A page of a browser, and all that it complained of or asked for.

    Attributes:
      page: as Playwright has it.
      errors: what the console says of errors, and exceptions.
      requests: addresses that the page asked for.
    """

    def __init__(self, page):
        self.page, self.errors, self.requests = page, [], []
        page.on("console", lambda told: self.errors.append(told.text) if told.type == "error" else None)
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def texts(self, selector):
        """The texts of all elements that a selector names."""
        return self.page.locator(selector).all_inner_texts()

    def scroll_to_end(self):
        """Looks at all of the page, so that all charts are drawn."""
        self.page.wait_for_function("window.Plotly")
        height = self.page.evaluate("document.documentElement.scrollHeight")
        for top in range(0, height + 600, 600):
            self.page.evaluate(f"scrollTo(0, {top})")
            self.page.wait_for_timeout(60)


@contextmanager
def browser():
    """A browser that is closed at the end."""
    from playwright.sync_api import sync_playwright

    path = chromium()
    with sync_playwright() as started:
        found = started.chromium.launch(executable_path=path, args=["--no-sandbox", "--enable-unsafe-swiftshader"])
        try:
            yield found
        finally:
            found.close()


def opened(found, address, width=1200, height=900, dark=False):
    """A new page at an address."""
    context = found.new_context(
        viewport={"width": width, "height": height}, color_scheme="dark" if dark else "light", reduced_motion="reduce"
    )
    made = Page(context.new_page())
    made.page.goto(address)
    made.page.wait_for_selector("#trials thead th")
    return made
