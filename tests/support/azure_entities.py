"""The real client libraries' entities and the JSON they put on the wire, without any network.

Why here: the library warns at import and is optional, so tests get at it through `entities()`, which skips with its
name where it is not installed. `wire_of` is the body of a request, `answered` reads an answer as the library does.
"""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest


class Entities:
    """The library's modules. Entities are made with its own warnings (deprecated classes of its own) unheard."""

    def __init__(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self.e = pytest.importorskip("azure.ai.ml.entities", reason="azure-ai-ml is not installed")
            self.m = pytest.importorskip("azure.ai.ml._restclient.arm_ml_service.models")
            base = "azure.ai.ml._restclient.arm_ml_service._utils.model_base"
            self.base = pytest.importorskip(base)

    def wire_of(self, rest: Any) -> dict[str, Any]:
        """The body that the client would send."""
        said: dict[str, Any] = json.loads(json.dumps(rest, cls=self.base.SdkJSONEncoder, exclude_readonly=True))
        return said

    def answered(self, model: Any, body: dict[str, Any]) -> Any:
        """The client's own reading of an answer."""
        return self.base._deserialize(model, json.loads(json.dumps(body)))
