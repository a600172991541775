"""Mistakes at borders, one for each way a kernel could get its edges wrong; mutate.py plants them.

MUTATIONS holds for each file (piece, replacement, what is wrong): a piece of the source with the
mistaken part in «», and what stands there instead. The piece must occur once; white space matters
only in that there is some.
"""

from __future__ import annotations

from mutations import (
    column_sums,
    depthwise,
    direct,
    fft,
    grouped,
    im2col_gemm,
    implicit_gemm,
    narrow_gradient,
    pooling,
    products,
    stride_two,
    training,
    winograd,
)

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    **products.MUTATIONS,
    **direct.MUTATIONS,
    **im2col_gemm.MUTATIONS,
    **implicit_gemm.MUTATIONS,
    **winograd.MUTATIONS,
    **fft.MUTATIONS,
    **column_sums.MUTATIONS,
    **depthwise.MUTATIONS,
    **grouped.MUTATIONS,
    **stride_two.MUTATIONS,
    **narrow_gradient.MUTATIONS,
    **pooling.MUTATIONS,
    **training.MUTATIONS,
}
