/* The loops of the reader that every record passes through, compiled.
 *
 * Each function does exactly what the NumPy function of the same name does (ringbuffer.py,
 * columns.py); the tests hold them equal. They work on buffers, hold no state, and release the
 * GIL. Bounds are checked here: a caller's mistake raises ValueError, a damaged file never reads
 * outside its data.
 */
#define Py_LIMITED_API 0x030B0000
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* --- buffers ------------------------------------------------------------------------------- */

typedef struct {
    Py_buffer view;
    int held;
} Array;

/* Take a contiguous buffer of `count` items of `size` bytes (count < 0: any number). */
static int take(PyObject *object, Array *array, Py_ssize_t size, Py_ssize_t count, int writable)
{
    int flags = writable ? PyBUF_WRITABLE : PyBUF_SIMPLE;
    if (PyObject_GetBuffer(object, &array->view, flags) < 0)
        return -1;
    array->held = 1;
    if (array->view.len % size || (count >= 0 && array->view.len / size != count)) {
        PyErr_SetString(PyExc_ValueError, "array of a wrong size");
        return -1;
    }
    return 0;
}

static void drop(Array *arrays, int number)
{
    for (int i = 0; i < number; i++)
        if (arrays[i].held)
            PyBuffer_Release(&arrays[i].view);
}

static uint16_t read16(const uint8_t *at, int swap)
{
    uint16_t value;
    memcpy(&value, at, 2);
    return swap ? __builtin_bswap16(value) : value;
}

static uint32_t read32(const uint8_t *at, int swap)
{
    uint32_t value;
    memcpy(&value, at, 4);
    return swap ? __builtin_bswap32(value) : value;
}

static uint64_t read64(const uint8_t *at, int swap)
{
    uint64_t value;
    memcpy(&value, at, 8);
    return swap ? __builtin_bswap64(value) : value;
}

/* `order` is the file's byte order, '<' or '>': whether this machine has to swap. */
static int swaps(int order)
{
    const uint16_t one = 1;
    int little = *(const uint8_t *)&one;
    return little != (order == '<');
}

/* --- walk ---------------------------------------------------------------------------------- */

enum { LONG_DATA = 0, SHORT_MAX = 28, PADDING = 29, TIME_EXTEND = 30, TIME_STAMP = 31 };

typedef struct {
    const uint8_t *data;
    int swap, big;
    uint32_t page_size, data_offset, commit_offset, commit_size;
    const uint8_t *wanted;
    /* per record; NULL when only counting */
    uint64_t *times;
    int64_t *positions;
    int32_t *lengths;
    uint16_t *types;
} Walk;

typedef struct {
    int64_t count, lost;
    uint64_t first, last;
    uint8_t damaged;
} Page;

/* Records go to `slot` and on, below `limit`. */
static Page walk_page(const Walk *w, int64_t start, int64_t slot, int64_t limit)
{
    const uint8_t *page = w->data + start;
    const int swap = w->swap, big = w->big;
    const uint8_t *at = page + w->commit_offset;
    uint32_t commit = w->commit_size == 8 ? (uint32_t)read64(at, swap) : read32(at, swap);
    uint32_t used = commit & ((1u << 27) - 1);
    uint64_t ts = read64(page, swap);
    Page result = {0, 0, ts, ts, 0};
    int seen = 0;

    if (commit & (1u << 31))
        result.lost = -1;
    if ((uint64_t)w->data_offset + used > w->page_size) {
        result.damaged = 1;
        return result;
    }
    uint32_t end = w->data_offset + used, pos = w->data_offset;
    if (result.lost && (commit & (1u << 30)) && w->page_size - end >= w->commit_size) {
        uint64_t stored = w->commit_size == 8 ? read64(page + end, swap) : read32(page + end, swap);
        result.lost = (int64_t)(stored & ((1ull << 62) - 1));
    }
    while (pos < end) {
        uint32_t room = end - pos;
        if (room < 4)
            goto damaged;
        uint32_t head = read32(page + pos, swap), extra = 0;
        uint32_t kind = big ? head >> 27 : head & 31;
        uint32_t delta = big ? head & ((1u << 27) - 1) : head >> 5;
        if (kind == PADDING && delta == 0)
            break;
        int is_short = kind >= 1 && kind <= SHORT_MAX;
        uint64_t size = 8;
        if (is_short) {
            size = 4 + 4 * (uint64_t)kind;
        } else {
            if (room < 8)
                goto damaged;
            extra = read32(page + pos + 4, swap);
            if (kind == LONG_DATA)
                size = 4 + (((uint64_t)extra + 3) & ~3ull);
            else if (kind == PADDING)
                size = 4 + (uint64_t)extra;
        }
        int64_t length = is_short ? 4 * (int64_t)kind : (int64_t)extra - 4;
        int is_data = kind <= SHORT_MAX;
        if (size > room || (is_data && length < 4))
            goto damaged;
        uint64_t long_step = delta + ((uint64_t)extra << 27);
        if (kind == TIME_EXTEND)
            ts += long_step;
        else if (kind == TIME_STAMP)
            ts = (ts & (0xF8ull << 56)) | long_step;
        else
            ts += delta;
        if (is_data) {
            uint32_t payload = pos + (is_short ? 4 : 8);
            uint16_t type = read16(page + payload, swap);
            if (!seen)
                result.first = ts;
            seen = 1;
            result.last = ts;
            if (w->wanted[type]) {
                if (w->times) {
                    if (slot >= limit) /* the memory-mapped file has changed since the count */
                        goto damaged;
                    w->times[slot] = ts;
                    w->positions[slot] = start + payload;
                    w->lengths[slot] = (int32_t)length;
                    w->types[slot] = type;
                    slot++;
                }
                result.count++;
            }
        }
        pos += (uint32_t)size;
    }
    return result;
damaged:
    result.damaged = 1;
    return result;
}

