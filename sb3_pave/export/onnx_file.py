"""A PyTorch module as an ONNX file that older and smaller engines read, too."""

from __future__ import annotations

import inspect
import io
import logging
import os
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from typing import Any

import torch as th
from torch import nn

from sb3_pave.export.errors import ExportError

#: What PyTorch's exporter writes by itself; onnxruntime has had every operator of it since 1.14
DEFAULT_OPSET = 18
#: IR version 4 and onnxruntime 0.5; older files list their parameters among the inputs
OLDEST_OPSET = 9


def check_packages() -> None:
    """:raises ImportError: if a package that exporting needs is missing; the message says how to get it"""
    needed = ["onnx", "onnxruntime", *(["onnxscript"] if _has_dynamo_exporter() else [])]
    for name in needed:
        try:
            __import__(name)
        except ImportError as error:
            raise ImportError(f'Exporting needs {name}: pip install "sb3-pave[export]"') from error


def check_opset(opset: int) -> None:
    """
    :param opset: version of ONNX's operators
    :raises ExportError: if it can't be written
    """
    from onnx.defs import onnx_opset_version

    newest = onnx_opset_version()
    if not isinstance(opset, int) or isinstance(opset, bool) or not OLDEST_OPSET <= opset <= newest:
        raise ExportError(f"The opset is a whole number from {OLDEST_OPSET} to {newest} (the installed onnx's); got {opset!r}")


def to_onnx(module: nn.Module, arguments: tuple[th.Tensor, ...], inputs: Sequence[str], fixed: bool, opset: int) -> Any:
    """
    Trace and convert; the exporter is the one that this version of PyTorch recommends.

    The IR version is the lowest that the opset needs. Intermediate shapes are left out, since they keep engines from giving
    the inputs other ones; so is what the exporter notes of the source code.

    :param module: takes ``arguments`` and returns one tensor
    :param arguments: example tensors, batch first
    :param inputs: names of the inputs
    :param fixed: whether the batch keeps the size that it has in ``arguments``
    :param opset: version of ONNX's operators
    :return: the ``onnx.ModelProto``; its output is called as :func:`output_name` says
    :raises ExportError: if the exporter fails
    """
    import onnx

    # Neutral names: the exporter names its own values after operators, and an entry may be called "add"
    neutral = [f"observation_{i}" for i in range(len(arguments))]
    common: dict[str, Any] = {"input_names": neutral, "output_names": ["action_0"], "opset_version": opset}
    if _has_dynamo_exporter():
        # It writes its own opset and newer ones; the one by tracing is the one that writes older ones
        dynamo = opset >= DEFAULT_OPSET
        common.update(dynamo=dynamo, external_data=False, verbose=False)
    else:
        dynamo = False
    if not fixed and dynamo:
        batch = th.export.Dim("batch", min=1)
        common.update(dynamic_shapes=(tuple({0: batch} for _ in arguments),))
    elif not fixed:
        common.update(dynamic_axes={name: {0: "batch"} for name in [*neutral, "action_0"]})
    with tempfile.TemporaryDirectory() as folder, _quiet():
        file = os.path.join(folder, "policy.onnx")
        try:
            th.onnx.export(module, arguments, file, **common)
            model = onnx.load(file)
        except Exception as error:
            raise ExportError(f"PyTorch's ONNX exporter failed on this policy with opset {opset}: {error}") from error
    if _opset_of(model) != opset:
        raise ExportError(f"PyTorch's exporter writes this policy with opset {_opset_of(model)}, not {opset}")
    _simplify(model)
    _put_back_inputs(model, neutral, arguments, fixed)
    _rename(model, {**dict(zip(neutral, inputs, strict=True)), "action_0": output_name(inputs)})
    try:
        onnx.checker.check_model(model)
    except Exception as error:
        raise ExportError(f"The exported graph is no valid ONNX: {error}") from error
    return model


def output_name(inputs: Sequence[str]) -> str:
    """
    :param inputs: names of the inputs
    :return: ``action``, or where an input is called that, ``action_output``
    """
    name = "action"
    while name in inputs:
        name += "_output"
    return name


def _simplify(model: Any) -> None:
    import onnx

    graph = model.graph
    del graph.value_info[:]
    for annotated in (model, graph, *graph.node, *graph.input, *graph.output, *graph.initializer):
        if hasattr(annotated, "metadata_props"):
            del annotated.metadata_props[:]
        annotated.ClearField("doc_string")
    used = {node.domain for node in graph.node} | {""}
    kept = [opset for opset in model.opset_import if opset.domain in used]
    del model.opset_import[:]
    model.opset_import.extend(kept)
    model.ir_version = onnx.helper.find_min_ir_version_for(kept)


def _put_back_inputs(model: Any, names: Sequence[str], arguments: tuple[th.Tensor, ...], fixed: bool) -> None:
    """The exporter by tracing drops the inputs that the policy makes no use of; whoever runs the graph gives them all."""
    import onnx

    written = {value.name: value for value in model.graph.input}
    for name, argument in zip(names, arguments, strict=True):
        kind = onnx.helper.np_dtype_to_tensor_dtype(argument.cpu().numpy().dtype)
        size, *shape = argument.shape
        value = onnx.helper.make_tensor_value_info(name, kind, [size if fixed else "batch", *shape])
        written.setdefault(name, value)
    del model.graph.input[:]
    model.graph.input.extend(written[name] for name in names)


def _rename(model: Any, names: dict[str, str]) -> None:
    """Give the graph's inputs and its output their names, and others to values inside that have one of those."""
    graph = model.graph
    values = {name for node in graph.node for name in (*node.input, *node.output)}
    taken = values | set(names) | set(names.values())
    renamed = dict(names)
    for name in sorted(values & set(names.values()) - set(names)):
        other = name
        while other in taken:
            other += "_"
        taken.add(other)
        renamed[name] = other
    for node in graph.node:
        for field in (node.input, node.output):
            field[:] = [renamed.get(name, name) for name in field]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = renamed.get(value.name, value.name)


def _opset_of(model: Any) -> int:
    return next(opset.version for opset in model.opset_import if opset.domain in ("", "ai.onnx"))


@contextmanager
def _quiet() -> Iterator[None]:
    """
    PyTorch's exporters warn about themselves and about packages they can do without; the graph is checked afterwards. Where
    they fail they print all of the policy, beside the error that says why.
    """
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    # The exporter by tracing prints from C++, where sys.stdout is not asked, as soon as it has switched its log on
    native: Any = th._C
    switch = getattr(native, "_jit_set_onnx_log_enabled", None)
    native._jit_set_onnx_log_enabled = lambda enabled: None
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
        native._jit_set_onnx_log_enabled = switch


def _has_dynamo_exporter() -> bool:
    """PyTorch 2.6 made it fit for use and later versions the default; before, the one by tracing is the better one."""
    return "external_data" in inspect.signature(th.onnx.export).parameters
