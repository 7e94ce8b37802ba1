"""A chat model behind an OpenAI-compatible endpoint: one prompt in, one answer or a reason out.

Every request is admitted by a budget before it is sent. The key is given by the caller, goes into
the request's header and nowhere else.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal, Self, TypeGuard

from mixup.models.backoff import backoff_s, retry_after_s
from mixup.models.budget import Budget
from mixup.rater_config import EndpointJudge
from mixup.records import estimated_tokens

TIMEOUT = "timeout"
CONNECTION_ERROR = "connection_error"
RATE_LIMITED = "rate_limited"
HTTP_ERROR = "http_error"
BAD_RESPONSE = "bad_response"
"""A response that is no chat completion, whatever its status says."""
REQUEST_REFUSED = "request_refused"
"""A status from which asking again the same is no cure, such as 400."""
UNANSWERED = (
    TIMEOUT,
    CONNECTION_ERROR,
    RATE_LIMITED,
    HTTP_ERROR,
    BAD_RESPONSE,
    REQUEST_REFUSED,
)
"""Why there is no answer."""

_BODY_BYTES = 1_000_000
_MESSAGE_TOKENS = 16  # what a chat template adds to a prompt, about
_Structured = Literal["json_schema", "json_object", "none"]


@dataclass(frozen=True)
class Answer:
    """The text of an answer, or why there is none."""

    text: str | None
    reason: str | None = None


@dataclass(frozen=True)
class _Question:
    """A prompt and the JSON Schema of its answer."""

    prompt: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class _Response:
    """What came back for one request; ``again`` where asking once more may help."""

    text: str | None = None
    reason: str | None = None
    status: int = 0
    again: bool = False
    after_s: float | None = None
    used: tuple[int, int] | None = None
    is_billed: bool = True


class ChatEndpoint:
    """A client for one endpoint; to be used in one event loop, as an async context.

    Attributes:
        fatal: Why no request can succeed, such as a key that is refused; None while one may.
        is_closed: Whether the server asked for a wait that is too long for this run.
    """

    def __init__(
        self, config: EndpointJudge, key: str | None, schema: Mapping[str, Any], budget: Budget
    ) -> None:
        self.fatal: str | None = None
        self.is_closed = False
        self._config, self._schema, self._budget = config, schema, budget
        self._url = f"{config.base_url.rstrip('/')}/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        # None: not known yet whether the server takes a schema; the first answer decides.
        self._structured: _Structured | None = (
            None if config.structured == "auto" else config.structured
        )
        self._probe = asyncio.Lock()
        self._paused_until = 0.0
        self._has_answered = False

    async def __aenter__(self) -> Self:
        """Open the connections."""
        import aiohttp

        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=self._config.concurrency),
            timeout=aiohttp.ClientTimeout(total=self._config.timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the connections."""
        await self._session.close()

    async def ask(self, prompt: str, schema: Mapping[str, Any] | None = None) -> Answer | None:
        """The answer to a prompt, asked for again where that may help.

        None where the budget, or the endpoint itself, let it come to no outcome in this run.

        Args:
            prompt: The user message.
            schema: Of this answer; None: the client's.
        """
        question = _Question(prompt, schema or self._schema)
        config, response = self._config, _Response()
        for retry in range(config.retries + 1):
            if retry:
                await self._wait(retry, response)
            found = await self._attempt(question, is_retry=retry > 0)
            if found is None:
                return None
            response = found
            if not response.again or self.is_closed:
                break
        return Answer(response.text, response.reason)

    async def _wait(self, retry: int, response: _Response) -> None:
        config = self._config
        jitter = backoff_s(
            retry, first_s=config.backoff_s, cap_s=config.backoff_cap_s, draw=random.random()
        )
        await asyncio.sleep(jitter + (response.after_s or 0.0))

    async def _attempt(self, question: _Question, *, is_retry: bool) -> _Response | None:
        if self._structured is None:
            async with self._probe:
                if self._structured is None:
                    return await self._first(question, is_retry=is_retry)
        return await self._request(question, self._structured, is_retry=is_retry)

    async def _first(self, question: _Question, *, is_retry: bool) -> _Response | None:
        """Ask with a schema, and without where the server refuses; what succeeds is kept to."""
        found = await self._request(question, "json_schema", is_retry=is_retry)
        if found is not None and found.status in (400, 422):
            found = await self._request(question, "none", is_retry=True)
            if found is not None and found.text is not None:
                self._structured = "none"
        elif found is not None and found.text is not None:
            self._structured = "json_schema"
        return found

    async def _request(
        self, question: _Question, structured: _Structured, *, is_retry: bool
    ) -> _Response | None:
        """One request, within the budget; None where it was not sent or its failure is final."""
        while (pause := self._paused_until - asyncio.get_running_loop().time()) > 0:
            await asyncio.sleep(pause)
        if self.fatal or self.is_closed:
            return None
        reserved = (estimated_tokens(question.prompt) + _MESSAGE_TOKENS, self._config.max_tokens)
        if not await self._budget.admit(*reserved, is_retry=is_retry):
            return None
        used, is_estimate = reserved, True  # also of what is interrupted
        try:
            found = await self._send(self._body(question, structured))
            used = found.used or (reserved if found.is_billed else (0, 0))
            is_estimate = found.used is None and found.is_billed
        finally:
            self._budget.settle(reserved, used, is_estimate=is_estimate)
        return self._noted(found)

    def _body(self, question: _Question, structured: _Structured) -> dict[str, Any]:
        config = self._config
        body: dict[str, Any] = {
            "model": config.model,
            "messages": [{"role": "user", "content": question.prompt}],
            config.max_tokens_field: config.max_tokens,
        }
        if config.temperature is not None:
            body["temperature"] = config.temperature
        if structured == "json_object":
            body["response_format"] = {"type": "json_object"}
        if structured == "json_schema":
            schema = {"name": "answer", "strict": True, "schema": question.schema}
            body["response_format"] = {"type": "json_schema", "json_schema": schema}
        return body

    async def _send(self, body: Mapping[str, Any]) -> _Response:
        import aiohttp

        try:
            async with self._session.post(
                self._url, json=body, headers=self._headers, allow_redirects=False
            ) as response:
                data = await _read(response.content)
                header = response.headers.get("Retry-After")
                return _response_of(response.status, data, header)
        except TimeoutError:  # the server may have worked on it, and bill it
            return _Response(reason=TIMEOUT, again=True)
        except aiohttp.ClientConnectorError:  # nothing was sent
            return _Response(reason=CONNECTION_ERROR, again=True, is_billed=False)
        except (aiohttp.ClientError, OSError):
            return _Response(reason=CONNECTION_ERROR, again=True)

    def _noted(self, found: _Response) -> _Response | None:
        """Take note of what a response says of the endpoint as a whole."""
        self._has_answered |= found.text is not None
        if found.status in (401, 404) and not self._has_answered:
            remedy = (
                "the key is refused: look at the variable that api_key_env names"
                if found.status == 401
                else f"no such address or model {self._config.model!r}: base_url ends in /v1"
            )
            self.fatal = f"{self._config.base_url} answers {found.status}; {remedy}"
            return None
        if found.after_s is not None and found.again:
            if found.after_s > self._config.backoff_cap_s:
                self.is_closed = True
            else:
                until = asyncio.get_running_loop().time() + found.after_s
                self._paused_until = max(self._paused_until, until)
        return found


