"""Puts the shims under the names that scripts import them by, and leaves every other module alone.

Why: `azureml` and the inference server's package may be installed or not, in whole or in part. The request and
response modules are always ours, since the host must know their decorator and classes; the packages around them, and
what else has a shim, only where nothing of that name is installed.
Errors: none; a name that is not ours is nobody's business here.
"""

import importlib
import sys
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Mapping, Optional, Sequence

_SHIMS = __name__.rpartition(".")[0]
_OURS = {
    "azureml_inference_server_http.api.aml_request": "aml_request",
    "azureml_inference_server_http.api.aml_response": "aml_response",
    "azureml.contrib.services.aml_request": "aml_request",
    "azureml.contrib.services.aml_response": "aml_response",
}
_WHERE_MISSING = {
    "azureml_inference_server_http": "",
    "azureml_inference_server_http.api": "",
    "azureml_inference_server_http.log_config": "log_config",
    "azureml": "",
    "azureml.contrib": "",
    "azureml.contrib.services": "",
}


class _ShimLoader(Loader):
    """Makes a module that holds the public names of one shim; of none, an empty package."""

    def __init__(self, shim: str) -> None:
        self.shim = shim

    def create_module(self, spec: ModuleSpec) -> Optional[ModuleType]:
        return None

    def exec_module(self, module: ModuleType) -> None:
        if self.shim:
            source = importlib.import_module(f"{_SHIMS}.{self.shim}")
            vars(module).update({name: getattr(source, name) for name in source.__all__})


class ShimFinder(MetaPathFinder):
    """Finds the modules of one table, from full name to shim."""

    def __init__(self, table: Mapping[str, str]) -> None:
        self.table = table

    def find_spec(
        self, fullname: str, path: Optional[Sequence[str]], target: Optional[ModuleType] = None
    ) -> Optional[ModuleSpec]:
        shim = self.table.get(fullname)
        if shim is None:
            return None
        return ModuleSpec(fullname, _ShimLoader(shim), origin="scoring host", is_package=not shim)


def install(finders: Optional[Any] = None) -> None:
    """First what is always ours, last what is ours where nobody else has it. Once a process."""
    finders = sys.meta_path if finders is None else finders
    finders.insert(0, ShimFinder(_OURS))
    finders.append(ShimFinder(_WHERE_MISSING))
