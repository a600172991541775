"""Gradients of weights in groups of few channels, and of biases."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/narrow_gradient.inl.hpp": (
        (
            "return kWhole ? load(p) : «load_partial(p, g.lanes)»;",
            "load(p)",
            "reads beyond the last channel",
        ),
        (
            "for (int j = 0; «j < kColumns - 1»; ++j) load_column(j);",
            "j < kColumns - 2",
            "the window begins a column short",
        ),
        (
            "store<T>(to, «load(to) + sum[i][j][c]»);",
            "sum[i][j][c]",
            "forgets what was there",
        ),
        ("if («p == 0») break;", "p < 0", "a run goes on behind its end"),
    ),
    "src/narrow_gradient.cpp": (
        (
            "const std::int64_t from = std::clamp(«divide_up(-first, w.stride)», begin,",
            "divide_up(-first, w.stride) - 1",
            "an output that reads padding in front counts as inside",
        ),
        (
            "std::clamp(«divide_up(w.input - last, w.stride)», from, begin + count)};",
            "divide_up(w.input - last, w.stride) + 1",
            "an output that reads padding behind counts as inside",
        ),
        (
            "for (std::int64_t c = columns.end; «c < block.column + block.columns»; ++c) "
            "add(c, 1);",
            "c < block.column + block.columns - 1",
            "the last column at the border is left out",
        ),
        (
            "for (std::int64_t row = rows.end; «row < block.row + block.rows»; ++row)",
            "row < block.row + block.rows - 1",
            "the last row at the border is left out",
        ),
        (
            "«pad(end, columns.end);»",
            "(void)0;",
            "padding behind a row is not cleared",
        ),
        (
            "«std::min<std::int64_t>(kernels_.lanes, channels - c)»);",
            "kernels_.lanes",
            "the last vector of channels is taken whole",
        ),
        (
            "kernels_.transpose(taps_, «std::min(chunk_, channels_ - first)», total",
            "chunk_",
            "the last chunk writes more channels than there are",
        ),
        (
            "for (std::int64_t part = 1; «part < parts_»; ++part) {",
            "part < parts_ - 1",
            "the last part is not added",
        ),
    ),
    "src/bias_gradient.cpp": (
        ("if («rest == 0») return;", "true", "pixels that fill no row are left out"),
        (
            "for (std::int64_t part = 1; «part < parts»; ++part) {",
            "part < parts - 1",
            "the last part is not added",
        ),
    ),
}
