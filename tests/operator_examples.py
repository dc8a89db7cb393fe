"""Legal calls of operators whose arguments are too particular to be drawn at random."""

from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class T:
    """A tensor of a shape; integers below `below`."""

    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    below: int = 0


def index(*shape: int, below: int) -> T:
    """A tensor of places below a number."""
    return T(shape, torch.int64, below)


def mask(*shape: int) -> T:
    """A tensor of truths."""
    return T(shape, torch.bool, 2)


def cuboid(rank: int) -> T:
    """An image of `rank` dimensions behind batch and channels."""
    return T((2, 4, *(6, 5, 4)[:rank]))


def convolutions(rank: int) -> list[dict[str, Any]]:
    """Ordinary, grouped, strided and dilated."""
    ones, twos, image = (1,) * rank, (2,) * rank, cuboid(rank)
    return [
        {"input": image, "weight": T((3, 4, *(3,) * rank)), "bias": T((3,)), "padding": ones},
        {"input": image, "weight": T((4, 1, *twos)), "groups": 4, "stride": twos},
        {"input": image, "weight": T((4, 2, *twos)), "groups": 2, "dilation": twos, "padding": twos},
    ]


def padded_convolutions(rank: int) -> list[dict[str, Any]]:
    """With their padding in words."""
    return [
        {**{key: value for key, value in one.items() if key != "stride"}, "padding": "same"}
        for one in convolutions(rank)
    ]


def transposed_convolutions(rank: int) -> list[dict[str, Any]]:
    """Ordinary, and grouped with what is left over."""
    ones, twos, image = (1,) * rank, (2,) * rank, cuboid(rank)
    return [
        {"input": image, "weight": T((4, 3, *twos)), "bias": T((3,)), "stride": twos},
        {
            "input": image, "weight": T((4, 2, *(3,) * rank)), "stride": twos, "padding": ones, "output_padding": ones,
            "groups": 2, "dilation": ones,
        },
    ]  # fmt: skip


def general_convolutions(**more: bool) -> list[dict[str, Any]]:
    """As torch's own decompositions write them."""
    ones = (1, 1)
    shared = {"stride": ones, "padding": ones, "dilation": ones, "output_padding": (0, 0), "groups": 1, **more}
    return [
        {"input": cuboid(2), "weight": T((3, 4, 3, 3)), "bias": T((3,)), "transposed": False, **shared},
        {"input": cuboid(2), "weight": T((4, 3, 3, 3)), "bias": None, "transposed": True, **shared},
    ]


def pools(rank: int, **more: Any) -> list[dict[str, Any]]:
    """With and without a stride and padding."""
    return [
        {"self": cuboid(rank), "kernel_size": (2,) * rank, **more},
        {
            "self": cuboid(rank),
            "kernel_size": (3,) * rank,
            "stride": (2,) * rank,
            "padding": (1,) * rank,
            "ceil_mode": True,
        },
    ]


def pads(rank: int) -> list[dict[str, Any]]:
    """More on one side than on the other."""
    return [
        {"self": cuboid(rank), "padding": (1, 2) * rank},
        {"self": cuboid(rank), "padding": (0, 3, -1, 1, 1, 0)[: 2 * rank]},
    ]


def resizes(rank: int, *, aligned: bool, scales: int) -> dict[str, list[dict[str, Any]]]:
    """To a size, by its two overloads; `scales` is how many the default overload has names for."""
    corners = {"align_corners": False} if aligned else {}
    sized = {"self": cuboid(rank), "output_size": (7, 4, 3)[:rank], **corners}
    return {
        ".default": [sized, {**sized, "scales": 2.0} if scales == 1 else {**sized, "scales_h": 1.5, "scales_w": 0.5}],
        ".vec": [
            {"input": cuboid(rank), "output_size": (7, 4, 3)[:rank], "scale_factors": None, **corners},
            {"input": cuboid(rank), "output_size": None, "scale_factors": (2.0, 1.5, 0.5)[:rank], **corners},
        ],
    }


def recurrent(gates: int, states: int) -> list[dict[str, Any]]:
    """Two layers, one of them in both directions; 3 numbers in, 2 out."""

    def parameters(inputs: int) -> list[T]:
        return [T((2 * gates, inputs)), T((2 * gates, 2)), T((2 * gates,)), T((2 * gates,))]

    state = [T((2, 2, 2))] * states if states > 1 else T((2, 2, 2))
    shared = {
        "input": T((4, 2, 3)),
        "hx": state,
        "has_biases": True,
        "dropout": 0.0,
        "train": False,
        "batch_first": False,
    }
    return [
        {**shared, "params": parameters(3) * 2, "num_layers": 1, "bidirectional": True},
        {**shared, "params": [*parameters(3), *parameters(2)], "num_layers": 2, "bidirectional": False},
    ]


