"""The Open Inference Protocol V2: JSON, JSON with binary tensors, and raw requests.

Where `Inference-Header-Content-Length` is given, the body is that many bytes of JSON and then the binary tensors in
the JSON's order; 0 means that the whole body is the single input. Every input has exactly one of `data` (flat or
nested as its shape says) and `binary_data_size`. The id is echoed, unknown members are ignored, `timeout` is the
caller's deadline in microseconds. Answers are flat, row-major; NaN in JSON is null, with a header that says so.

Choices where servers differ: FP16 and BF16 are accepted and sent as JSON numbers too (Triton: binary only). BOOL
takes 0 and 1 beside true and false. Sequence-of-map outputs are BYTES, JSON texts. The classification extension
answers strings `value:index`, highest first. Shared memory is refused.
Errors: InvalidInput.
Source: open-inference-protocol inference_rest.md; Triton's binary data, classification and parameters extensions.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any

import numpy as np

from gateway.dataplane.codecs import answers, binary, buffers, documents, numbers
from gateway.dataplane.codecs.buffers import Cut
from gateway.dataplane.codecs.documents import short
from gateway.dataplane.codecs.wire import JSON, NONFINITE, OCTETS, Encoded
from runtimes import Array, Datatype, InvalidInput, Signature, TensorSpec

_BYTES = Datatype.BYTES
_TIMEOUT_US_MAX = 2**63 // 1000
_EMPTY_MAX = 65536
_USUAL = frozenset(("name", "shape", "datatype", "data"))
_ENTRY = frozenset(("name", "shape", "datatype", "parameters", "data"))


class _Unusual(Exception):
    """Only the whole body tells."""


# An output as the caller wants it: whether binary, and 0 for the tensor itself or how many of its highest values.
# A plain tuple, for one is made for every output of every request.
Wanted = tuple[TensorSpec, bool, int]


class V2Call:
    """A decoded V2 request: see wire.Decoded."""

    __slots__ = ("_wanted", "head", "inputs", "outputs", "rows", "timeout_ns")

    def __init__(
        self,
        inputs: dict[str, Array],
        rows: int,
        outputs: tuple[str, ...] | None,
        timeout_ns: int,
        wanted: list[Wanted],
        head: dict[str, Any],
    ) -> None:
        self.inputs = inputs
        self.rows = rows
        self.outputs = outputs
        self.timeout_ns = timeout_ns
        # The answer's first members: model_name, model_version, id.
        self.head = head
        self._wanted = wanted

    def encode(self, results: Mapping[str, Array]) -> Encoded:
        blobs: list[bytes] = []
        entries = [_entry(wanted, results[wanted[0].name], blobs) for wanted in self._wanted]
        self.head["outputs"] = entries
        header = answers.dump_numbers(self.head)
        extra = NONFINITE if b"null" in header and self._has_nonfinite(results) else ()
        if not blobs:
            return Encoded(JSON, header, extra)
        length = (b"inference-header-content-length", b"%d" % len(header))
        return Encoded(OCTETS, header + b"".join(blobs), (length, *extra))

    def _has_nonfinite(self, results: Mapping[str, Array]) -> bool:
        return any(
            not is_binary and not classes and answers.has_nonfinite(results[spec.name], spec)
            for spec, is_binary, classes in self._wanted
        )


def decode(
    body: bytes, header_length: int | None, signature: Signature, model_name: str, model_version: str
) -> V2Call:
    if header_length is None:
        if len(body) >= buffers.BYTES_MIN and (cut := buffers.cut(body)) is not None:
            quick = decode_cut(cut, signature, model_name, model_version)
            if quick is not None:
                return quick
        head = {"model_name": model_name, "model_version": model_version}
        return decode_document(documents.parse(body), body, body, signature, head)
    head = {"model_name": model_name, "model_version": model_version}
    if not 0 <= header_length <= len(body):
        raise InvalidInput(
            f"inference-header-content-length is {header_length} and the body has {len(body)} bytes; "
            "a length within the body is accepted"
        )
    if not header_length:
        return _decode_raw(body, signature, head)
    text = body[:header_length]
    return decode_document(documents.parse(text), text, body, signature, head)


def decode_cut(cut: Cut, signature: Signature, model_name: str, model_version: str) -> V2Call | None:
    """A request whose numbers are still text; None where only the whole body tells."""
    head = {"model_name": model_name, "model_version": model_version}
    try:
        return decode_document(cut.rest, cut.text, cut.text, signature, head, cut.block)
    except (InvalidInput, _Unusual):
        # Refused in the same words, but with an eye on the numbers too.
        return None


def is_request(document: dict[str, Any]) -> bool:
    """Whether a JSON body without the header is V2: `inputs` is a list of objects with names."""
    inputs = document.get("inputs")
    return type(inputs) is list and bool(inputs) and type(inputs[0]) is dict and "name" in inputs[0]


def decode_document(
    document: Any, text: bytes, body: bytes, signature: Signature, head: dict[str, Any], block: bytes = b""
) -> V2Call:
    """A request whose JSON is parsed; its binary tensors follow `text` in the body. Completes `head`.

    `block`: the text of the input's numbers, cut out of `text`."""
    if type(document) is not dict or type(document.get("inputs")) is not list:
        raise InvalidInput(
            'the body has no list "inputs"; {"inputs": [{"name", "shape", "datatype", "data"}, ...]} is accepted'
        )
    entries = document["inputs"]
    usual = len(entries) == 1 and type(entries[0]) is dict and entries[0].keys() == _USUAL
    # The counts of {"inputs": [{"name": "", "shape": [], "datatype": "", "data": []}]} are known.
    names, strings = (5, 2) if usual and len(document) == 1 else (_names_in(document), _strings_in(document))
    documents.refuse_duplicates(text, document, names)
    if "id" in document:
        head["id"] = _id_of(document)
    parameters = _parameters(document, "the request") if "parameters" in document else {}
    plain = (usual or _has_json_data(entries)) and documents.is_plain(text, names, strings)
    inputs = _usual_input(entries[0], signature.inputs, block) if usual and (plain or block) else None
    if inputs is None:
        if block:
            raise _Unusual
        inputs = signature.filled(_inputs(entries, plain, body, len(text), signature.inputs))
    wanted, outputs = _outputs(document.get("outputs"), parameters, signature)
    timeout_ns = _timeout_ns(parameters) if parameters else 0
    return V2Call(inputs, signature.check(inputs), outputs, timeout_ns, wanted, head)


