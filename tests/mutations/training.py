"""Activations, normalisation, softmax and losses."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/activation.inl.hpp": (
        (
            "if («i < count») body(i, static_cast<int>(count - i));",
            "false",
            "elements behind the last whole vector are left out",
        ),
        (
            "if («past_caches_ && lanes == kLanes<T>») {",
            "past_caches_",
            "what goes past the caches ends on a whole vector",
        ),
        (
            "past_caches_(past_caches && «rows_aligned(first, row_stride, kVectorBytes)») {}",
            "true",
            "rows go past the caches wherever they lie",
        ),
    ),
    "src/kernels/normalization.inl.hpp": (
        (
            "if («i < count») take(1, i, static_cast<int>(count - i));",
            "false",
            "moments leave out what fills no vector",
        ),
        (
            ": «load_between(p + i, 0, lanes, about)»;",
            "load_partial(p + i, lanes)",
            "lanes behind a plane count as zeros",
        ),
        ("if («pending > 0») fold(pending);", "false", "the last block of planes is left out"),
        (
            "for (; «r < end»; ++r) add_rows<1>(",
            "r < end - 1",
            "the last row of a block is left out",
        ),
        (
            "moments.squares[c] = 0; for (std::int64_t begin = 0; «begin < rows»; "
            "begin += kRowBlock) {",
            "begin + kRowBlock <= rows || begin == 0",
            "moments leave out a last block of rows that is short",
        ),
        (
            "for (std::int64_t begin = 0; «begin < n.rows»; begin += kRowBlock) {",
            "begin + kRowBlock <= n.rows || begin == 0",
            "gradients leave out a last block of rows that is short",
        ),
    ),
    "src/training/batch_norm.cpp": (
        (
            "for (std::int64_t part = 1; «part < pieces_.parts»; ++part) { kernels_.merge_moments",
            "part < pieces_.parts - 1",
            "the last part is not merged",
        ),
        (
            "for (std::int64_t part = 0; «part < pieces_.parts»; ++part) { sum +=",
            "part < pieces_.parts - (pieces_.parts > 1)",
            "the gradient of the last part is not added",
        ),
        (
            "body(i * block, «std::min(rows, (i + 1) * block)»);",
            "(i + 1) * block",
            "the last block of rows is taken whole",
        ),
    ),
    "src/kernels/softmax.inl.hpp": (
        (
            "if («i < count») body(i, i, static_cast<int>(count - i), kChains - 1);",
            "false",
            "classes behind the last whole vector are left out",
        ),
        (
            "for (; «j < count»; ++j) body(j * stride, j, used, 0);",
            "j < count - 1",
            "lanes of distributions: the last class is left out",
        ),
        (
            "return lanes == kLanes<T> ? load(p) : «load_between(p, 0, lanes, fill)»;",
            "load_partial(p, lanes)",
            "lanes behind the classes count as zeros",
        ),
        (
            "const int lanes = «stacked - i < kLanes<T> ? static_cast<int>(stacked - i) : "
            "kLanes<T>»;",
            "kLanes<T>",
            "lanes of distributions: the last vector is taken whole",
        ),
        (
            "const int last = «static_cast<int>(pass.count) - (kVectors - 1) * kLanes<T>»;",
            "static_cast<int>(pass.count) - (kVectors - 1) * kLanes<T> - 1",
            "few classes: the last one is left out",
        ),
        (
            "store_partial<T>(valid, term, «lanes»);",
            "lanes - 1",
            "smoothing leaves out the last class",
        ),
    ),
    "src/training/softmax.cpp": (
        (
            "«std::min(width, shape_.inner - begin)», width,",
            "width",
            "the last block of distributions is taken whole",
        ),
    ),
    "src/training/elementwise.cpp": (
        (
            "body(grains.begin * kGrain, «std::min(count, grains.end * kGrain)»);",
            "grains.end * kGrain",
            "the last grain of elements is taken whole",
        ),
    ),
}
