"""A headless Chromium for tests that look at pages: open, wait for text, click what says something, take a picture.

It speaks the DevTools protocol over one websocket; nothing but Chromium itself and `websocket-client` is needed.
"""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any

import websocket

FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage"),
    "--remote-debugging-port=0",
    "--remote-allow-origins=*",
)


#: axe-core comes from npm: `npm install --no-save axe-core` in the repository's root.
AXE = Path(__file__).parents[1] / "node_modules" / "axe-core" / "axe.min.js"


def chromium() -> str | None:
    """The program, or None where there is none."""
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


class Browser:
    """One page of a headless Chromium; a context manager that ends it."""

    def __init__(self, width: int = 1500, height: int = 950) -> None:
        program = chromium()
        assert program is not None, "no chromium: apt-get install chromium"
        self._profile = tempfile.TemporaryDirectory(prefix="babylon-browser-", ignore_cleanup_errors=True)
        size = f"--window-size={width},{height}"
        self._process = subprocess.Popen(
            [program, *FLAGS, size, f"--user-data-dir={self._profile.name}", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._numbers = count(1)
        self._socket = websocket.create_connection(self._page_address(), timeout=60)

    def __enter__(self) -> Browser:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._socket.close()
        self._process.terminate()
        self._process.wait(10)
        self._profile.cleanup()

    def open(self, url: str, text: str, seconds: float = 30) -> None:
        """Go to a page and wait until it shows `text`."""
        self._call("Page.navigate", url=url)
        self.wait_for(text, seconds)

    def wait_for(self, text: str, seconds: float = 30) -> None:
        """Wait until the page shows `text`."""
        deadline = time.monotonic() + seconds
        while text not in self.text():
            assert time.monotonic() < deadline, f"the page does not show {text!r}:\n{self.text()[:2000]}"
            time.sleep(0.2)

    def wait_until(self, script: str, seconds: float = 30) -> None:
        """Wait until a JavaScript expression is true."""
        deadline = time.monotonic() + seconds
        while not self.run(script):
            assert time.monotonic() < deadline, f"never true: {script}"
            time.sleep(0.2)

    def listen(self, script: str) -> None:
        """Run a script before those of each page that is opened from now on."""
        self._call("Page.enable")
        self._call("Page.addScriptToEvaluateOnNewDocument", source=script)

    def text(self) -> str:
        """All that the page shows."""
        return str(self.run("document.body ? document.body.innerText : ''"))

    def click(self, text: str, row: str | None = None) -> None:
        """Click the innermost element whose whole text is `text`; of several the last, or that in the table's `row`."""
        beside = "true" if row is None else f"e.closest('tr')?.innerText.startsWith({json.dumps(row)})"
        script = (
            "(() => { const all = [...document.querySelectorAll('a, button, span, div, [role=tab]')]"
            f".filter(e => e.innerText && e.innerText.trim() === {json.dumps(text)} && {beside});"
            "if (!all.length) return false; all[all.length - 1].click(); return true; })()"
        )
        assert self.run(script), f"nothing on the page says {text!r}:\n{self.text()[:2000]}"

    def resize(self, width: int, height: int) -> None:
        """Give the page another size, in pixels."""
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def prefer(self, mode: str) -> None:
        """Ask pages for `light` or `dark` colours, as a person's system does."""
        features = [{"name": "prefers-color-scheme", "value": mode}]
        self._call("Emulation.setEmulatedMedia", features=features)

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression."""
        return self._call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

    def promised(self, script: str) -> Any:
        """The value that a JavaScript promise comes to."""
        given = {"expression": script, "returnByValue": True, "awaitPromise": True}
        return self._call("Runtime.evaluate", **given)["result"].get("value")

    def press(self, key: str, selector: str | None = None) -> None:
        """Press and release a key, such as Tab or Enter, in the element that a selector names."""
        if selector is not None:
            self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        text = {"text": "\r"} if key == "Enter" else {}
        code = {"Enter": 13, "Tab": 9}[key]
        for kind in ("keyDown", "keyUp"):
            given = text if kind == "keyDown" else {}
            self._call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **given)

    def picture(self, path: Path, settle: float = 1.0) -> Path:
        """Save what the window shows as a PNG, after `settle` seconds for animations to end."""
        time.sleep(settle)
        path.write_bytes(base64.b64decode(self._call("Page.captureScreenshot", format="png")["data"]))
        return path

    def _page_address(self) -> str:
        """The websocket of the first page, through the port that Chromium chose."""
        import urllib.request

        assert self._process.stderr is not None
        for line in self._process.stderr:
            if found := re.search(r"ws://127\.0\.0\.1:(\d+)/", line):
                with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/json") as reply:
                    pages = [target for target in json.load(reply) if target["type"] == "page"]
                return str(pages[0]["webSocketDebuggerUrl"])
        raise AssertionError("chromium ended without opening a page")

    def _call(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            answer = json.loads(self._socket.recv())
            if answer.get("id") == number:
                assert "error" not in answer, answer["error"]
                return dict(answer["result"])


def accessibility_faults(browser: Browser) -> list[str]:
    """What axe finds on the page that is serious or critical, with the elements."""
    browser.run(AXE.read_text())
    faults: Any = browser.promised(
        "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.filter("
        "v => ['serious', 'critical'].includes(v.impact)).map(v => v.id + ': ' + v.nodes.map(n => n.html).join(' ')))"
    )
    return [str(fault)[:300] for fault in faults]
