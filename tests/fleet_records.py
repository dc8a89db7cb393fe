"""Records of deployments as a fleet writes them."""

from slimwright.measure import Deployed, ModelProof, Parity, Predicted, ProvenSide

PARITY = Parity(
    images=90,
    max_abs_error=1e-6,
    max_relative_error=1e-6,
    tolerance=1e-3,
    agreement=1,
    least_agreement=0.995,
    passed=True,
)


def side(ms: float, score: float = 99.0) -> ProvenSide:
    return ProvenSide(
        score=score,
        latency_ms=ms,
        size_bytes=300_000,
        macs=4_000_000,
        weight_bytes=290_000,
        peak_activation_bytes=65_000,
    )


def deployed(subset: str = "every", latency: str = "0.5x", *, within: bool = True, **more: object) -> Deployed:
    """A deployment with a limit on latency, whose result takes 0.4 ms where its original takes 1 ms."""
    name = f"{subset}/{latency}"
    model = ModelProof(
        key="5f70bf18a086007016e948b0",
        candidate="pruned",
        precision="fp32",
        predicted=Predicted(plan="pruned", costs={"latency_ms": 0.46}, damage=0.002, feasible=True),
        chosen_by={"latency_ms": 0.41, "score": 98.0},
        original=side(1.0, 99.5),
        result=side(0.4),
        reading=PARITY,
        proof=PARITY,
        interval=None,
        packed_bytes=150_000,
        is_delta=False,
        sha256={"model.onnx": "0" * 64},
    )
    values = {
        "key": name,
        "name": name,
        "subset": subset,
        "classes": ["cat", "dog"],
        "budget": latency,
        "asked": {"latency": latency},
        "max_drop": 1.0,
        "runtime": "onnxruntime",
        "limits": {"latency_ms": float(latency.removesuffix("x"))},  # the original takes 1 ms
        "model": model,
        "drop": 0.5,
        "within_budget": within,
        "misses": [] if within else ["latency_ms is 0.4, 10.0 % over its limit of 0.36"],
        "corrections": {"latency_ms": {"predicted": 0.9, "measured": 1.0}},
        "tried": 1,
        "seconds": 3.0,
    }
    return Deployed.model_validate(values | more)
