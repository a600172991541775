"""Register tiles, matrix products and what follows them."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/tile.inl.hpp": (
        (
            "const T* panel = «v < kTileVectors ? row : row + panel_stride»;",
            "row",
            "the second panel has the weights of the first",
        ),
        (
            "if («columns > 3 * kLanes<T>») return run(VectorCount<4>());",
            "columns > 3 * kLanes<T> + 1",
            "one column beyond the third vector is left out",
        ),
        (
            "if («columns > 2 * kLanes<T>») return run(VectorCount<3>());",
            "columns > 2 * kLanes<T> + 1",
            "one column beyond two vectors is left out",
        ),
        (
            "«columns > kLanes<T>» ? run(VectorCount<2>()) : run(VectorCount<1>());",
            "columns > kLanes<T> + 1",
            "one column beyond a vector is left out",
        ),
        (
            "bool past_caches = false) { const int last = «columns - (kVectors - 1) * kLanes<T>»;",
            "columns - (kVectors - 1) * kLanes<T> - 1",
            "the last vector of a tile loses a lane",
        ),
        (
            "store_partial<T>(at, accumulate ? «load_partial(at, last) + sum[r][v]» :",
            "sum[r][v]",
            "the last vector forgets what was there",
        ),
        (
            "if («v < kVectors - 1 || last == kLanes<T>») {",
            "true",
            "the last vector is stored whole",
        ),
        ("if («rows < kMost») {", "rows < kMost - 1", "a tile has a row too many"),
        (
            "const int longer_end = «count % tiles * (shorter + 1)»;",
            "0",
            "of tiles that are not all equal the last one ends beyond the rows",
        ),
        (
            "const int tiles = «(count + most - 1) / most»;",
            "count < most ? 1 : count / most",
            "a tile gets more rows than there are kernels for",
        ),
        (
            "if («past_caches && last == kLanes<T>») {",
            "past_caches",
            "what goes past the caches ends on a whole vector",
        ),
        (
            "add_rows(finish.residual, «finish.residual_row_stride»);",
            "row_stride",
            "a residual has the strides of the output",
        ),
    ),
    "src/kernels/gemm.inl.hpp": (
        (
            "if («columns > kLanes<T>») { gemm_tile_of<T, kRows, 2>",
            "columns > kLanes<T> + 1",
            "one column beyond a vector is left out",
        ),
        (
            "for (std::int64_t p = 0; «p < k»; ++p) { Vec<T> column[kVectors]; "
            "CONVOLITH_UNROLL(2) for (int v = 0; v < kVectors; ++v) "
            "column[v] = load(b + v * kLanes<T>); CONVOLITH_UNROLL(16) "
            "for (int r = 0; r < kRows; ++r) { const Vec<T> row = broadcast(a[r]);",
            "p < k - 1",
            "the last product of a sum is left out",
        ),
        (
            "const int last = «columns - (kVectors - 1) * kLanes<T>»;",
            "columns - (kVectors - 1) * kLanes<T> - 1",
            "rows of B anywhere: the last vector loses a lane",
        ),
        (
            "column[v] = «kPartial && v == kVectors - 1 ? load_partial(from + v * kLanes<T>, last) "
            ": load(from + v * kLanes<T>)»;",
            "load(from + v * kLanes<T>)",
            "rows of B anywhere: reads beyond the last row",
        ),
        (
            "if («valid == kTileColumns<T> && width == kTileColumns<T>») {",
            "width == kTileColumns<T>",
            "a panel in part is copied as a whole one",
        ),
        (
            "const int left = «valid - i»;",
            "valid - i - 1",
            "a panel's row loses its last element",
        ),
        (
            "left > 0 ? load_upto(source + i, left) : zero<T>(), «width - i»);",
            "width - i - 1",
            "the last lane of a panel in part is not cleared",
        ),
        (
            "const int count = «k - p < kLanes<T> ? static_cast<int>(k - p) : kLanes<T>»; "
            "Vec<T> square[kLanes<T>];",
            "kLanes<T>",
            "the last square of a panel is taken whole",
        ),
        (
            "square[i] = «first + i < valid» ? load_upto(row, count) : zero<T>();",
            "first + i <= valid",
            "a panel in part reads one row too many",
        ),
        (
            "if («p < k») { const auto left = static_cast<int>(k - p);",
            "false",
            "dot products: the last vector is left out",
        ),
        (
            "return «load_partial(at, left)»; });",
            "load(at)",
            "dot products: the last vector is taken whole",
        ),
        (
            "for (; «j < columns»; ++j) { dot_tile<T, kRows, 1>",
            "false",
            "dot products: columns beyond the last tile are left out",
        ),
    ),
    "src/kernels/elementwise.inl.hpp": (
        (
            "for (int j = 0; «j < columns»; j += kLanes<T>) {",
            "j < columns - 1",
            "an epilogue leaves out a single last column",
        ),
        (
            "const int count = «columns - j < kLanes<T> ? columns - j : kLanes<T>»;",
            "kLanes<T>",
            "an epilogue takes the last vector whole",
        ),
        (
            "v = v + load_upto(«epilogue.bias + j», count);",
            "epilogue.bias",
            "the second vector of columns gets the first one's bias",
        ),
        (
            "v = v + broadcast(«epilogue.bias[r]»);",
            "epilogue.bias[0]",
            "all rows get the first one's bias",
        ),
        (
            "r * epilogue.residual_row_stride + «j * epilogue.residual_column_stride»;",
            "std::int64_t{0}",
            "the second vector of columns gets the first one's residual",
        ),
        (
            "for (; «i < count»; ++i) destination[i] += source[i];",
            "i < count - 1",
            "a sum of arrays leaves out its last element",
        ),
        (
            "const int lanes = «count - i < kLanes<T> ? static_cast<int>(count - i) : kLanes<T>»;",
            "kLanes<T>",
            "a sum takes the last vector whole",
        ),
    ),
    "src/gemm/gemm.cpp": (
        (
            "const auto valid = static_cast<int>(«std::min(columns, n_ - first)»);",
            "columns",
            "the last panel of B is packed as a whole one",
        ),
        (
            "const auto tile_columns = static_cast<int>(«std::min(columns, column_end - j)»);",
            "columns",
            "the last tile of a row is a whole one",
        ),
        (
            "const auto tile_rows = static_cast<int>(«std::min(rows, i_end - r)»);",
            "rows",
            "the last tile of a column is a whole one",
        ),
        (
            "if («k + k_count < k_end») block.epilogue = nullptr;",
            "false",
            "every block of a sum gets the epilogue",
        ),
        (
            "block.accumulate = «c.accumulate || k > k_begin»;",
            "c.accumulate",
            "the last block of a sum replaces the others",
        ),
        (
            "if (epilogue.bias_axis == BiasAxis::columns) «epilogue.bias += j;»",
            "epilogue.bias += 0;",
            "all tiles get the first one's bias",
        ),
    ),
    "src/gemm/thin_product.cpp": (
        (
            "const std::int64_t columns = «std::min(kColumns, n_ - first)»;",
            "kColumns",
            "the last block of columns is a whole one",
        ),
        (
            "if (part.bias_axis == BiasAxis::columns) «part.bias += first;»",
            ";",
            "all blocks of columns get the first one's bias",
        ),
        (
            "«std::min(block, k_ - p)», a.data + p",
            "block",
            "dot products read beyond their end",
        ),
        (
            "b.column_stride, c, n_, «p > 0»);",
            "false",
            "the last part of a long dot product replaces the others",
        ),
        (
            "«std::min<std::int64_t>(kMaxChain, k_ - p)», packed_a",
            "std::int64_t{kMaxChain}",
            "the last part of a sum is taken whole",
        ),
        (
            "first, offsets, c, n_, «p > 0»);",
            "false",
            "the last part of a sum replaces the others",
        ),
    ),
}