/* Counting and filling are one function, so that they cannot differ. */
static PyObject *walk(PyObject *self, PyObject *args)
{
    PyObject *objects[12];
    Array a[12] = {{{0}, 0}};
    Walk w = {0};
    int order;
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "OOIIIICOOOOOOOOOO:walk", &objects[0], &objects[1], &w.page_size,
                          &w.data_offset, &w.commit_offset, &w.commit_size, &order, &objects[2],
                          &objects[3], &objects[4], &objects[5], &objects[6], &objects[7],
                          &objects[8], &objects[9], &objects[10], &objects[11]))
        return NULL;
    /* data, starts, wanted; counts, first, last, lost, damaged; times, positions, lengths, types */
    if (take(objects[0], &a[0], 1, -1, 0) || take(objects[1], &a[1], 8, -1, 0))
        goto out;
    Py_ssize_t pages = a[1].view.len / 8;
    if (take(objects[2], &a[2], 1, 1 << 16, 0) || take(objects[3], &a[3], 8, pages, 1) ||
        take(objects[4], &a[4], 8, pages, 1) || take(objects[5], &a[5], 8, pages, 1) ||
        take(objects[6], &a[6], 8, pages, 1) || take(objects[7], &a[7], 1, pages, 1))
        goto out;
    int fill = objects[8] != Py_None;
    Py_ssize_t total = 0;
    if (fill) {
        if (take(objects[8], &a[8], 8, -1, 1))
            goto out;
        total = a[8].view.len / 8;
        if (take(objects[9], &a[9], 8, total, 1) || take(objects[10], &a[10], 4, total, 1) ||
            take(objects[11], &a[11], 2, total, 1))
            goto out;
        w.times = a[8].view.buf;
        w.positions = a[9].view.buf;
        w.lengths = a[10].view.buf;
        w.types = a[11].view.buf;
    }
    w.data = a[0].view.buf;
    w.wanted = a[2].view.buf;
    w.big = order == '>';
    w.swap = swaps(order);
    const int64_t *starts = a[1].view.buf;
    int64_t *counts = a[3].view.buf, *lost = a[6].view.buf;
    uint64_t *first = a[4].view.buf, *last = a[5].view.buf;
    uint8_t *damaged = a[7].view.buf;
    int64_t slot = 0;
    int wrong = w.page_size < w.data_offset || w.data_offset < 8 ||
                (w.commit_size != 4 && w.commit_size != 8) ||
                (uint64_t)w.commit_offset + w.commit_size > w.page_size;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < pages && !wrong; i++) {
        int64_t limit = fill ? slot + counts[i] : 0;
        if (starts[i] < 0 || starts[i] > a[0].view.len - (int64_t)w.page_size || limit > total) {
            wrong = 1;
            break;
        }
        Page page = walk_page(&w, starts[i], slot, limit);
        slot += page.count;
        counts[i] = page.count;
        first[i] = page.first;
        last[i] = page.last;
        lost[i] = page.lost;
        damaged[i] = page.damaged;
    }
    Py_END_ALLOW_THREADS
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, "page outside the data, or no room for its records");
        goto out;
    }
    result = PyLong_FromLongLong(slot);
