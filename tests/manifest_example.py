"""A manifest as a real run writes it: a small ResNet on digits, pruned, folded and quantized."""

from pathlib import Path

from slimwright.measure import HASHED, MANIFEST, NET, RECIPE, Decision, Parity, Timing, as_json
from slimwright.measure.bundle import CandidateRecord, Layer, Manifest, Memories, Memory, ModelRecord, Summary
from slimwright.measure.records import DataCard, TaskCard
from slimwright.reading import sha256_of
from slimwright.tasks import Classification
from slimwright.techniques import Fold, Prune, Quantize, Recipe, Tune

WIDTHS = {  # layer -> channels before, after, side of its output
    "stem.conv": (16, 16, 32),
    "stage1.block0.conv1": (16, 8, 32),
    "stage1.block0.conv2": (16, 16, 32),
    "stage2.block0.conv1": (32, 16, 16),
    "stage2.block0.conv2": (32, 24, 16),
    "stage3.block0.conv1": (64, 32, 8),
    "stage3.block0.conv2": (64, 40, 8),
}
SHAPE = [1, 32, 32]
DIGEST = "5f70bf18a086007016e948b04aed3b82103a36bea41755b6cddfaf10ace3c6ef"


def layers() -> list[Layer]:
    """Return every convolution, then the classifier."""
    found, read = [], (1, 1)
    for name, (before, after, side) in WIDTHS.items():
        weights = (before * read[0] * 9, after * read[1] * 9)
        pixels = side * side
        macs = (weights[0] * pixels, weights[1] * pixels)
        found.append(_layer(name, "conv2d", (before, after), macs, weights, pixels))
        read = before, after
    return [*found, _layer("head", "linear", (10, 10), (640, 400), (650, 410), 1)]


def _layer(
    name: str, op: str, channels: tuple[int, int], macs: tuple[int, int], weights: tuple[int, int], pixels: int
) -> Layer:
    return Layer(
        name=name,
        op=op,
        channels_before=channels[0],
        channels_after=channels[1],
        macs_before=macs[0],
        macs_after=macs[1],
        weight_bytes_before=4 * weights[0],
        weight_bytes_after=4 * weights[1],
        output_bytes_before=4 * channels[0] * pixels,
        output_bytes_after=4 * channels[1] * pixels,
    )


def example_manifest() -> Manifest:
    """Return the manifest of a run that met its budget."""
    return Manifest(
        created="2025-03-04T10:11:12+00:00",
        seconds={"measure the original": 4.21, "observe": 1.02, "plan": 12.4, "solve": 9.8, "prove": 8.77},
        model="resnet8",
        runtime="onnxruntime",
        seed=0,
        versions={"slimwright": "0.1.0", "torch": "2.13.0", "onnxruntime": "1.22.1", "numpy": "2.2.0"},
        target="this machine",
        machine={"cpu": "Example 9", "cores": 8, "system": "Linux 6.8", "runtimes": {"onnxruntime": "1.22.1"}},
        budget={"latency_ms": "0.5x", "size_bytes": "150kB", "max_drop": "1.0"},
        limits={"latency_ms": 0.256, "size_bytes": 150_000.0},
        max_drop=1.0,
        channel_step=8,
        empty_runtime_rss_bytes=41_200_000,
        task=TaskCard.of(Classification(tuple(map(str, range(10))))),
        data=_data(),
        summary=Summary(
            score_original=98.61,
            score=98.33,
            drop=0.28,
            latency_ms_original=0.512,
            latency_ms=0.2438,
            latency_ratio=0.2438 / 0.512,
            size_bytes_original=312_430,
            size_bytes=81_232,
            within_budget=True,
            misses=[],
        ),
        original=_original(),
        result=_result(),
        reading=_parity(1.2e-6, 1.0, "fp32"),
        proof=_parity(0.0412, 0.9972, "int8"),
        candidates=_candidates(),
        decisions=_decisions(),
        layers=layers(),
        memory=_memory(),
        sha256={"model.onnx": DIGEST, "original.onnx": DIGEST[::-1], "recipe.json": DIGEST[32:] + DIGEST[:32]},
    )


def example_recipe() -> Recipe:
    """Return the recipe that goes with the manifest."""
    keep = {"stage1.block0.conv1": list(range(8)), "stage2.block0.conv1": list(range(0, 32, 2))}
    steps = (Prune(keep=keep), Tune(epochs=3, rate=0.02, seed=0), Fold(), Quantize(images=270))
    return Recipe(original=DIGEST, steps=steps)


def example_bundle(folder: Path) -> Path:
    """Write a bundle whose hashes fit, but whose models are no models, and return its folder."""
    manifest = example_manifest()
    models = (*manifest.original.files, *manifest.result.files)
    (folder / NET).mkdir(parents=True)
    (folder / RECIPE).write_text(as_json(example_recipe()))
    for name in (*HASHED[1:], *models):
        (folder / name).write_bytes(b"0")
    digests = {name: sha256_of(folder / name) for name in (*HASHED, *models)}
    (folder / MANIFEST).write_text(as_json(manifest.model_copy(update={"sha256": digests})))
    return folder


