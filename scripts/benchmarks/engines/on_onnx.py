"""The image tower exported from PyTorch to ONNX once, then run by ONNX Runtime or OpenVINO.

In int8 ONNX Runtime's own dynamic quantization makes the program: weights in 8 bits, activations as
they come.
"""

import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from engines.process import OPENVINO_SETTINGS

VERSION = ", ".join(f"{name} {version(name)}" for name in ("onnxruntime", "openvino", "torch"))
CACHE = Path(__file__).resolve().parents[3] / ".cache" / "bench" / "onnx"
OUTPUTS = ("groups", "assignment")


def make(name: str, folder: Path, threads: int) -> Any:
    CACHE.mkdir(parents=True, exist_ok=True)
    written = int((folder / "model.safetensors").stat().st_mtime)
    file = CACHE / f"{folder.resolve().name}-{written}.onnx"
    if not file.exists():
        export(folder, file)
    if "int8" in name:
        file = in_int8(file)
    return (OnnxRuntime if name.startswith("onnxruntime") else OpenVino)(file, threads)


def export(folder: Path, file: Path) -> None:
    import torch
    from transformers import GroupViTModel

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tower = GroupViTModel.from_pretrained(folder).eval().vision_model

        def forward(self, pixels: Any) -> Any:
            found = self.tower(pixels, output_attentions=True, return_dict=True)
            return found.last_hidden_state, found.attentions[0]

    axes = {name: {0: "images"} for name in ("pixels", *OUTPUTS)}
    pixels, beside = torch.randn(2, 3, 224, 224), file.with_suffix(".part")
    with torch.no_grad():
        names: dict[str, Any] = dict(
            input_names=["pixels"], output_names=list(OUTPUTS), dynamic_axes=axes
        )
        torch.onnx.export(Tower(), (pixels,), str(beside), dynamo=False, opset_version=17, **names)
    beside.rename(file)


def in_int8(file: Path) -> Path:
    """The same in 8 bits, a scale for each output, made once."""
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    small = file.with_suffix(".int8.onnx")
    if not small.exists():
        inferred, beside = file.with_suffix(".inferred.part"), file.with_suffix(".int8.part")
        quant_pre_process(str(file), str(inferred), skip_symbolic_shape=True)
        quantize_dynamic(str(inferred), str(beside), per_channel=True, weight_type=QuantType.QInt8)
        inferred.unlink()
        beside.rename(small)
    return small


class OnnxRuntime:
    def __init__(self, file: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        spin = (
            "1" if os.environ.get("OMP_WAIT_POLICY") == "ACTIVE" else "0"
        )  # as all engines (process.py)
        options.add_session_config_entry("session.intra_op.allow_spinning", spin)
        self.session = onnxruntime.InferenceSession(
            str(file), options, providers=["CPUExecutionProvider"]
        )

    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        return dict(zip(OUTPUTS, self.session.run(list(OUTPUTS), {"pixels": pixels}), strict=True))


class OpenVino:
    def __init__(self, file: Path, threads: int) -> None:
        import openvino

        settings = {**OPENVINO_SETTINGS, "INFERENCE_NUM_THREADS": threads}
        self.model = openvino.Core().compile_model(str(file), "CPU", settings)

    def tower(self, pixels: np.ndarray) -> dict[str, Any]:
        found = self.model([pixels])
        return {name: found[i] for i, name in enumerate(OUTPUTS)}
