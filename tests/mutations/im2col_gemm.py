"""im2col_gemm."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/algorithms/im2col_gemm.cpp": (
        (
            "shift >= 0 ? 0 : «divide_up(-shift, width.stride)», 0, width.output);",
            "divide_up(-shift, width.stride) - 1",
            "a column in front of a row is read",
        ),
        (
            "shift >= width.input ? 0 : «divide_up(width.input - shift, width.stride)», begin,",
            "divide_up(width.input - shift, width.stride) + 1",
            "a column behind a row is read",
        ),
        (
            "if («d < 0 || h < 0») { std::fill(to, to + width.output, T(0));",
            "h < 0",
            "channels_first: a plane of padding is read",
        ),
        (
            "if («d < 0 || h < 0 || w < 0») {",
            "h < 0 || w < 0",
            "channels_last: a plane of padding is read",
        ),
        (
            "const auto valid = static_cast<int>(«std::min(width, lanes - first)»);",
            "width",
            "the last panel of weights is packed as a whole one",
        ),
    ),
    "src/kernels/patches.inl.hpp": (
        (
            "const auto rest = «static_cast<int>(segment.count - whole)»;",
            "0",
            "the rest of a segment is not copied",
        ),
        (
            "store_partial<T>(to + whole, zero<T>(), «rest»);",
            "rest - 1",
            "the last element of a padded segment is not cleared",
        ),
        (
            "const int width = «upto(columns - j)»;",
            "kLanes<T>",
            "a transposition reads and writes beyond its columns",
        ),
        (
            "const int height = «upto(rows - i)»;",
            "kLanes<T>",
            "a transposition reads and writes beyond its rows",
        ),
        (
            "load_lanes<T>(from, source_step, 0, «width»)",
            "width - 1",
            "a transposition loses its last column",
        ),
        (
            "const int count = «elements - e < kLanes<T> ? static_cast<int>(elements - e) "
            ": kLanes<T>»;",
            "kLanes<T>",
            "weights of several taps: the last square is taken whole",
        ),
        (
            "square[i] = «first + i < valid» ? load_upto(row, count) : zero<T>();",
            "first + i <= valid",
            "weights of several taps: reads a channel too many",
        ),
    ),
}
