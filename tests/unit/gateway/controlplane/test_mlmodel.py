"""MLmodel files: what is read of them, and what is refused with what was found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.controlplane.mlmodel import BYTES_MAX, MlModel, MlModelError, read_mlmodel

# As mlflow 3 writes it.
SAVED = """flavors:
  python_function:
    env:
      conda: conda.yaml
      virtualenv: python_env.yaml
    loader_module: mlflow.sklearn
    model_path: model.pkl
    predict_fn: predict
    python_version: 3.11.7
  sklearn:
    code: null
    pickled_model: model.pkl
    serialization_format: cloudpickle
is_signature_from_type_hint: false
mlflow_version: 3.17.2
model_id: null
saved_input_example_info:
  artifact_path: input_example.json
signature:
  inputs: '[{"type": "double", "name": "a", "required":
    true}]'
  outputs: null
"""


def read(text: str) -> MlModel:
    return read_mlmodel(text.encode())


def refused(text: str) -> str:
    with pytest.raises(MlModelError) as caught:
        read(text)
    return str(caught.value)


def python(**members: str) -> str:
    lines = "".join(f"    {name}: {value}\n" for name, value in {"loader_module": "m", **members}.items())
    return f"flavors:\n  python_function:\n{lines}"


def test_a_saved_model_has_its_flavours_and_the_files_of_its_environment() -> None:
    assert read(SAVED) == MlModel(has_python_function=True, conda="conda.yaml", virtualenv="python_env.yaml")


def test_an_environment_may_be_one_name_as_older_models_have_it() -> None:
    assert read(python(env="conda.yaml")).conda == "conda.yaml"
    assert read(python()) == MlModel(has_python_function=True)
    assert read(python(env="null")) == MlModel(has_python_function=True)
    assert read(python(env="{virtualenv: ./e/python_env.yaml}")).virtualenv == "e/python_env.yaml"


def test_an_onnx_flavour_names_its_file_alone_or_beside_python() -> None:
    assert read("flavors: {onnx: {data: model.onnx, onnx_version: 1.18}}") == MlModel(onnx="model.onnx")
    both = read(python(data="model.onnx") + "  onnx: {data: model.onnx}\n")
    assert both == MlModel(has_python_function=True, onnx="model.onnx")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "MLmodel has 0 documents"),
        ("[1]", "the file is no mapping"),
        ("a: 1\n---\nb: 1\n", "MLmodel has 2 documents"),
        ("a: [", "MLmodel:2: not YAML"),
        ("mlflow_version: 3", "flavors is missing"),
        ("flavors: []", "flavors is no mapping"),
        ("flavors: {}", "has the flavors none; accepted: python_function or onnx"),
        ("flavors: {sklearn: {}, spark: {}}", "has the flavors sklearn, spark; accepted: python_function or onnx"),
        ("flavors: {python_function: {}}", "flavors.python_function.loader_module is missing"),
        ("flavors: {python_function: {loader_module: []}}", "flavors.python_function.loader_module is no text"),
        ("flavors: {python_function: 1}", "flavors.python_function is no mapping"),
        ("flavors: {onnx: {}}", "flavors.onnx names no data; accepted: its ONNX file"),
        (python(env="[a]"), "flavors.python_function.env is no mapping"),
        (python(env="{docker: d}"), "flavors.python_function.env has docker; accepted: conda, virtualenv"),
        (python(env="../conda.yaml"), "env is '../conda.yaml'; accepted: a path inside the model's folder"),
        (python(env="{conda: /etc/passwd}"), "env.conda is '/etc/passwd'; accepted: a path inside"),
        (python(data="a/../../b"), "python_function.data is 'a/../../b'; accepted: a path inside"),
        (python(model_path="..\\b"), "python_function.model_path is '..\\\\b'; accepted: a path inside"),
        (python(code="/lib"), "python_function.code is '/lib'; accepted: a path inside"),
        ("flavors: {onnx: {data: ../m.onnx}}", "flavors.onnx.data is '../m.onnx'; accepted: a path inside"),
    ],
)
def test_what_cannot_be_served_is_said_with_its_place(text: str, said: str) -> None:
    assert said in refused(text)


def test_a_file_has_a_bound() -> None:
    assert f"accepted: at most {BYTES_MAX}" in refused("#" * (BYTES_MAX + 1))


@given(st.binary(max_size=300) | st.text(max_size=200).map(str.encode))
def test_whatever_it_holds_is_read_or_refused(data: bytes) -> None:
    try:
        found = read_mlmodel(data)
    except MlModelError as error:
        assert str(error).startswith("MLmodel")
    else:
        assert found.onnx or found.has_python_function