out:
    drop(a, 12);
    return result;
}

/* --- order --------------------------------------------------------------------------------- */

/* Merge sorted streams by time, and deal the records out by type: source and rank of each. */
static PyObject *order(PyObject *self, PyObject *args)
{
    PyObject *objects[6];
    Array a[6] = {{{0}, 0}};
    PyObject *result = NULL;
    int64_t *next = NULL;
    if (!PyArg_ParseTuple(args, "OOOOOO:order", &objects[0], &objects[1], &objects[2], &objects[3],
                          &objects[4], &objects[5]))
        return NULL;
    /* times, types, bounds of the streams, first slot of every type; sources, ranks */
    if (take(objects[0], &a[0], 8, -1, 0))
        goto out;
    Py_ssize_t total = a[0].view.len / 8;
    if (take(objects[1], &a[1], 2, total, 0) || take(objects[2], &a[2], 8, -1, 0) ||
        take(objects[3], &a[3], 8, 1 << 16, 1) || take(objects[4], &a[4], 8, total, 1) ||
        take(objects[5], &a[5], 8, total, 1))
        goto out;
    const int64_t *times = a[0].view.buf, *bounds = a[2].view.buf;
    const uint16_t *types = a[1].view.buf;
    int64_t *slots = a[3].view.buf, *sources = a[4].view.buf, *ranks = a[5].view.buf;
    Py_ssize_t streams = a[2].view.len / 8 - 1;
    int wrong = streams < 0 || bounds[0] != 0 || bounds[streams] != total;
    for (Py_ssize_t s = 0; s < streams && !wrong; s++)
        wrong = bounds[s] > bounds[s + 1];
    next = malloc(sizeof(int64_t) * (size_t)(streams > 0 ? streams : 1));
    if (!next) {
        PyErr_NoMemory();
        goto out;
    }
    int sorted = 1;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t s = 0; s < streams && !wrong; s++) {
        next[s] = bounds[s];
        for (int64_t i = bounds[s] + 1; i < bounds[s + 1] && sorted; i++)
            sorted = times[i - 1] <= times[i];
    }
    int64_t rank = 0;
    while (!wrong && sorted && rank < total) {
        /* The earliest head, ties to the first stream; and the next stream to have its turn. */
        Py_ssize_t best = -1, second = -1;
        for (Py_ssize_t s = 0; s < streams; s++) {
            if (next[s] == bounds[s + 1])
                continue;
            if (best < 0 || times[next[s]] < times[next[best]]) {
                second = best;
                best = s;
            } else if (second < 0 || times[next[s]] < times[next[second]]) {
                second = s;
            }
        }
        int64_t i = next[best], stop = bounds[best + 1];
        int64_t limit = second < 0 ? 0 : times[next[second]];
        do {
            int64_t slot = slots[types[i]]++;
            if (slot < 0 || slot >= total) {
                wrong = 1;
                break;
            }
            sources[slot] = i;
            ranks[slot] = rank++;
            i++;
        } while (i < stop && (second < 0 || times[i] < limit ||
                              (times[i] == limit && best < second)));
        next[best] = i;
    }
    Py_END_ALLOW_THREADS
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, "bounds or slots that do not fit");
        goto out;
    }
    result = PyBool_FromLong(sorted);
out:
    free(next);
    drop(a, 6);
    return result;
}

/* --- numbers ------------------------------------------------------------------------------- */

typedef struct {
    uint64_t offset;
    uint32_t size;
    Array out;
} Number;

enum { BLOCK = 512, MAX_NUMBERS = 256 };

static void copy_block(const uint8_t *data, const int64_t *positions, int64_t from, int64_t to,
                       const Number *field, int swap)
{
    const uint64_t offset = field->offset;
    void *out = field->out.view.buf;
    switch (field->size) {
    case 1:
        for (int64_t i = from; i < to; i++)
            ((uint8_t *)out)[i] = data[positions[i] + offset];
        break;
    case 2:
        for (int64_t i = from; i < to; i++)
            ((uint16_t *)out)[i] = read16(data + positions[i] + offset, swap);
        break;
    case 4:
        for (int64_t i = from; i < to; i++)
            ((uint32_t *)out)[i] = read32(data + positions[i] + offset, swap);
        break;
    default:
        for (int64_t i = from; i < to; i++)
            ((uint64_t *)out)[i] = read64(data + positions[i] + offset, swap);
    }
}

