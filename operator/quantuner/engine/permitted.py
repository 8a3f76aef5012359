"""Which functions a saved program may call: what models compute with, and nothing else that torch has.

torch has operators that write where an index in a tensor says and trust it (backwards of pooling, sparse tensors made
without checks, `_weight_norm`: see `weight_norms`), that write to a file, that set what all of the process computes
with, and methods beside the operators. So what is permitted is listed by name. Those that take indices, lengths or
other shapes were tried with ones that lie, as far as that was thought to matter. What such a one reads may still be
outside of its memory, as of an LSTM with too few weights: that ends the process or gives a wrong answer.
Source: torch 2.13, aten/src/ATen/native/native_functions.yaml.
"""

from __future__ import annotations

import re

import torch
from torch._ops import OpOverload

_LISTED = """
    abs absolute acos acosh add addbmm addcdiv addcmul addmm addmv addr adjoint all alias allclose alpha_dropout amax
    amin aminmax angle any arange arccos arccosh arcsin arcsinh arctan arctan2 arctanh argmax argmin argsort argwhere
    as_strided as_strided_copy as_strided_scatter asin asinh atan atan2 atanh atleast_1d atleast_2d atleast_3d baddbmm
    bilinear bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor block_diag bmm
    broadcast_tensors broadcast_to bucketize cartesian_prod cat ceil celu chain_matmul chalf chunk clamp clamp_max
    clamp_min clip clone column_stack combinations complex concat concatenate conj conj_physical contiguous copy
    copysign corrcoef cos cosh cosine_similarity count_nonzero cov cross cummax cummin cumprod cumsum
    cumulative_trapezoid deg2rad det detach detach_copy diag diag_embed diagflat diagonal diagonal_copy diagonal_scatter
    diff digamma dist div divide dot dropout dsplit dstack einsum elu empty empty_like empty_permuted empty_strided eq
    equal erf erfc erfinv exp exp2 expand expand_as expand_copy expm1 eye feature_alpha_dropout feature_dropout fill fix
    flatten flip fliplr flipud float_power floor floor_divide fmax fmin fmod frac frexp frobenius_norm full full_like
    gather gcd ge gelu ger glu gradient greater greater_equal gt hardshrink hardsigmoid hardswish hardtanh heaviside
    histc hsplit hstack hypot i0 igamma igammac imag index index_add index_copy index_fill index_put index_reduce
    index_select inner inverse is_nonzero isclose isfinite isin isinf isnan isneginf isposinf isreal item kron kthvalue
    lcm ldexp le leaky_relu lerp less less_equal lgamma lift lift_fresh lift_fresh_copy linear linspace log log10 log1p
    log2 log_sigmoid log_sigmoid_forward log_softmax logaddexp logaddexp2 logcumsumexp logdet logical_and logical_not
    logical_or logical_xor logit logspace logsumexp lt mH mT masked_fill masked_scatter masked_select matmul matrix_H
    matrix_exp matrix_power max maximum mean median meshgrid min minimum mish mm mode moveaxis movedim msort mul
    multiply mv mvlgamma nan_to_num nanmean nanmedian nanquantile nansum narrow narrow_copy ne neg negative new_empty
    new_empty_strided new_full new_ones new_zeros nextafter nonzero nonzero_numpy nonzero_static norm norm_except_dim
    not_equal nuclear_norm numpy_T one_hot ones ones_like outer permute permute_copy pinverse polar polygamma positive
    pow prelu prod put quantile rad2deg ravel real reciprocal relu relu6 remainder renorm repeat
    repeat_interleave.self_int reshape reshape_as resolve_conj resolve_neg roll rot90 round row_stack rrelu rsqrt rsub
    scalar_tensor scatter scatter_add scatter_reduce searchsorted select select_copy select_scatter selu sgn sigmoid
    sign signbit silu sin sinc sinh slice slice_copy slice_scatter slogdet softmax softplus softshrink sort split
    split_copy split_with_sizes split_with_sizes_copy sqrt square squeeze squeeze_copy stack std std_mean sub subtract
    sum sum_to_size svd swapaxes swapdims t t_copy take take_along_dim tan tanh tensor_split tensordot threshold tile to
    topk trace transpose transpose_copy trapezoid trapz tril tril_indices triu triu_indices true_divide trunc type_as
    unbind unbind_copy unflatten unfold unfold_copy unique_consecutive unique_dim unique_dim_consecutive unsafe_chunk
    unsafe_split unsafe_split_with_sizes unsqueeze unsqueeze_copy vander var var_mean vdot view view_as view_as_complex
    view_as_complex_copy view_as_real view_as_real_copy view_copy vsplit vstack where xlogy zero zeros zeros_like
    __and__ __or__ __xor__ __lshift__ __rshift__ __iand__ __ior__ __ixor__ __ilshift__ __irshift__
    _addmm_activation _conj _conj_copy _conj_physical _is_all_true _is_any_true _neg_view _neg_view_copy
    _reshape_copy _stack _to_copy _unique _unique2 _unsafe_view

    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d avg_pool1d avg_pool2d avg_pool3d batch_norm channel_shuffle col2im constant_pad_nd conv1d conv2d
    conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution embedding embedding_bag group_norm im2col
    instance_norm layer_norm max_pool1d max_pool1d_with_indices max_pool2d max_pool2d_with_indices max_pool3d
    max_pool3d_with_indices max_unpool2d max_unpool3d native_channel_shuffle native_dropout native_group_norm
    native_layer_norm pad pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d
    replication_pad1d replication_pad2d replication_pad3d rms_norm
    _adaptive_avg_pool2d _adaptive_avg_pool3d _convolution _convolution_mode _fused_rms_norm _log_softmax
    _native_batch_norm_legit.no_stats _native_batch_norm_legit_no_training _pad_circular _pad_enum _prelu_kernel
    _safe_softmax _softmax _trilinear

    grid_sampler grid_sampler_2d grid_sampler_3d affine_grid_generator upsample_bicubic2d upsample_bilinear2d
    upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
    _upsample_bicubic2d_aa.vec _upsample_bilinear2d_aa.vec _upsample_lanczos2d_aa.vec _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d

    gru.input gru_cell lstm.input lstm_cell rnn_relu.input rnn_relu_cell rnn_tanh.input rnn_tanh_cell
    scaled_dot_product_attention _grouped_mm _scaled_dot_product_attention_math
    _scaled_dot_product_flash_attention_for_cpu

    binary_cross_entropy binary_cross_entropy_with_logits cdist cosine_embedding_loss cross_entropy_loss
    hinge_embedding_loss huber_loss kl_div l1_loss margin_ranking_loss mse_loss nll_loss nll_loss2d nll_loss2d_forward
    nll_loss_forward nll_loss_nd pairwise_distance pdist poisson_nll_loss smooth_l1_loss soft_margin_loss
    triplet_margin_loss _cdist_forward _euclidean_dist _pdist_forward

    cholesky cholesky_inverse cholesky_solve geqrf linalg__powsum linalg_cholesky linalg_cholesky_ex linalg_cond
    linalg_cross linalg_det linalg_diagonal linalg_eig linalg_eigh linalg_eigvals linalg_eigvalsh
    linalg_householder_product linalg_inv linalg_inv_ex linalg_lstsq linalg_lu linalg_lu_factor linalg_lu_factor_ex
    linalg_matmul linalg_matrix_exp linalg_matrix_norm linalg_matrix_power linalg_matrix_rank linalg_multi_dot
    linalg_norm linalg_pinv linalg_qr linalg_slogdet linalg_solve linalg_solve_ex linalg_solve_triangular linalg_svd
    linalg_svdvals linalg_tensorinv linalg_tensorsolve linalg_vander linalg_vecdot linalg_vector_norm orgqr ormqr qr
    triangular_solve _linalg_check_errors _linalg_det _linalg_eigh _linalg_eigvals _linalg_slogdet _linalg_solve_ex
    _linalg_svd

    bartlett_window blackman_window fft_fft fft_fft2 fft_fftfreq fft_fftn fft_fftshift fft_hfft fft_hfft2 fft_hfftn
    fft_ifft fft_ifft2 fft_ifftn fft_ifftshift fft_ihfft fft_ihfft2 fft_ihfftn fft_irfft fft_irfft2 fft_irfftn fft_rfft
    fft_rfft2 fft_rfftfreq fft_rfftn hamming_window hann_window istft kaiser_window stft _fft_c2c _fft_c2r _fft_r2c

    bernoulli bincount multinomial normal normal_functional poisson rand rand_like randint randint_like randn randn_like
    randperm uniform

    _assert_async _assert_scalar _assert_tensor_metadata _functional_assert_async _functional_assert_scalar
    _functional_sym_constrain_range _functional_sym_constrain_range_for_size _local_scalar_dense _make_dep_token
    sym_constrain_range sym_constrain_range_for_size sym_is_contiguous sym_numel sym_size sym_storage_offset sym_stride
"""
_ATEN = frozenset(_LISTED.split())
_SPECIAL = re.compile(r"special_[a-z]\w*")
"""Functions of one number or two, each."""
_ROUNDING = """
    choose_qparams choose_qparams_per_token choose_qparams_per_token_asymmetric choose_qparams_symmetric
    convert_element_type dequantize_per_channel dequantize_per_channel_group dequantize_per_tensor dequantize_per_token
    fake_quant_per_channel quantize_per_channel quantize_per_channel_group quantize_per_tensor quantize_per_token
"""
_QUANTIZED = frozenset(_ROUNDING.split())
_TORCHAO = frozenset(("choose_qparams_affine", "dequantize_affine", "quantize_affine"))
_OPERATOR = re.compile(r"torch\.ops\.(aten|quantized_decomposed|torchao)\.(\w+)\.(\w+)")
_OTHERS = re.compile(
    r"torch\.ops\.higher_order\.(cond|while_loop|scan|associative_scan|map_impl|out_dtype|wrap|invoke_subgraph"
    r"|wrap_with_set_grad_enabled|wrap_with_autocast|tag_activation_checkpoint)"
    r"|_operator\.(getitem|add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|not_)"
    r"|math\.(ceil|floor|trunc|sqrt|exp|log|log2|log10|sin|cos|tan|sinh|cosh|tanh|asin|acos|atan)"
    r"|torch\.sym_(float|int|ite|max|min|not|sum|sqrt)|torch\._sym_(sqrt|cos|cosh|sin|sinh|tan|tanh|asin|acos|atan|log2)"
)


def is_permitted(target: str) -> bool:
    """Whether a saved program may call the function, as `torch.ops.aten.add.Tensor`."""
    found = _OPERATOR.fullmatch(target)
    if found is None:
        return bool(_OTHERS.fullmatch(target))
    library, name, overload = found.groups()
    if not _is_listed(library, name, overload):
        return False
    operator = getattr(getattr(getattr(torch.ops, library), name, None), overload, None)
    if not isinstance(operator, OpOverload) or not torch._C._dispatch_has_kernel(operator.name()):
        return False  # a method beside the operators, or what TorchScript alone has: lists and texts
    return not any(one.is_out for one in operator._schema.arguments)


def _is_listed(library: str, name: str, overload: str) -> bool:
    """A name stands for its overloads, where it has none in the list, and for the operator that writes to its input."""
    if library != "aten":
        return name in (_QUANTIZED if library == "quantized_decomposed" else _TORCHAO)
    if _SPECIAL.fullmatch(name) or f"{name}.{overload}" in _ATEN:
        return True
    return name in _ATEN or (not name.endswith("__") and name.removesuffix("_") in _ATEN)
