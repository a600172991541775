"""Backward-input of stride 2 in groups of few channels."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/stride_two.inl.hpp": (
        (
            "const std::int64_t channel = «vector * kLanes<T> < last ? vector * kLanes<T> : last»;",
            "vector * kLanes<T>",
            "the last vector of channels reaches beyond them",
        ),
        (
            "if (!kInside && («row < 0» || row >= p.source_rows)) continue;",
            "false",
            "a row of sources in front of the plane is read",
        ),
        (
            "if (!kInside && (row < 0 || «row >= p.source_rows»)) continue;",
            "false",
            "a row of sources behind the plane is read",
        ),
        (
            ": load_between(from + j, «lane(-first - j)»,",
            "0",
            "columns of sources in front of a row are read",
        ),
        (
            "«lane(p.source_columns - first - j)», zero<T>());",
            "kLanes<T>",
            "columns of sources behind a row are read",
        ),
        (
            "if («row >= p.output_rows») break;",
            "false",
            "the last row of a plane is written as two",
        ),
        (
            "store_upto<T>(at, interleave_low<T>(even, odd), «lane(columns)»);",
            "kLanes<T>",
            "the last vector of a row is written whole",
        ),
        ("if («columns > kLanes<T>») {", "columns > kLanes<T> + 1", "a single column is left out"),
        (
            "const bool inside = row >= 0 && «row + kHigh <= p.source_rows»;",
            "row + kHigh <= p.source_rows + 1",
            "a tile that reads a row behind the plane counts as inside",
        ),
        (
            "if (inside && «first >= 0» && first",
            "first >= -1",
            "a tile that reads a column in front of a row counts as inside",
        ),
        (
            "&& «first + kLanes<T> + kTaps.sources - 1 <= p.source_columns») {",
            "first + kLanes<T> + kTaps.sources - 2 <= p.source_columns",
            "a tile that reads a column behind a row counts as inside",
        ),
    ),
    "src/stride_two/stride_two.cpp": (
        (
            "std::clamp<std::int64_t>(«-columns_.first», 0, columns_.pairs);",
            "-columns_.first - 1",
            "a block that reads a column in front of a row counts as inside",
        ),
        (
            "std::clamp(«columns_.sources - columns_.taken + 1 - columns_.first», begin,",
            "columns_.sources - columns_.taken + 2 - columns_.first",
            "a block that reads a column behind a row counts as inside",
        ),
        (
            "if (vector_part + 1 == share_.vector_parts) «vectors.end = vectors_;»",
            ";",
            "channels behind the last whole vector are left out",
        ),
        (
            "return «std::min(vector * table_.lanes, channels_ - table_.lanes)»;",
            "vector * table_.lanes",
            "weights of channels that do not exist are packed",
        ),
        (
            "b.rows = static_cast<int>(«std::min<std::int64_t>(2, rows_.outputs - 2 * pair)»);",
            "std::int64_t{2}",
            "lanes of channels: the last row of a plane is written as two",
        ),
        (
            "static_cast<int>(«std::min<std::int64_t>(2, columns_.outputs - 2 * (end - 1))»);",
            "std::int64_t{2}",
            "lanes of channels: the last column of a row is written as two",
        ),
        (
            "row_steps[i] = «rows_.exists(row) ? blocks.pairs * call.source.pixel_stride : 0»;",
            "blocks.pairs * call.source.pixel_stride",
            "what stands for a row of padding ends with the first block",
        ),
        (
            "*pixel++ = «rows_.exists(row)» && columns_.exists(column)",
            "true",
            "rows of padding are read",
        ),
        (
            "*pixel++ = rows_.exists(row) && «columns_.exists(column)»",
            "true",
            "columns of padding are read",
        ),
        (
            "«std::min(group_, (block + 1) * kernels_.plane_channels)»};",
            "(block + 1) * kernels_.plane_channels",
            "the last block of a group has too many channels",
        ),
        (
            "p.bias = call.bias != nullptr ? «call.bias + channel» : nullptr;",
            "call.bias",
            "all blocks get the first one's bias",
        ),
        (
            "const std::int64_t end = «std::min(rows_.outputs, 2 * pairs.end)» * columns_.outputs;",
            "2 * pairs.end",
            "the rest of the epilogue goes on behind the plane",
        ),
    ),
}
