"""Which policy a name means: the promoted one, one of a step or of a window, the base; and who gets the challenger.

The pointer is looked at twice a second. A new one is served as soon as its weights are ready, and until then, or when
the database or the weights cannot be read, the last one goes on; after a start without the database, the one that was
served before it.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg import Connection

from babylon_assets.domain.errors import BabylonError, PermanentError
from babylon_assets.domain.policies import policy_name
from babylon_assets.ledger import checkpoints, promotions
from babylon_assets.ledger.checkpoints import Checkpoint
from babylon_assets.serving.answers import Source, Target
from babylon_assets.serving.awaited_database import Ledger
from babylon_assets.serving.http.protocol import ApiError
from babylon_assets.serving.lasting_thread import LastingThread
from babylon_assets.serving.served_pointer import PointerFile

LOOK_SECONDS = 0.5
BASE = "base"

_log = logging.getLogger(__name__)


def promoted_checkpoint(conn: Connection[Any], chain: str) -> Checkpoint | None:
    """The checkpoint to be served: what was promoted last, or the head of a chain of which nothing was."""
    return promotions.promoted(conn, chain) or checkpoints.head(conn, chain)


def in_share(agent: str, share: float) -> bool:
    """Whether an agent is among this share of all, by a hash of its id: the same agents every time."""
    digest = hashlib.sha256(f"canary:{agent}".encode()).digest()
    return int.from_bytes(digest[:8]) < share * 2**64


@dataclass(frozen=True, slots=True)
class ServedPolicies:
    """What the names without a step mean at one moment."""

    stable: Target
    challenger: Target | None = None


class Directory:
    """Resolves names; keeps looking at the pointer on a thread of its own.

    Args:
        model: name of the chain, and of whatever of it is promoted.
        source: is made ready for a policy before it is served.
        pointer: where the served policy is noted for a start without the database.
        challenger, share: name of the canary's policy, and the share of the agents that it answers.
    """

    def __init__(
        self,
        database: Ledger,
        model: str,
        source: Source,
        pointer: PointerFile,
        challenger: str | None = None,
        share: float = 0.0,
    ) -> None:
        self.ledger, self._model, self._source, self._pointer = database, model, source, pointer
        self._challenger, self._share = challenger, share
        self._served: ServedPolicies | None = None
        root = Target(policy_name(model, 0), 0)
        self._by_name: dict[str, Target] = {BASE: root, root.name: root}
        self._refused: set[str] = set()
        self._stop = threading.Event()
        self._conn: Connection[Any] | None = None
        self._reading = threading.Lock()
        self.thread = LastingThread(self._run, "pointer")
        self.database_up = False
        #: What keeps this from serving what is promoted now, in words; empty when nothing does.
        self.missing: list[str] = ["the ledger was not read yet"]
        #: When the policy that is served was noted, where it is that of an earlier start.
        self.noted_at: datetime | None = None
        self.on_change: Callable[[Target], None] = lambda _policy: None

    def start(self) -> None:
        """Look at the pointer from now on."""
        self.thread.start()

    def close(self) -> None:
        """Stop looking."""
        self._stop.set()
        if self.thread.is_alive():
            self.thread.join()
        if self._conn is not None:
            self._conn.close()

    @property
    def served(self) -> ServedPolicies | None:
        """What is served now; None before the first pointer was read and made ready."""
        return self._served

    def known(self, name: str, agent: str | None) -> Target | None:
        """The policy that a name means for an agent, as far as that is known without asking the database."""
        served = self._served
        if name != self._model:
            return self._by_name.get(name)
        if served is None:
            raise ApiError(503, "the promoted policy is not ready yet", code="not_ready", retry_after=1)
        if served.challenger is not None and agent is not None and in_share(agent, self._share):
            return served.challenger
        return served.stable

    def find(self, name: str) -> Target:
        """The policy of a name that was not known; asks the database.

        Raises:
            ApiError: 404 when there is none, or its weights are not kept; 503 when the database does not answer.
        """
        if name != BASE and not name.startswith(f"{self._model}@"):
            raise _unknown(name)
        try:
            with self._reading:
                self._read_names()
        except (psycopg.Error, BabylonError) as error:
            raise ApiError(
                503, f"the ledger cannot be asked for {name!r} now", code="not_ready", retry_after=1
            ) from error
        target = self._by_name.get(name)
        if target is None:
            raise _unknown(name)
        return target

    def names(self) -> dict[str, Target]:
        """Every name that can be asked for, as known now, with its policy."""
        served = {} if self._served is None else {self._model: self._served.stable}
        return {**served, **{name: policy for name, policy in self._by_name.items() if self._source.serves(policy)}}

    def look(self) -> None:
        """Read the pointer once, and serve what it points at.

        Raises:
            psycopg.Error, BabylonError: the database does not answer.
        """
        with self._reading:
            pointed = self._read_pointer()
            stale = self._challenger is not None and self._challenger not in self._by_name
            if pointed.name not in self._by_name or BASE not in self._by_name or stale:
                self._read_names()
        challenger = None if self._challenger is None or not self._share else self._by_name.get(self._challenger)
        wanted = ServedPolicies(pointed, challenger)
        if wanted != self._served:
            ready = ServedPolicies(self._ensure_ready(pointed) or self._last(pointed), self._ensure_ready(challenger))
            if self._served is None or ready.stable != self._served.stable:
                self.on_change(ready.stable)
                self._pointer.note(ready.stable)
                _log.info("serving %s", ready.stable.name)
            self._served = ready
        self.noted_at = None

    def serve_last(self) -> None:
        """Serve what was served before this process began, for as long as the ledger cannot be read."""
        noted = self._pointer.last()
        if noted is None:
            self.missing.append("a policy: none was served from this home folder before")
            return
        policy = noted.policy
        if not self._source.serves(policy) or self._ensure_ready(policy) is None:
            self.missing.append(f"the weights of {policy.name}, which was served last")
            return
        self._by_name[policy.name] = policy
        self.noted_at, self._served = noted.at, ServedPolicies(policy)
        self.on_change(policy)
        _log.warning("serving %s, as before: the ledger cannot be read", policy.name)

    def _last(self, pointed: Target) -> Target:
        if self._served is None:
            raise PermanentError(
                f"{pointed.name} is promoted and cannot be served; see the log, then roll back with babylon rollback"
            )
        return self._served.stable

    def _ensure_ready(self, policy: Target | None) -> Target | None:
        """The policy, once it can be served; None when it cannot, which is logged once."""
        if policy is None:
            return None
        try:
            self._source.prepare(policy)
        except Exception as error:  # a policy that cannot be loaded must not take down the one that is served
            if policy.name not in self._refused:
                _log.error("%s cannot be served, the last policy goes on: %s", policy.name, error)
            self._refused.add(policy.name)
            return None
        self._refused.discard(policy.name)
        return policy

    def _read_pointer(self) -> Target:
        with self._connection().transaction():
            return self._target(promoted_checkpoint(self._connection(), self._model))

    def _read_names(self) -> None:
        with self._connection().transaction():
            line = checkpoints.chain(self._connection(), self._model)
        names = {BASE: self._target(None), policy_name(self._model, 0): self._target(None)}
        for checkpoint in line:
            if checkpoint.path or checkpoint.step == 0:
                names[policy_name(self._model, checkpoint.step)] = self._target(checkpoint)
                if checkpoint.window_id is not None:
                    names[f"{self._model}@{checkpoint.window_id}"] = self._target(checkpoint)
        self._by_name = names

    def _target(self, checkpoint: Checkpoint | None) -> Target:
        """The base model is the root of every chain."""
        if checkpoint is None:
            return Target(policy_name(self._model, 0), 0)
        name = policy_name(self._model, checkpoint.step)
        return Target(name, checkpoint.step, checkpoint.path, checkpoint.weights_sha256)

    def _connection(self) -> Connection[Any]:
        if self._conn is None or self._conn.closed:
            self._conn = self.ledger.connect_autocommit()
        return self._conn

    def _run(self) -> None:
        while not self._stop.wait(LOOK_SECONDS if self._served else 0.05):
            try:
                self.look()
                self.database_up, self.missing = True, []
            except (psycopg.Error, BabylonError) as error:
                if self.database_up or self._served is None:
                    _log.warning("the pointer cannot be read, the last policy goes on: %s", error)
                self._without_ledger(error)
                self._stop.wait(LOOK_SECONDS)

    def _without_ledger(self, error: Exception) -> None:
        """What is said is fit for anybody who may ask: no address, no message of the server's."""
        down = not isinstance(error, PermanentError)
        self.missing = ["PostgreSQL does not answer" if down else "the ledger cannot be used; the log says why"]
        self.database_up = False
        self._drop_connection()
        if self._served is None:
            self.serve_last()

    def _drop_connection(self) -> None:
        if self._conn is not None:
            self._conn.close()
            self._conn = None


def _unknown(name: str) -> ApiError:
    return ApiError(
        404, f"the model {name!r} does not exist, or its weights are not kept", param="model", code="model_not_found"
    )
