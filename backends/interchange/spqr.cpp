// SpQR's inference files: a word of 64 bits for each row of a tile of 16 x 16, entries of 16 bits of value and 16 of column.
#include "backends/interchange/interchange.h"
#include "backends/search/spqr.h"

#include <cstring>

namespace qlora {
namespace interchange {
namespace {

template <class T> T load(const uint8_t *data, uint64_t i) { T value; std::memcpy(&value, data + i * sizeof(T), sizeof(T)); return value; }
bool is_finite(uint16_t half) { return (half & 0x7c00u) != 0x7c00u; }

struct Layer {
    Context &context;
    const qlora_spqr_tensors &tensors;
    const qlora_weight &weight;
    const search::BilevelPlanes planes;
    const uint64_t tiles; // in a strip of 16 rows
    const uint8_t *dense, *offsets, *entries, *permutation;
    Layer(Context &context, const qlora_spqr_tensors &tensors)
        : context(context), tensors(tensors), weight(*tensors.weight), planes(weight), tiles(group_count(weight)), dense(address<uint8_t>(tensors.dense)),
          offsets(address<uint8_t>(tensors.row_offsets)), entries(address<uint8_t>(tensors.col_vals)), permutation(tensors.in_perm.handle ? address<uint8_t>(tensors.in_perm) : nullptr) {}
    bool interleaved() const { return (tensors.flags & QLORA_SPQR_PTCSR) != 0; }
    uint64_t column_of(uint64_t place) const { return permutation ? load<uint16_t>(permutation, place) : place; }
};

// The words of the dense part into codes and grids.
int32_t take_dense(const Layer &layer) {
    const search::BilevelPlanes &planes = layer.planes;
    for (uint64_t tile = 0; tile < tile_count(layer.weight); tile++) {
        const uint8_t *words = layer.dense + tile * 128;
        const uint64_t first = tile / layer.tiles * 16, group = tile % layer.tiles;
        uint64_t grid = 0;
        for (uint64_t i = 0; i < 16; i++) {
            const uint64_t word = load<uint64_t>(words, i);
            if (i % 2 == 0) grid |= (word >> 54 & 255u) << (i * 4);
            if (first + i >= layer.weight.rows) continue;
            const uint64_t at = (first + i) * planes.groups + group;
            search::put_code(planes.scales, at, statistic_bits, int(word & 7u));
            search::put_code(planes.zeros, at, statistic_bits, int(word >> 3 & 7u));
            for (uint64_t c = 0; c < 16 && group * 16 + c < layer.weight.cols; c++) planes.put_code(first + i, group * 16 + c, int(word >> (6 + 3 * c) & 7u));
        }
        for (uint64_t i = 0; i < 4; i++) {
            const uint16_t half = uint16_t(grid >> (16 * i));
            if (!is_finite(half))
                return layer.context.fail(QLORA_ERROR_VALUE, "qlora_spqr_import: dense: number %llu of the grid of tile %llu is NaN or infinite; is this a file of SpQR's?", (unsigned long long)i,
                                          (unsigned long long)tile);
            std::memcpy(planes.grids + (tile * 4 + i) * 2, &half, 2);
        }
    }
    return QLORA_OK;
}

int32_t take_permutation(const Layer &layer) {
    if (!layer.permutation) return QLORA_OK;
    int32_t *index = address<int32_t>(layer.weight.planes[QLORA_PLANE_INDEX]);
    for (uint64_t c = 0; c < layer.weight.cols; c++) index[c] = -1;
    for (uint64_t place = 0; place < layer.weight.cols; place++) {
        const uint64_t column = layer.column_of(place);
        if (column >= layer.weight.cols || index[column] != -1)
            return layer.context.fail(QLORA_ERROR_VALUE, "qlora_spqr_import: in_perm element %llu is %llu, which is %s; it must name every column once", (unsigned long long)place,
                                      (unsigned long long)column, column >= layer.weight.cols ? "no column" : "there twice");
        index[column] = int32_t(place);
    }
    return QLORA_OK;
}

// Entries of row r as (number, count, distance of neighbours) in col_vals.
struct Run {
    uint64_t first, count, step;
};
int32_t entries_of(const Layer &layer, uint64_t r, Run *run) {
    *run = Run{0, 0, 1};
    if (layer.tensors.entry_count == 0) return QLORA_OK;
    const uint64_t at = layer.interleaved() ? r / 16 : r;
    const int32_t begin = load<int32_t>(layer.offsets, at), end = load<int32_t>(layer.offsets, at + 1);
    if (begin < 0 || end < begin || uint64_t(end) > layer.tensors.entry_count || (layer.interleaved() && (end - begin) % 16))
        return layer.context.fail(QLORA_ERROR_VALUE, "qlora_spqr_import: row_offsets elements %llu and %llu are %d and %d; they must rise%s and stay within %llu entries", (unsigned long long)at,
                                  (unsigned long long)at + 1, int(begin), int(end), layer.interleaved() ? " by multiples of 16" : "", (unsigned long long)layer.tensors.entry_count);
    *run = layer.interleaved() ? Run{uint64_t(begin) + r % 16, uint64_t(end - begin) / 16, 16} : Run{uint64_t(begin), uint64_t(end - begin), 1};
    return QLORA_OK;
}

// Every entry that is not 0 into the list, as far as it has room.
int32_t take_outliers(const Layer &layer, search::Outliers &outliers) {
    for (uint64_t r = 0; r < layer.weight.rows; r++) {
        Run run;
        QLORA_TRY(entries_of(layer, r, &run));
        for (uint64_t k = 0; k < run.count; k++) {
            const uint64_t number = run.first + k * run.step, place = load<uint32_t>(layer.entries, number) & 0xffffu;
            const uint16_t half = uint16_t(load<uint32_t>(layer.entries, number) >> 16);
            if ((half & 0x7fffu) == 0) continue; // filling, or an outlier that the files cannot tell from it
            if (place >= layer.weight.cols || !is_finite(half))
                return layer.context.fail(QLORA_ERROR_VALUE, "qlora_spqr_import: col_vals element %llu (row %llu) %s; is this a file of SpQR's?", (unsigned long long)number, (unsigned long long)r,
                                          place >= layer.weight.cols ? "names a column beyond the weight" : "is NaN or infinite");
            float value = search::of_half(half);
            if (!(layer.tensors.flags & QLORA_SPQR_ADDED)) value -= layer.planes.value(r, place);
            outliers.add(r, layer.column_of(place), search::finite_half(value));
        }
    }
    return QLORA_OK;
}

int32_t store_outliers(const Layer &layer, search::Outliers &outliers) {
    const uint64_t found = outliers.found;
    if (found > layer.weight.outliers)
        return layer.context.fail(QLORA_ERROR_SHAPE, "qlora_spqr_import: weight: there are %llu outliers, and outliers says room for %llu; give it room for that many, or for entry_count",
                                  (unsigned long long)found, (unsigned long long)layer.weight.outliers);
    outliers.store(layer.weight);
    for (uint64_t i = 1; i < found; i++)
        if (outliers.list[i - 1].row == outliers.list[i].row && outliers.list[i - 1].column == outliers.list[i].column)
            return layer.context.fail(QLORA_ERROR_VALUE, "qlora_spqr_import: col_vals names column %u of row %u twice", unsigned(outliers.list[i].column), unsigned(outliers.list[i].row));
    return QLORA_OK;
}

} // namespace

int32_t import_spqr(Context &context, qlora_spqr_tensors &tensors) {
    const Layer layer(context, tensors);
    if (element_count(layer.weight) == 0) {
        tensors.outliers = 0;
        return QLORA_OK;
    }
    layer.planes.begin();
    QLORA_TRY(take_dense(layer));
    QLORA_TRY(take_permutation(layer));
    const size_t bytes = size_t(layer.weight.outliers) * sizeof(search::Outlier);
    search::Outlier *list = bytes ? static_cast<search::Outlier *>(context.allocate(bytes, "spqr outliers")) : nullptr;
    if (bytes && !list) return context.fail(QLORA_ERROR_MEMORY, "qlora_spqr_import: no host memory for a list of %llu outliers", (unsigned long long)layer.weight.outliers);
    search::Outliers outliers(list, layer.weight.outliers);
    int32_t status = take_outliers(layer, outliers);
    if (status == QLORA_OK) {
        tensors.outliers = outliers.found;
        status = store_outliers(layer, outliers);
    }
    context.release(list, bytes);
    return status;
}

} // namespace interchange
} // namespace qlora
