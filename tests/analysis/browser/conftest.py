"""A real chromium that may read one file and nothing else."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from analysis import page

ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.violations.push(event.violatedDirective);
});
Object.defineProperty(window, "Plotly", {
  configurable: true,
  set(value) {
    window.scripted = performance.now();
    Object.defineProperty(window, "Plotly", { value, writable: true, configurable: true });
  },
});
"""


def chromium() -> str | None:
    """Where chromium is: `COFI_CHROMIUM`, or on the path."""
    return os.environ.get("COFI_CHROMIUM") or shutil.which("chromium")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker(pytest.mark.browser)


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A headless chromium; skips where there is none, but never on CI."""
    path = chromium()
    if path is None:
        if os.environ.get("CI"):
            pytest.fail("no chromium: apt-get install chromium, or name it in COFI_CHROMIUM")
        pytest.skip("no chromium on PATH or in COFI_CHROMIUM")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=path, args=list(ARGUMENTS))
        yield started
        started.close()


@dataclass
class Opened:
    """A page, and everything that it did which it should not."""

    page: Any
    path: Path
    files: dict[str, str]
    requests: list[str] = field(default_factory=list)
    """Everything asked for but the file itself."""
    errors: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)

    def draw(self, which: str = ".plot") -> None:
        """Draw charts, all or some, as if a reader had come to them."""
        self.page.evaluate(
            """async (which) => {
              for (const place of document.querySelectorAll(which)) await draw(place);
            }""",
            which,
        )

    def is_clean(self) -> None:
        """Assert that nothing was asked for, refused, reported or popped up."""
        assert self.requests == []
        assert self.errors == []
        assert self.dialogs == []
        assert self.page.evaluate("window.violations") == []


@pytest.fixture(scope="session")
def written(
    make_document: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Any]:
    """Writes the page of a document once, and gives its path, the files it offers and the document."""
    directory, made = tmp_path_factory.mktemp("pages"), {}

    def write(kind: str, **sizes: int) -> tuple[Path, dict[str, str], Any]:
        name = "-".join([kind.replace(" ", "-"), *(f"{key}{value}" for key, value in sizes.items())])
        if name not in made:
            document = make_document(kind, **sizes)
            files = {"front.csv": "trial,score\na,0.5\n", "front.json": json.dumps(document, indent=2)}
            path = directory / f"{name}.html"
            path.write_text(page.html(document, files), encoding="utf-8")
            made[name] = path, files, document
        return made[name]

    return write


@pytest.fixture
def opened(browser: Any, written: Callable[..., Any]) -> Iterator[Callable[..., Opened]]:
    """Opens the page of a document; `options` are those of a browser context."""
    contexts = []

    def opener(kind: str = "search", options: dict[str, Any] | None = None, **sizes: int) -> Opened:
        path, files, _ = written(kind, **sizes)
        context = browser.new_context(**{"viewport": {"width": 1200, "height": 900}, **(options or {})})
        contexts.append(context)
        context.add_init_script(WATCH)
        one = Opened(context.new_page(), path, files)

        def guard(route: Any) -> None:
            if route.request.url.split("#")[0] == path.as_uri():
                route.continue_()
            else:
                route.abort()

        def note(request: Any) -> None:
            # A blob is made of what the page already has.
            if request.url.split("#")[0] != path.as_uri() and not request.url.startswith("blob:"):
                one.requests.append(request.url)

        context.route("**/*", guard)
        context.on("request", note)
        one.page.on("console", lambda said: one.errors.append(said.text) if said.type != "log" else None)
        one.page.on("pageerror", lambda error: one.errors.append(str(error)))
        one.page.on("dialog", lambda dialog: (one.dialogs.append(dialog.message), dialog.dismiss()))
        one.page.goto(path.as_uri())
        return one

    yield opener
    for context in contexts:
        context.close()