def _usual_input(entry: dict[str, Any], specs: tuple[TensorSpec, ...], block: bytes) -> dict[str, Array] | None:
    """The single input with a plain list of numbers and nothing out of the way, which is what most requests bring."""
    spec = specs[0]
    shape, data = entry["shape"], entry["data"]
    if len(specs) != 1 or entry["name"] != spec.name or entry["datatype"] != spec.datatype.v2:
        return None
    if type(data) is not list or type(shape) is not list:
        return None
    count = 1
    for size in shape:
        if type(size) is not int or size < 1:
            return None
        count *= size
    wanted = tuple(shape)
    if not block:
        array = numbers.packed(data, spec, wanted if len(data) == count else None)
    else:
        array = numbers.from_block(block, spec)
        if array is not None and array.shape == (count,):
            array = array.reshape(wanted)
    return {spec.name: array} if array is not None and array.shape == wanted else None


def _names_in(document: dict[str, Any]) -> int:
    """How many names the members that we know have; checks how deep the others nest."""
    names = len(document)
    for key, value in document.items():
        if (key == "inputs" or key == "outputs") and type(value) is list:
            for entry in value:
                if type(entry) is dict:
                    names += _names_in_entry(entry)
        elif key == "parameters" and type(value) is dict:
            names += len(value)
        elif key != "id":
            documents.check_nesting(value, 1)
    return names


def _names_in_entry(entry: dict[str, Any]) -> int:
    parameters = entry.get("parameters")
    for key in entry:
        if key not in _ENTRY:
            documents.check_nesting(entry[key], 3)
    return len(entry) + (len(parameters) if type(parameters) is dict else 0)


def _strings_in(document: dict[str, Any]) -> int:
    """Name and datatype of each input, an output's name, the id. A string elsewhere makes the data not plain."""
    outputs = document.get("outputs")
    asked = len(outputs) if type(outputs) is list else 0
    return 2 * len(document["inputs"]) + asked + ("id" in document)


def _has_json_data(entries: list[Any]) -> bool:
    return any(type(entry) is dict and "data" in entry for entry in entries)


def _id_of(document: dict[str, Any]) -> str:
    if type(document["id"]) is not str:
        raise InvalidInput("the request's id is no string; a string is accepted")
    return document["id"]


def _decode_raw(body: bytes, signature: Signature, head: dict[str, Any]) -> V2Call:
    if len(signature.inputs) != 1:
        raise InvalidInput(
            f"a request without a JSON header is one tensor and the model has {len(signature.inputs)} inputs; "
            "send a header that names them"
        )
    spec = signature.inputs[0]
    inputs = {spec.name: binary.read_raw(body, spec)}
    wanted: list[Wanted] = [(output, True, 0) for output in signature.outputs]
    return V2Call(inputs, signature.check(inputs), None, 0, wanted, head)


