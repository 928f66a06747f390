"""The model client of the Feed game, as its source has it: what it sends byte for byte, what it retries, what it reads.

It sends model, messages, temperature and max_tokens with Node's fetch, no ids, and never streams. It probes with HEAD,
tries 502, 503 and broken connections three more times, after 5, 10 and 15 seconds, and reads the first choice.
"""

from __future__ import annotations

import http.client
import json
import time
from collections.abc import Callable
from urllib.parse import urlsplit

#: What Node's fetch sends beside what it was given.
NODE_HEADERS = {
    "accept": "*/*",
    "accept-language": "*",
    "sec-fetch-mode": "cors",
    "user-agent": "node",
    "accept-encoding": "gzip, deflate",
}
RETRY_SECONDS = (5, 10, 15)
TIMEOUT_SECONDS = 120


class FeedClient:
    """Asks as an agent of the game does.

    Args:
        endpoint: HUGGINGFACE_MODEL_ENDPOINT, with or without `/v1/chat/completions`.
        key: HUGGINGFACE_API_KEY.
        model: HUGGINGFACE_MODEL_NAME.
        sleep: waits between tries.
    """

    def __init__(
        self, endpoint: str, key: str = "hf_key", model: str = "default", sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self._endpoint, self._key, self._model, self._sleep = endpoint, key, model, sleep

    def is_available(self) -> bool:
        """The HEAD probe: 2xx or 405."""
        status, _ = self._fetch("HEAD", self._endpoint, None)
        return 200 <= status < 300 or status == 405

    def body(self, prompt: str, system: str, temperature: float, max_tokens: int) -> bytes:
        """The body as JSON.stringify writes it: no spaces, no escapes of what is not ASCII, 1 and not 1.0."""
        messages = [{"role": "system", "content": system}] if system else []
        messages.append({"role": "user", "content": prompt})
        number = int(temperature) if temperature == int(temperature) else temperature
        body = {"model": self._model, "messages": messages, "temperature": number, "max_tokens": max_tokens}
        return json.dumps(body, ensure_ascii=False, separators=(",", ":")).encode()

    def ask(self, prompt: str, system: str = "", temperature: float = 0.7, max_tokens: int = 2048) -> str:
        """The answer's text; '' for null content.

        Raises:
            RuntimeError: any other status, or no answer after all tries.
        """
        url = self._endpoint
        if "/chat/completions" not in url:
            url = f"{url.rstrip('/')}/v1/chat/completions"
        body = self.body(prompt, system, temperature, max_tokens)
        status, reply = self._tried(url, body)
        for seconds in RETRY_SECONDS:
            if status not in (None, 502, 503):
                break
            self._sleep(seconds)
            status, reply = self._tried(url, body)
        if status is None or not 200 <= status < 300:
            raise RuntimeError(f"HuggingFace API error: {status} - {reply.decode()}")
        return json.loads(reply)["choices"][0]["message"]["content"] or ""

    def _tried(self, url: str, body: bytes) -> tuple[int | None, bytes]:
        try:
            return self._fetch("POST", url, body)
        except (OSError, http.client.HTTPException):
            return None, b""

    def _fetch(self, method: str, url: str, body: bytes | None) -> tuple[int, bytes]:
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=TIMEOUT_SECONDS)
        try:
            connection.putrequest(method, parts.path or "/", skip_host=True, skip_accept_encoding=True)
            headers = {"host": parts.netloc, "connection": "keep-alive", "Authorization": f"Bearer {self._key}"}
            if body is not None:
                headers |= {"Content-Type": "application/json", "content-length": str(len(body))}
            for name, value in {**headers, **NODE_HEADERS}.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            reply = connection.getresponse()
            return reply.status, reply.read()
        finally:
            connection.close()