/* Copy fields of every payload into columns, a block of records at a time: each payload is in the
 * cache when its next field is wanted. */
static PyObject *numbers(PyObject *self, PyObject *args)
{
    PyObject *data_object, *positions_object, *list, *result = NULL;
    Array a[2] = {{{0}, 0}};
    Number *fields = NULL;
    Py_ssize_t number = 0;
    int order;
    if (!PyArg_ParseTuple(args, "OOCO!:numbers", &data_object, &positions_object, &order,
                          &PyList_Type, &list))
        return NULL;
    if (take(data_object, &a[0], 1, -1, 0) || take(positions_object, &a[1], 8, -1, 0))
        goto out;
    Py_ssize_t total = a[1].view.len / 8;
    number = PyList_Size(list);
    fields = calloc((size_t)(number > 0 ? number : 1), sizeof(Number));
    if (!fields) {
        PyErr_NoMemory();
        goto out;
    }
    int64_t reach = 0;
    for (Py_ssize_t f = 0; f < number; f++) {
        PyObject *column;
        unsigned int offset, size;
        if (!PyArg_ParseTuple(PyList_GetItem(list, f), "IIO", &offset, &size, &column))
            goto out;
        if (size != 1 && size != 2 && size != 4 && size != 8) {
            PyErr_SetString(PyExc_ValueError, "a number has 1, 2, 4 or 8 bytes");
            goto out;
        }
        fields[f].offset = offset;
        fields[f].size = size;
        if (take(column, &fields[f].out, size, total, 1))
            goto out;
        if ((int64_t)offset + size > reach)
            reach = (int64_t)offset + size;
    }
    const uint8_t *data = a[0].view.buf;
    const int64_t *positions = a[1].view.buf;
    int swap = swaps(order), wrong = 0;
    Py_BEGIN_ALLOW_THREADS
    for (int64_t from = 0; from < total && !wrong; from += BLOCK) {
        int64_t to = from + BLOCK < total ? from + BLOCK : total;
        for (int64_t i = from; i < to; i++)
            wrong |= positions[i] < 0 || positions[i] > a[0].view.len - reach;
        for (Py_ssize_t f = 0; f < number && !wrong; f++)
            copy_block(data, positions, from, to, &fields[f], swap);
    }
    Py_END_ALLOW_THREADS
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, "payload outside the data");
        goto out;
    }
    result = Py_None;
    Py_INCREF(result);
out:
    if (fields)
        for (Py_ssize_t f = 0; f < number; f++)
            drop(&fields[f].out, 1);
    free(fields);
    drop(a, 2);
    return result;
}

/* --- strings ------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *start;
    uint32_t length, hash;
} Text;

typedef struct {
    Text *texts;
    int32_t *table; /* number of a text, -1 free; a power of two, at most half full */
    int64_t count, room, mask;
} Texts;

static uint32_t hash_of(const uint8_t *start, uint32_t length)
{
    uint64_t hash = 0xcbf29ce484222325ull ^ length;
    for (; length >= 8; start += 8, length -= 8) {
        uint64_t word;
        memcpy(&word, start, 8);
        hash = (hash ^ word) * 0x9e3779b97f4a7c15ull;
        hash ^= hash >> 32;
    }
    for (; length; start++, length--)
        hash = (hash ^ *start) * 0x9e3779b97f4a7c15ull;
    return (uint32_t)(hash >> 32);
}

static int grow(Texts *t)
{
    int64_t room = t->room ? t->room * 2 : 64;
    Text *texts = realloc(t->texts, (size_t)room * sizeof(Text));
    if (!texts)
        return -1;
    t->texts = texts;
    int32_t *table = malloc((size_t)room * 2 * sizeof(int32_t));
    if (!table)
        return -1;
    free(t->table);
    t->table = table;
    t->room = room;
    t->mask = room * 2 - 1;
    memset(table, 0xff, (size_t)room * 2 * sizeof(int32_t));
    for (int64_t i = 0; i < t->count; i++) {
        int64_t slot = t->texts[i].hash & t->mask;
        while (table[slot] >= 0)
            slot = (slot + 1) & t->mask;
        table[slot] = (int32_t)i;
    }
    return 0;
}

