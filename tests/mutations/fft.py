"""fft."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/fft_tiles.inl.hpp": (
        (
            "while (band.begin < count && «columns[band.begin] < 0») ++band.begin;",
            "columns[band.begin] < -1",
            "a column of padding counts as neighbour of the first",
        ),
        (
            "band.scattered |= «columns[i] >= 0»;",
            "false",
            "columns that the padding mode gives sources behind are left out",
        ),
        (
            "for (int i = 0; i < count && «i < begin»; ++i)",
            "i < begin - 1",
            "the last column of padding in front is not cleared",
        ),
        (
            "for (int i = end; «i < count»; ++i) store<T>",
            "i < count - 1",
            "the last column of padding behind is not cleared",
        ),
        (
            "whole ? load(at) : «load_partial(at, input_.channels)»);",
            "load(at)",
            "reads beyond the last channel",
        ),
        (
            "load_between<T>(lanes[lane] + first, «begin < 0 ? 0 : begin»,",
            "begin <= 0 ? 0 : begin - 1",
            "a square begins a column early",
        ),
        (
            "«end < kLanes<T> ? end : kLanes<T>», zero<T>());",
            "end < kLanes<T> ? end + 1 : kLanes<T>",
            "a square ends a column late",
        ),
        (
            "return left < 0 ? 0 : «left < count ? static_cast<int>(left) : count»;",
            "count",
            "a tile at the border writes too many columns",
        ),
        (
            "if (tile.data == nullptr || «row >= tile.row») return 0;",
            "row > tile.row",
            "a tile at the border writes a row too many",
        ),
        (
            "load(buffer + i * kLanes<T>), «output.channels»);",
            "kLanes<T>",
            "writes beyond the last channel",
        ),
        (
            "if (some > 0) store_upto<T>(lanes[lane] + first, square[lane], «some»);",
            "kLanes<T>",
            "a square at the border is written whole",
        ),
    ),
    "src/kernels/fft.inl.hpp": (
        (
            "if («y >= weights.rows || x >= weights.columns») return Complex<T>{};",
            "y >= weights.rows",
            "columns beyond the kernel are read",
        ),
        (
            "for (std::int64_t k = 0; «k < p.k»; ++k) {",
            "k < p.k - 1",
            "the last channel is left out of a product of spectra",
        ),
        (
            "store_upto<T>(c, re[r], «p.columns»);",
            "kLanes<T>",
            "a product of spectra writes beyond its columns",
        ),
        (
            "const int some = «count - column < kChunk ? count - column : kChunk»;",
            "kChunk",
            "the last piece of a long line is taken whole",
        ),
        (
            "return «y == 0 ? 0 : shape.y.n - y»;",
            "shape.y.n - 1 - y",
            "frequency 0 is mirrored elsewhere",
        ),
    ),
    "src/fft/execution.cpp": (
        (
            "shared ? slots * v.channels : «channels_of(v, vector)»",
            "l_.lanes",
            "lanes without a channel are transformed as they lay in memory",
        ),
        (
            "«std::min(tiling_.tile_rows, l_.height.destinations - at->row)»,",
            "tiling_.tile_rows",
            "the last row of tiles is written whole",
        ),
        (
            "«std::min(tiling_.tile_columns, l_.width.destinations - at->column)»};",
            "tiling_.tile_columns",
            "the last tile of a row is written whole",
        ),
        (
            "if («tile >= tiling_.tiles_y * tiling_.tiles_x») return std::nullopt;",
            "false",
            "an odd last tile has a companion",
        ),
        (
            "product.columns = static_cast<int>(«std::min(l_.lanes, l_.produced - panel * "
            "l_.lanes)»);",
            "l_.lanes",
            "the last panel has too many channels",
        ),
        ("product.accumulate = «chunk > 0»;", "false", "the last chunk replaces the others"),
        (
            "const std::int64_t count = «std::min(l_.lanes, l_.produced - first)»;",
            "l_.lanes",
            "kernels of channels that do not exist are read",
        ),
    ),
}