def _parameters(entry: dict[str, Any], what: str, name: str = "") -> dict[str, Any]:
    """The parameters of the request, an input or an output; the reserved ones are checked where they are used."""
    parameters = entry.get("parameters")
    if parameters is None:
        return {}
    if type(parameters) is not dict:
        raise InvalidInput(f"the parameters of {_owner(what, name)} are no object; an object is accepted")
    for key, value in parameters.items():
        if key in ("binary_data_size", "binary_data_output", "binary_data"):
            continue
        if type(value) is dict or type(value) is list:
            raise InvalidInput(
                f"parameter {short(key)} of {_owner(what, name)} is a list or an object; "
                "strings, numbers, true and false are accepted"
            )
        if key.startswith("shared_memory_"):
            raise InvalidInput(
                f"{_owner(what, name)} asks for shared memory, which is not served; "
                "'data' and binary tensors are accepted"
            )
    return parameters


def _owner(what: str, name: str) -> str:
    return f"{what} {name!r}" if name else what


def _timeout_ns(parameters: dict[str, Any]) -> int:
    timeout = parameters.get("timeout", 0)
    if type(timeout) is not int or not 0 <= timeout <= _TIMEOUT_US_MAX:
        raise InvalidInput(f"parameter 'timeout' is {short(timeout)}; microseconds as a whole number are accepted")
    return timeout * 1000


def _inputs(
    entries: list[Any], plain: bool, body: bytes, offset: int, specs: tuple[TensorSpec, ...]
) -> dict[str, Array]:
    inputs: dict[str, Array] = {}
    for entry in entries:
        spec = _spec_of(entry, specs, "input")
        if spec.name in inputs:
            raise InvalidInput(f"the request has input {spec.name!r} twice; each input is accepted once")
        shape = _checked_shape(entry, spec)
        size = _binary_size(entry, spec)
        if size < 0:
            inputs[spec.name] = _from_json(entry["data"], spec, shape, plain)
            continue
        if offset + size > len(body):
            raise InvalidInput(
                f"input {spec.name!r} has binary_data_size {size} and {len(body) - offset} bytes are left of the "
                "body; the sizes add up to what follows the JSON"
            )
        inputs[spec.name] = binary.read(body, offset, size, spec, shape)
        offset += size
    if offset != len(body):
        raise InvalidInput(
            f"the body has {len(body) - offset} bytes after its last tensor; "
            "the sizes add up to what follows the JSON"
        )
    return inputs


def _spec_of(entry: Any, specs: tuple[TensorSpec, ...], what: str) -> TensorSpec:
    name = entry.get("name") if type(entry) is dict else None
    for spec in specs:
        if spec.name == name:
            return spec
    if type(name) is not str:
        raise InvalidInput(f'an {what} of the request has no name; {{"name": "..."}} is accepted')
    listed = ", ".join(f"{spec.name!r} ({spec.describe()})" for spec in specs)
    raise InvalidInput(f"there is no {what} {short(name)}; the model's {what}s are {listed}")


def _checked_shape(entry: dict[str, Any], spec: TensorSpec) -> list[int]:
    if entry.get("datatype") != spec.datatype.v2:
        raise InvalidInput(
            f"input {spec.name!r} has datatype {short(entry.get('datatype'))}; the model takes {spec.describe()}"
        )
    shape = entry.get("shape")
    if type(shape) is not list or len(shape) > 64:
        raise InvalidInput(f"input {spec.name!r} has no shape; a list of up to 64 sizes is accepted")
    for size in shape:
        if type(size) is not int or size < 0:
            raise InvalidInput(
                f"input {spec.name!r} has {short(size)} in its shape; sizes of 0 and more are accepted"
            )
    if 0 in shape:
        _check_empty(shape, spec)
    return shape


def _check_empty(shape: list[int], spec: TensorSpec) -> None:
    """No data bound the free sizes beside a 0, and a model may make an answer as large as they say."""
    fixed = spec.shape
    free = [size for axis, size in enumerate(shape) if size and (axis >= len(fixed) or size != fixed[axis])]
    if prod(free) > _EMPTY_MAX:
        raise InvalidInput(
            f"input {spec.name!r} is empty and its other free sizes are {free[:8]}; "
            f"sizes with a product of up to {_EMPTY_MAX} are accepted"
        )


def _binary_size(entry: dict[str, Any], spec: TensorSpec) -> int:
    """The size of an input's binary tensor; -1 where its data are in the JSON."""
    parameters = _parameters(entry, "input", spec.name)
    size = parameters.get("binary_data_size")
    if ("data" in entry) == ("binary_data_size" in parameters):
        found = "both" if "data" in entry else "neither"
        raise InvalidInput(
            f"input {spec.name!r} has {found} of 'data' and 'binary_data_size'; exactly one is accepted"
        )
    if "data" in entry:
        return -1
    if type(size) is not int or size < 0:
        raise InvalidInput(f"input {spec.name!r} has binary_data_size {short(size)}; a number of bytes is accepted")
    return size


