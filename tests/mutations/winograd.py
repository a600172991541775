"""Winograd, forward and the gradient of weights."""

from __future__ import annotations

MUTATIONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "src/kernels/winograd_product.inl.hpp": (
        (
            "for (std::int64_t p = 0; «p < in.terms»; ++p) {",
            "p < in.terms - 1",
            "the last product of a sum is left out",
        ),
    ),
    "src/kernels/winograd.inl.hpp": (
        (
            "column * «out.residual_column_stride»;",
            "out.column_stride",
            "a residual has the strides of the output",
        ),
        (
            "const auto rest = «static_cast<int>(in.channels - whole)»;",
            "0",
            "channels behind the last whole vector are left out",
        ),
        (
            "return «load_partial(rows.at(i), rest)»;",
            "load(rows.at(i))",
            "reads beyond the last channel",
        ),
        (
            "if (!kWhole && «row >= out.rows») break;",
            "row > out.rows",
            "a tile at the border writes a row too many",
        ),
        (
            "} else if («column < out.columns») {",
            "column <= out.columns",
            "a tile at the border writes a column too many",
        ),
        (
            "const bool whole = «out.rows == Rows::kOutputs && out.columns == Columns::kOutputs»;",
            "out.rows == Rows::kOutputs",
            "a tile at the end of a row counts as whole",
        ),
        (
            "«out.channels - k < kLanes<T> ? static_cast<int>(out.channels - k) : kLanes<T>»;",
            "kLanes<T>",
            "writes beyond the last channel",
        ),
        (
            "out.bias == nullptr ? zero<T>() : load_upto(«out.bias + k», lanes);",
            "out.bias",
            "all vectors get the first one's bias",
        ),
        (
            "for (int lane = 0; «lane < in.lanes»; lane += kLanes<T>) { const T* taps",
            "lane < in.lanes - kLanes<T>",
            "the last vector of a panel of weights is not transformed",
        ),
        (
            "if («i < channels») store_upto<T>(maps + i * channel_stride + p, square[i], count);",
            "i <= channels",
            "a strip writes a channel too many",
        ),
        (
            "const int count = «pixels - p < kLanes<T> ? pixels - p : kLanes<T>»;",
            "kLanes<T>",
            "a strip writes beyond its last pixel",
        ),
    ),
    "src/winograd/source_transform.cpp": (
        (
            "const std::int64_t above = «std::min(i / outputs, stack.runs - 1)»;",
            "i / outputs",
            "the last rows of a stack are counted from a run that is not there",
        ),
        (
            "run.width.first == top.width.first && «run.count == top.count» &&",
            "true",
            "a shorter run is stacked below a longer one",
        ),
        (
            "«stack.bottom_outputs = run.height.count;»",
            "",
            "the last run of a stack is taken for a whole one",
        ),
        (
            "begin = std::clamp<std::int64_t>(«-columns.first», 0, wanted);",
            "-columns.first - 1",
            "a column in front of a row is loaded",
        ),
        (
            "end = std::clamp<std::int64_t>(«sources - columns.first», begin, wanted);",
            "sources - columns.first + 1",
            "a column behind a row is loaded",
        ),
        (
            "«clear(std::min(wanted, pixels), pixels);»",
            "(void)0;",
            "what no output of a last tile reads is left as it was",
        ),
        (
            "return tile * outputs + inputs <= columns.count && «first >= 0» &&",
            "first >= -1",
            "a tile that reads a column in front counts as inside",
        ),
        (
            "«first + (inputs - 1) * columns.step < width.sources»;",
            "first + (inputs - 1) * columns.step <= width.sources",
            "a tile that reads a column behind counts as inside",
        ),
        (
            "const T* pixel = «column < 0 || row_pixel[v] < 0» ? scratch.zeros",
            "row_pixel[v] < 0",
            "columns of padding are read",
        ),
    ),
    "src/winograd/execution.cpp": (
        (
            "const std::int64_t produced = «round_up(geometry_.produced, "
            "std::int64_t{kernels_.lanes})»;",
            "geometry_.produced",
            "lanes without a channel are transformed as they lay in memory",
        ),
        (
            "const Range panel_groups = «blocks.groups_of(unit % blocks.shares)»;",
            "blocks.groups_of(0)",
            "all shares of a block multiply the first one's panels",
        ),
        (
            "if («run.last_outputs == outputs») { form_.output(out);",
            "true",
            "the last tile of a row is written whole",
        ),
        (
            "const std::int64_t channels = «std::min(product_row, geometry_.produced - first)»;",
            "product_row",
            "the last group of panels writes too many channels",
        ),
        (
            "rows = «static_cast<int>(runs.tile_of(run, vertical_axis).count)»;",
            "static_cast<int>(vertical.tile_outputs)",
            "the last row of tiles is written whole",
        ),
        (
            "if («terms_ == geometry_.reduced») return;",
            "true",
            "weights of channels that fill up a vector are not cleared",
        ),
        (
            "for (std::int64_t term = 0; «term < terms_»; term += term_chunk_) { "
            "const Range terms{term, std::min(terms_, term + term_chunk_)}; "
            "for (Range part{0, 0}; part.begin < panels; part.begin = part.end) {",
            "term < terms_ - 1",
            "a chunk of one term is left out",
        ),
        (
            "for (std::int64_t term = 0; «term < terms_»; term += term_chunk_) { "
            "const Range terms{term, std::min(terms_, term + term_chunk_)}; weight_.run(",
            "term < terms_ - 1",
            "weights that are not packed: a chunk of one term is left out",
        ),
    ),
    "src/winograd/geometry.cpp": (
        (
            "return {first, «std::min<std::int64_t>(tile_outputs, extent - index * tile_outputs)»,",
            "tile_outputs",
            "the last tile of an axis counts as whole",
        ),
    ),
    "src/kernels/winograd_gradient.inl.hpp": (
        (
            "const int count = «in.channels - c < kLanes<T> ? in.channels - c : kLanes<T>»;",
            "kLanes<T>",
            "reads beyond the last channel",
        ),
        (
            "for (int lane = 0; «lane < in.lanes»; lane += kLanes<T>) {",
            "lane < in.lanes - kLanes<T>",
            "the last vector of channels gets no gradient",
        ),
    ),
    "src/winograd/weight_gradient.cpp": (
        (
            "const std::int64_t count = «(rows.end - rows.begin) * panel_lanes(panel)»;",
            "product_stride_",
            "what lies between the sums is added",
        ),
        (
            "if («!own_panels») outputs_of(i, {0, panels_}, scratch);",
            "false",
            "the outputs of panels that threads cannot share evenly are not transformed",
        ),
        (
            "for (std::int64_t i = 0; «i < count»; ++i) outputs_of(i, range, scratch);",
            "i < count - 1",
            "a thread leaves out the last line of its panels",
        ),
        (
            "place.row += «take(height.phases)»;",
            "take(height.phases) * height.step",
            "phases of rows begin in the wrong place",
        ),
        (
            "padded_source(place.depth * depth.stride - depth.before + tap * «depth.dilation»,",
            "depth.stride",
            "taps of the depth are a stride apart",
        ),
        (
            "if («plane >= 0») {",
            "plane >= -1",
            "a plane in front of the map is read",
        ),
        (
            "«std::fill(row, row + in_, T(0));»",
            "",
            "what was there before counts as a plane of padding",
        ),
        (
            "last_row < height.input && «first >= 0» && first + reach < width.input) {",
            "first >= -1",
            "a tile that reads a column in front counts as inside",
        ),
        (
            "first >= 0 && «first + reach < width.input») {",
            "first + reach <= width.input",
            "a tile that reads a column behind counts as inside",
        ),
        (
            "std::min(grid_.columns() - tile, «(width.input - 1 - reach - first) / step + 1»);",
            "(width.input - 1 - reach - first) / step + 2",
            "a run of tiles inside has one too many",
        ),
        (
            "row == nullptr || «column >= width.output» ? scratch.zeros",
            "column > width.output",
            "a tile reads a column of the next row of the output's gradient",
        ),
        (
            "rows_inside ? «phase_columns / grid_.outputs» : 0;",
            "divide_up(phase_columns, grid_.outputs)",
            "the last tile of a row of the output's gradient counts as whole",
        ),
        (
            "return «at >= window.input + window.after» ? -1",
            "at > window.input + window.after",
            "a row behind the map is read",
        ),
        (
            "first_row >= 0 && «last_row < height.input» && first >= 0",
            "last_row <= height.input",
            "a tile that reads a row behind counts as inside",
        ),
        (
            "const std::int64_t channels = «std::min(lanes_, out_ - first)», all_taps",
            "lanes_",
            "the last panel writes more channels than there are",
        ),
        (
            "to + row % in_ * all_taps + «row / in_ * taps»,",
            "0",
            "all depths are written to the first",
        ),
        (
            "for (std::int64_t part = 1; «part < parts_»; ++part) {",
            "part < parts_ - 1",
            "the last part is not added",
        ),
    ),
}