async def _read(stream: Any) -> bytes | None:
    """The body of a response; None for one that is too long for an answer."""
    data = bytearray()
    async for part in stream.iter_chunked(65_536):
        data += part
        if len(data) > _BODY_BYTES:
            return None
    return bytes(data)


def _response_of(status: int, data: bytes | None, retry_after: str | None) -> _Response:
    if status == 200:
        return _completion(data)
    after_s = retry_after_s(retry_after, now=datetime.now(UTC))
    if status == 429:
        return _Response(None, RATE_LIMITED, status, True, after_s, is_billed=False)
    if status >= 500 or status in (408, 409, 425):
        return _Response(None, HTTP_ERROR, status, True, after_s, is_billed=False)
    return _Response(None, REQUEST_REFUSED, status, is_billed=False)


def _completion(data: bytes | None) -> _Response:
    """The first choice's text; an answer that the server withheld is empty."""
    broken = _Response(None, BAD_RESPONSE, 200, again=True)
    if data is None:
        return broken
    try:
        document = json.loads(data)
        text = document["choices"][0]["message"]["content"]
    except (ValueError, RecursionError, KeyError, IndexError, TypeError):
        return broken
    if text is not None and not isinstance(text, str):
        return broken
    return _Response(text or "", status=200, used=_tokens(document.get("usage")))


def _tokens(usage: Any) -> tuple[int, int] | None:
    """The tokens that the server counted; None where it states none that can be."""
    if not isinstance(usage, dict):
        return None
    sent, written = usage.get("prompt_tokens"), usage.get("completion_tokens")
    return (sent, written) if _is_count(sent) and _is_count(written) else None


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