def _parity(error: float, agreement: float, precision: str) -> Parity:
    eight = precision == "int8"
    return Parity(
        images=360,
        max_abs_error=17.3 * error,
        max_relative_error=error,
        tolerance=0.5 if eight else 1e-3,
        agreement=agreement,
        least_agreement=0.95 if eight else 0.995,
        passed=True,
    )


def _data() -> DataCard:
    return DataCard(
        name="digits",
        labels=[str(label) for label in range(10)],
        image_shape=SHAPE,
        preprocessing={
            "input": "grey levels 0..16",
            "resize": [32, 32],
            "mean": [0.305],
            "std": [0.324],
            "layout": "NCHW",
        },
        sizes={"train": 898, "calibration": 270, "validation": 269, "test": 360},
    )


def _original() -> ModelRecord:
    return ModelRecord(
        precision="fp32",
        score=98.61,
        latency=Timing(median_ms=0.512, p10_ms=0.498, p90_ms=0.561, runs=200, cpu_ms=0.51),
        size_bytes=312_430,
        macs=11_944_576,
        params=74_522,
        weight_bytes=298_088,
        peak_activation_bytes=196_608,
        arena_bytes=196_608,
        peak_rss_bytes=49_300_000,
        cold_start_ms=21.0,
        planned_bytes=None,
        files=["original.onnx"],
        input_shapes=[[1, *SHAPE]],
        output_shapes=[[1, 10]],
        kernel_ms={"Conv": 0.47, "FusedConv": 0.031, "MaxPool": 0.012, "Gemm": 0.004},
    )


def _result() -> ModelRecord:
    return ModelRecord(
        precision="int8",
        score=98.33,
        latency=Timing(median_ms=0.2438, p10_ms=0.2391, p90_ms=0.2702, runs=200, cpu_ms=0.24),
        size_bytes=81_232,
        macs=5_161_360,
        params=27_050,
        weight_bytes=108_200,
        peak_activation_bytes=131_072,
        arena_bytes=139_264,
        peak_rss_bytes=45_100_000,
        cold_start_ms=17.5,
        planned_bytes=None,
        files=["model.onnx"],
        input_shapes=[[1, *SHAPE]],
        output_shapes=[[1, 10]],
        kernel_ms={"QLinearConv": 0.198, "MaxPool": 0.011, "QGemm": 0.003, "QuantizeLinear": 0.009},
    )


def _candidates() -> list[CandidateRecord]:
    return [
        _candidate("original", "fp32", (None, None), (0.512, 312_430, 11_944_576, 98.88)),
        _candidate("int8", "int8", (None, None), (0.331, 96_110, 11_944_576, 98.51)),
        _candidate("pruned", "fp32", (0.251, 2.1e-3), (0.2551, 160_800, 5_161_360, 97.77)),
        _candidate("pruned, int8", "int8", (0.249, 1.3e-3), (0.2459, 81_230, 5_161_360, 97.02)),
        _candidate("pruned, int8, tuned", "int8", (0.249, 1.3e-3), (0.2438, 81_232, 5_161_360, 98.51), chosen=True),
    ]


def _candidate(
    name: str,
    precision: str,
    predicted: tuple[float | None, float | None],
    measured: tuple[float, int, int, float],
    *,
    chosen: bool = False,
) -> CandidateRecord:
    return CandidateRecord(
        name=name,
        precision="int8" if precision == "int8" else "fp32",
        predicted_latency_ms=predicted[0],
        predicted_damage=predicted[1],
        latency_ms=measured[0],
        size_bytes=measured[1],
        macs=measured[2],
        validation_score=measured[3],
        proven=True,
        chosen=chosen,
    )


def _decisions() -> list[Decision]:
    return [
        Decision(
            what="INT8", outcome="kept", why="the whole original takes 0.65x its FP32 time on this runtime; measured"
        ),
        Decision(
            what="fine-tuning",
            outcome="kept",
            why="3 epochs with the original as teacher: 1.86 points lost before, 0.37 after",
        ),
        Decision(what="candidate 'pruned'", outcome="not chosen", why="size_bytes is 1.07x its limit"),
        Decision(what="stage1.block0.conv1: 16 -> 8 channels", outcome="kept", why="predicted damage 3.1e-04 nats"),
        Decision(what="stem.conv: all 16 channels", outcome="left whole", why="the budget is met without cutting it"),
        Decision(what="head: all channels", outcome="left whole", why="they must stay: they are the scores"),
    ]


def _memory() -> Memories:
    nodes, before, after = ["input"], [4096], [4096]
    for layer in layers():
        nodes += [layer.name, "relu"]  # one module that runs after every layer
        before += [layer.output_bytes_before + before[-1] // 2, layer.output_bytes_before]
        after += [layer.output_bytes_after + after[-1] // 2, layer.output_bytes_after]
    return Memories(original=Memory(nodes=nodes, live_bytes=before), result=Memory(nodes=nodes, live_bytes=after))
