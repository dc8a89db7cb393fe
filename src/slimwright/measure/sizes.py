"""What became of the sizes that a model's file leaves free, as decisions."""

from collections.abc import Iterator

from slimwright.graph import Net
from slimwright.measure.records import Decision
from slimwright.runtimes import RUNTIMES, Artefact

KEEP_SIZES_FREE = ("onnxruntime", "ort")


def decisions_on_sizes(original: Net, artefact: Artefact) -> Iterator[Decision]:
    """Yield a decision for each size that the original's file leaves free."""
    free = dict(artefact.free_sizes)
    for size in original.ends.sizes if original.ends else ():
        number, axis = size.places[0]
        fixed = f"it is {original.inputs[number].shape[axis]} in the artefact: "
        what = f"free size '{size.name}'"
        if size.name in free:
            step = f"in steps of {size.step} " * (size.step > 1)
            why = f"the artefact takes others {step}too; it was compared with the network at two of them"
            yield Decision(what=what, outcome="kept", why=why)
        elif artefact.runtime not in KEEP_SIZES_FREE:
            why = f"{fixed}those of {RUNTIMES[artefact.runtime].title} have fixed sizes"
            yield Decision(what=what, outcome="left whole", why=why)
        elif not size.step:
            yield Decision(what=what, outcome="taken back", why=f"{fixed}numbers in the network follow from it")
        else:
            yield Decision(what=what, outcome="taken back", why=f"{fixed}at others it computes something else")