def _from_json(data: object, spec: TensorSpec, shape: list[int], plain: bool) -> Array:
    array = numbers.tensor(data, spec, plain=plain, bits=True)
    wanted = tuple(shape)
    if array.shape == wanted:
        return array
    if array.ndim == 1 and array.size == prod(shape):
        return array.reshape(wanted)
    # Nested lists end at the first 0 of a shape: [[]] is all that [1, 0, 2] has.
    if not array.size and wanted[: array.ndim] == array.shape:
        return array.reshape(wanted)
    raise InvalidInput(
        f"input {spec.name!r} has the shape {shape} and data of shape {list(array.shape)}; "
        "data as the shape says, or all of them in one flat list, are accepted"
    )


def _outputs(
    entries: Any, parameters: dict[str, Any], signature: Signature
) -> tuple[list[Wanted], tuple[str, ...] | None]:
    """The wanted outputs in the caller's order, and their names in the model's (None for all of them)."""
    default = _flag(parameters, "binary_data_output", False, "the request") if parameters else False
    if entries is None or entries == []:
        return [(spec, default, 0) for spec in signature.outputs], None
    if type(entries) is not list:
        raise InvalidInput('the request\'s "outputs" is no list; [{"name": "..."}, ...] is accepted')
    wanted = [_wanted(entry, default, signature.outputs) for entry in entries]
    names = {spec.name for spec, _, _ in wanted}
    if len(names) != len(wanted):
        raise InvalidInput("the request names an output twice; each output is accepted once")
    if len(names) == len(signature.outputs):
        return wanted, None
    return wanted, tuple(spec.name for spec in signature.outputs if spec.name in names)


def _wanted(entry: Any, default: bool, specs: tuple[TensorSpec, ...]) -> Wanted:
    spec = _spec_of(entry, specs, "output")
    parameters = _parameters(entry, "output", spec.name)
    if not parameters:
        return spec, default, 0
    classes = parameters.get("classification", 0)
    if type(classes) is not int or classes < 0:
        raise InvalidInput(
            f"parameter 'classification' of output {spec.name!r} is {short(classes)}; a number of classes is accepted"
        )
    if classes and (spec.datatype is _BYTES or spec.maps):
        raise InvalidInput(
            f"output {spec.name!r} has no numbers to classify by ({spec.describe()}); leave 'classification' out"
        )
    return spec, _flag(parameters, "binary_data", default, f"output {spec.name!r}"), classes


def _flag(parameters: dict[str, Any], key: str, default: bool, owner: str) -> bool:
    value = parameters.get(key, default)
    if type(value) is not bool:
        raise InvalidInput(f"parameter {key!r} of {owner} is {short(value)}; true and false are accepted")
    return value


def _entry(wanted: Wanted, array: Array, blobs: list[bytes]) -> dict[str, Any]:
    """One output of the answer's JSON; a binary one's bytes go to `blobs`."""
    spec, as_binary, classes = wanted
    if classes:
        array = _classified(array, spec, classes)
    is_text = array.dtype.kind == "O"
    datatype = "BYTES" if is_text else spec.datatype.v2
    if as_binary:
        blob = binary.write_texts(answers.texts(array)) if is_text else array.tobytes()
        blobs.append(blob)
        size = {"binary_data_size": len(blob)}
        return {"name": spec.name, "datatype": datatype, "shape": array.shape, "parameters": size}
    if is_text:
        data: object = answers.texts(array)
    else:
        data = array.ravel() if spec.datatype is not Datatype.BF16 else answers.jsonable(array.ravel(), spec)
    return {"name": spec.name, "datatype": datatype, "shape": array.shape, "data": data}


def _classified(array: Array, spec: TensorSpec, classes: int) -> Array:
    """Texts `value:index` of the highest values, a row of them for each row where the output has rows."""
    if spec.datatype is Datatype.BF16:
        array = answers.widen_bfloat16(array)
    rows = array.shape[0] if spec.batch_axis == 0 else 1
    table = array.reshape(rows, prod(array.shape[1:]) if spec.batch_axis == 0 else array.size)
    order = np.argsort(table, axis=1, kind="stable")[:, ::-1][:, :classes]
    texts = np.empty(order.shape, np.object_)
    for row, indexes in enumerate(order):
        texts[row] = [f"{float(table[row, index]):f}:{index}" for index in indexes]
    return texts if spec.batch_axis == 0 else texts[0]