static int same(const Text *text, const uint8_t *start, uint32_t length)
{
    return text->length == length && !memcmp(text->start, start, length);
}

/* Return the number of a text, a new one when it was not met before; -1 without memory. */
static int32_t number_of(Texts *t, const uint8_t *start, uint32_t length)
{
    if (t->count == t->room && grow(t))
        return -1;
    uint32_t hash = hash_of(start, length);
    int64_t slot = hash & t->mask;
    for (; t->table[slot] >= 0; slot = (slot + 1) & t->mask) {
        const Text *text = &t->texts[t->table[slot]];
        if (text->hash == hash && same(text, start, length))
            return t->table[slot];
    }
    t->texts[t->count] = (Text){start, length, hash};
    t->table[slot] = (int32_t)t->count;
    return (int32_t)t->count++;
}

enum { FIXED, TO_END, DATA_LOC, REL_LOC };

/* Number the distinct values of a string or array field; return them as a list of bytes. */
static PyObject *texts(PyObject *self, PyObject *args)
{
    PyObject *objects[4], *result = NULL;
    Array a[4] = {{{0}, 0}};
    Texts t = {0};
    unsigned int offset, size, place;
    int order, cut;
    if (!PyArg_ParseTuple(args, "OOOCIIIpO:texts", &objects[0], &objects[1], &objects[2], &order,
                          &offset, &size, &place, &cut, &objects[3]))
        return NULL;
    /* data, positions, lengths; codes */
    if (take(objects[0], &a[0], 1, -1, 0) || take(objects[1], &a[1], 8, -1, 0))
        goto out;
    Py_ssize_t total = a[1].view.len / 8;
    if (take(objects[2], &a[2], 4, total, 0) || take(objects[3], &a[3], 4, total, 1))
        goto out;
    const uint8_t *data = a[0].view.buf;
    const int64_t *positions = a[1].view.buf;
    const int32_t *lengths = a[2].view.buf;
    int32_t *codes = a[3].view.buf, last = -1;
    int swap = swaps(order), wrong = 0, full = 0;
    if (place != FIXED)
        size = place == TO_END ? 0 : 4;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < total; i++) {
        if (positions[i] < 0 || lengths[i] < 0 || positions[i] > a[0].view.len - lengths[i] ||
            (uint64_t)offset + size > (uint64_t)lengths[i]) {
            wrong = 1;
            break;
        }
        const uint8_t *start = data + positions[i] + offset;
        uint32_t length = size;
        if (place == TO_END) {
            length = (uint32_t)lengths[i] - offset;
        } else if (place != FIXED) {
            uint32_t word = read32(start, swap);
            uint32_t from = word & 0xffff;
            length = word >> 16;
            if (place == REL_LOC)
                from += offset + 4;
            if (from + length > (uint32_t)lengths[i])
                from = length = 0; /* points outside its record: empty */
            start = data + positions[i] + from;
        }
        if (cut && length) {
            const uint8_t *nul = memchr(start, 0, length);
            if (nul)
                length = (uint32_t)(nul - start);
        }
        if (last < 0 || !same(&t.texts[last], start, length)) {
            last = number_of(&t, start, length);
            if (last < 0) {
                full = 1;
                break;
            }
        }
        codes[i] = last;
    }
    Py_END_ALLOW_THREADS
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, "payload outside the data, or shorter than its field");
        goto out;
    }
    if (full) {
        PyErr_NoMemory();
        goto out;
    }
    result = PyList_New(t.count);
    for (int64_t i = 0; result && i < t.count; i++) {
        PyObject *text = PyBytes_FromStringAndSize((const char *)t.texts[i].start,
                                                   t.texts[i].length);
        if (!text || PyList_SetItem(result, i, text)) {
            Py_DECREF(result);
            result = NULL;
        }
    }
out:
    free(t.texts);
    free(t.table);
    drop(a, 4);
    return result;
}

/* --- module -------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"walk", walk, METH_VARARGS, "Walk pages: count their records, or take them."},
    {"order", order, METH_VARARGS, "Merge sorted streams by time and group them by type."},
    {"numbers", numbers, METH_VARARGS, "Copy number fields of every payload into columns."},
    {"texts", texts, METH_VARARGS, "Number the distinct values of a string or array field."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_native", "The reader's inner loops, compiled.", 0, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__native(void)
{
    return PyModuleDef_Init(&module);
}