FEATURES = {"weight": T((4,)), "bias": T((4,))}
STATISTICS = {**FEATURES, "running_mean": T((4,)), "running_var": T((4,))}
TABLE, IMAGE = T((3, 4)), cuboid(2)
GRID = {"interpolation_mode": 0, "padding_mode": 0, "align_corners": False}
PICK = {"self": TABLE, "dim": 1, "index": index(3, 2, below=4)}
SQUARES = {"kernel_size": (2, 2), "dilation": (1, 1), "padding": (0, 1), "stride": (2, 1)}
RESIZES = {
    "upsample_nearest1d": (1, False, 1), "upsample_nearest2d": (2, False, 2), "upsample_nearest3d": (3, False, 2),
    "_upsample_nearest_exact1d": (1, False, 1), "_upsample_nearest_exact2d": (2, False, 2),
    "_upsample_nearest_exact3d": (3, False, 2), "upsample_linear1d": (1, True, 1), "upsample_bilinear2d": (2, True, 2),
    "upsample_bicubic2d": (2, True, 2), "upsample_trilinear3d": (3, True, 2), "_upsample_bilinear2d_aa": (2, True, 2),
    "_upsample_bicubic2d_aa": (2, True, 2),
}  # fmt: skip

EXAMPLES: dict[str, list[dict[str, Any]]] = {
    **{f"conv{rank}d.default": convolutions(rank) for rank in (1, 2, 3)},
    **{f"conv{rank}d.padding": padded_convolutions(rank) for rank in (1, 2, 3)},
    **{
        f"conv_transpose{rank}d.{'default' if rank == 1 else 'input'}": transposed_convolutions(rank)
        for rank in (1, 2, 3)
    },
    "convolution.default": general_convolutions(),
    "_convolution.default": general_convolutions(
        benchmark=False, deterministic=False, cudnn_enabled=False, allow_tf32=False
    ),
    **{f"max_pool{rank}d.default": pools(rank) for rank in (1, 2, 3)},
    **{f"max_pool{rank}d_with_indices.default": pools(rank) for rank in (1, 2, 3)},
    **{f"avg_pool{rank}d.default": pools(rank, count_include_pad=False) for rank in (1, 2, 3)},
    **{
        f"{name}{rank}d.default": [{"self": cuboid(rank), "output_size": (3, 1, 7)[:rank]}]
        for name in ("adaptive_avg_pool", "adaptive_max_pool", "_adaptive_avg_pool")
        for rank in (1, 2, 3)
    },
    **{f"{kind}_pad{rank}d.default": pads(rank) for kind in ("reflection", "replication") for rank in (1, 2, 3)},
    "pad.default": [{"self": IMAGE, "pad": (1, 2, 0, 1), "mode": mode} for mode in ("constant", "reflect", "circular")],
    "constant_pad_nd.default": [{"self": IMAGE, "pad": (1, 2, -1, 1), "value": 0.5}],
    **{
        name + overload: calls
        for name, (rank, aligned, scales) in RESIZES.items()
        for overload, calls in resizes(rank, aligned=aligned, scales=scales).items()
    },
    "batch_norm.default": [
        {"input": IMAGE, **STATISTICS, "training": False, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": True},
        {"input": IMAGE, **STATISTICS, "training": True, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": True},
    ],
    "native_batch_norm.default": [{"input": IMAGE, **STATISTICS, "training": False, "momentum": 0.1, "eps": 1e-5}],
    "_native_batch_norm_legit_no_training.default": [{"input": IMAGE, **STATISTICS, "momentum": 0.1, "eps": 1e-5}],
    "instance_norm.default": [
        {"input": IMAGE, **STATISTICS, "use_input_stats": True, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": True},
        {"input": IMAGE, **FEATURES, "use_input_stats": True, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": True},
    ],
    "layer_norm.default": [{"input": TABLE, "normalized_shape": (4,), **FEATURES}],
    "native_layer_norm.default": [{"input": TABLE, "normalized_shape": (4,), **FEATURES, "eps": 1e-5}],
    "rms_norm.default": [{"input": TABLE, "normalized_shape": (4,), "weight": T((4,))}],
    "group_norm.default": [{"input": IMAGE, "num_groups": 2, **FEATURES}],
    "native_group_norm.default": [
        {"input": IMAGE, **FEATURES, "N": 2, "C": 4, "HxW": 30, "group": 2, "eps": 1e-5},
    ],
    "prelu.default": [{"self": IMAGE, "weight": T((4,))}, {"self": IMAGE, "weight": T((1,))}],
    "glu.default": [{"self": IMAGE, "dim": 1}],
    "linear.default": [{"input": TABLE, "weight": T((2, 4)), "bias": T((2,))}],
    "bilinear.default": [{"input1": TABLE, "input2": T((3, 2)), "weight": T((5, 4, 2)), "bias": T((5,))}],
    "matmul.default": [{"self": TABLE, "other": T((4, 2))}, {"self": T((2, 3, 4)), "other": T((4,))}],
    "linalg_matmul.default": [{"self": T((2, 1, 3, 4)), "other": T((5, 4, 2))}],
    "mm.default": [{"self": TABLE, "mat2": T((4, 2))}],
    "bmm.default": [{"self": T((2, 3, 4)), "mat2": T((2, 4, 5))}],
    "mv.default": [{"self": TABLE, "vec": T((4,))}],
    "dot.default": [{"self": T((4,)), "tensor": T((4,))}],
    "vdot.default": [{"self": T((4,)), "other": T((4,))}],
    "inner.default": [{"self": TABLE, "other": T((2, 4))}],
    "outer.default": [{"self": T((4,)), "vec2": T((3,))}],
    "addmm.default": [{"self": T((2,)), "mat1": TABLE, "mat2": T((4, 2))}],
    "addmv.default": [{"self": T((3,)), "mat": TABLE, "vec": T((4,))}],
    "addr.default": [{"self": TABLE, "vec1": T((3,)), "vec2": T((4,))}],
    "addbmm.default": [{"self": T((3, 5)), "batch1": T((2, 3, 4)), "batch2": T((2, 4, 5))}],
    "baddbmm.default": [{"self": T((2, 3, 5)), "batch1": T((2, 3, 4)), "batch2": T((2, 4, 5))}],
    "linalg_vecdot.default": [{"x": TABLE, "y": T((4,))}],
    "cdist.default": [{"x1": T((2, 3, 4)), "x2": T((2, 5, 4)), "p": p} for p in (2.0, 1.0, 0.0, float("inf"))],
    "tensordot.default": [{"self": TABLE, "other": T((4, 2)), "dims_self": (1,), "dims_other": (0,)}],
    "einsum.default": [
        {"equation": "ab,bc->ac", "tensors": [TABLE, T((4, 2))]},
        {"equation": "...ij,...jk", "tensors": [T((2, 3, 4)), T((1, 4, 2))]},
        {"equation": "bnd,md->bnm", "tensors": [T((2, 3, 4)), T((5, 4))]},
    ],
    "scaled_dot_product_attention.default": [
        {"query": T((1, 2, 3, 4)), "key": T((1, 2, 5, 4)), "value": T((1, 2, 5, 4))},
        {"query": T((2, 3, 4)), "key": T((2, 5, 4)), "value": T((2, 5, 6)), "attn_mask": T((3, 5)), "scale": 0.5},
        {
            "query": T((1, 4, 3, 4)),
            "key": T((1, 2, 3, 4)),
            "value": T((1, 2, 3, 4)),
            "is_causal": True,
            "enable_gqa": True,
        },
    ],
    "lstm.input": recurrent(4, 2),
    "gru.input": recurrent(3, 1),
    "rnn_tanh.input": recurrent(1, 1),
    "rnn_relu.input": recurrent(1, 1),
    "embedding.default": [{"weight": T((7, 4)), "indices": index(2, 3, below=7)}],
    "one_hot.default": [{"self": index(3, below=4), "num_classes": 4}],
    "index_select.default": [{"self": TABLE, "dim": 1, "index": index(5, below=4)}],
    "gather.default": [PICK],
    "take_along_dim.default": [{"self": TABLE, "indices": index(3, 2, below=4), "dim": 1}],
    "scatter.src": [{**PICK, "src": T((3, 2))}],
    "scatter.value": [{**PICK, "value": 1.0}],
    "scatter_add.default": [{**PICK, "src": T((3, 2))}],
    "index_add.default": [{"self": TABLE, "dim": 1, "index": index(2, below=4), "source": T((3, 2))}],
    "index_fill.int_Scalar": [{"self": TABLE, "dim": 1, "index": index(2, below=4), "value": 1.0}],
    "index_fill.int_Tensor": [{"self": TABLE, "dim": 1, "index": index(2, below=4), "value": T(())}],
    "index.Tensor": [
        {"self": IMAGE, "indices": [None, index(3, below=4)]},
        {"self": IMAGE, "indices": [index(2, 1, below=2), index(3, below=4)]},
    ],
    "index_put.default": [
        {"self": TABLE, "indices": [index(2, below=3)], "values": T((4,)), "accumulate": accumulate}
        for accumulate in (False, True)
    ],
    "masked_fill.Scalar": [{"self": TABLE, "mask": mask(3, 4), "value": 1.0}],
    "masked_fill.Tensor": [{"self": TABLE, "mask": mask(4), "value": T(())}],
    "where.self": [{"condition": mask(3, 4), "self": TABLE, "other": T((4,))}],
    "where.Scalar": [{"condition": mask(3, 4), "self": 1.0, "other": 0.0}],
    "where.ScalarSelf": [{"condition": mask(3, 4), "self": 1.0, "other": TABLE}],
    "where.ScalarOther": [{"condition": mask(3, 4), "self": TABLE, "other": 0.0}],
    "select_scatter.default": [{"self": TABLE, "src": T((3,)), "dim": 1, "index": 2}],
    "slice_scatter.default": [{"self": TABLE, "src": T((3, 2)), "dim": 1, "start": 0, "end": 4, "step": 2}],
    "meshgrid.indexing": [{"tensors": [T((2,)), T((3,))], "indexing": "ij"}],
    "moveaxis.intlist": [{"self": IMAGE, "source": (0, 1), "destination": (2, 0)}],
    "movedim.intlist": [{"self": IMAGE, "source": (0, 1), "destination": (2, 0)}],
    "permute.default": [{"self": IMAGE, "dims": (0, 2, 3, 1)}],
    "reshape.default": [{"self": IMAGE, "shape": (2, -1, 6)}],
    "view.default": [{"self": IMAGE, "size": (2, 4, 30)}],
    "_unsafe_view.default": [{"self": IMAGE, "size": (2, 4, 30)}],
    "expand.default": [{"self": T((3, 1)), "size": (2, -1, 4)}],
    "unflatten.int": [{"self": TABLE, "dim": 1, "sizes": (2, -1)}],
    "pixel_shuffle.default": [{"self": IMAGE, "upscale_factor": 2}],
    "pixel_unshuffle.default": [{"self": T((2, 3, 4, 6)), "downscale_factor": 2}],
    "channel_shuffle.default": [{"self": IMAGE, "groups": 2}],
    "unfold.default": [{"self": IMAGE, "dimension": 2, "size": 3, "step": 2}],
    "im2col.default": [{"self": IMAGE, **SQUARES}],
    "col2im.default": [{"self": T((2, 12, 12)), "output_size": (6, 3), **SQUARES}],
    "split.sizes": [{"self": TABLE, "split_size": (1, 3), "dim": 1}],
    "split_with_sizes.default": [{"self": TABLE, "split_sizes": (1, 3), "dim": 1}],
    "unsafe_split_with_sizes.default": [{"self": TABLE, "split_sizes": (1, 3), "dim": 1}],
    "repeat.default": [{"self": TABLE, "repeats": (2, 1, 3)}],
    "grid_sampler.default": [
        {"input": IMAGE, "grid": T((2, 3, 3, 2)), **GRID},
        {"input": cuboid(3), "grid": T((2, 3, 3, 2, 3)), **GRID},
    ],
    "grid_sampler_2d.default": [
        {"input": IMAGE, "grid": T((2, 3, 3, 2)), "interpolation_mode": way, "padding_mode": rim, "align_corners": True}
        for way in (0, 1, 2)
        for rim in (0, 1, 2)
    ],
    "grid_sampler_3d.default": [{"input": cuboid(3), "grid": T((2, 3, 3, 2, 3)), **GRID}],
    "affine_grid_generator.default": [{"theta": T((2, 2, 3)), "size": (2, 1, 4, 5), "align_corners": False}],
    "fake_quantize_per_tensor_affine.default": [
        {"self": IMAGE, "scale": 0.1, "zero_point": 0, "quant_min": -128, "quant_max": 127}
    ],
    "fake_quantize_per_channel_affine.default": [
        {
            "self": IMAGE,
            "scale": T((4,)),
            "zero_point": T((4,), torch.int32, 4),
            "axis": 1,
            "quant_min": 0,
            "quant_max": 255,
        }
    ],
    "div.Tensor_mode": [{"self": TABLE, "other": T((4,)), "rounding_mode": "floor"}],
    "div.Scalar_mode": [{"self": TABLE, "other": 2.0, "rounding_mode": "trunc"}],
    "divide.Tensor_mode": [{"self": index(3, below=9), "other": index(3, below=3), "rounding_mode": "floor"}],
    "divide.Scalar_mode": [{"self": index(3, below=9), "other": 2, "rounding_mode": "floor"}],
    "topk.default": [{"self": TABLE, "k": 2, "dim": 1}],
    "norm.ScalarOpt_dim_dtype": [{"self": TABLE, "p": 2, "dim": (1,), "keepdim": True, "dtype": torch.float32}],
}
