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
        take(objects[3], &a[3], 8, 1 << 16, 1) || take(objects[4], &a[4], 4, total, 1) ||
        take(objects[5], &a[5], 4, total, 1))
        goto out;
    const int64_t *times = a[0].view.buf, *bounds = a[2].view.buf;
    const uint16_t *types = a[1].view.buf;
    int64_t *slots = a[3].view.buf;
    int32_t *sources = a[4].view.buf, *ranks = a[5].view.buf;
    Py_ssize_t streams = a[2].view.len / 8 - 1;
    int wrong = total > INT32_MAX || streams < 0 || bounds[0] != 0 || bounds[streams] != total;
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
            sources[slot] = (int32_t)i;
            ranks[slot] = (int32_t)rank++;
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

/* Take records by their numbers: the time of each, and its stream's CPU. */
static PyObject *pick(PyObject *self, PyObject *args)
{
    PyObject *objects[6];
    Array a[6] = {{{0}, 0}};
    PyObject *result = NULL;
    if (!PyArg_ParseTuple(args, "OOOOOO:pick", &objects[0], &objects[1], &objects[2], &objects[3],
                          &objects[4], &objects[5]))
        return NULL;
    /* numbers; times; bounds and CPUs of the streams; the two results */
    if (take(objects[0], &a[0], 4, -1, 0) || take(objects[1], &a[1], 8, -1, 0) ||
        take(objects[2], &a[2], 8, -1, 0))
        goto out;
    Py_ssize_t total = a[0].view.len / 4, records = a[1].view.len / 8;
    Py_ssize_t streams = a[2].view.len / 8 - 1;
    if (take(objects[3], &a[3], 4, streams, 0) || take(objects[4], &a[4], 8, total, 1) ||
        take(objects[5], &a[5], 4, total, 1))
        goto out;
    const int32_t *numbers = a[0].view.buf, *cpus = a[3].view.buf;
    const int64_t *times = a[1].view.buf, *bounds = a[2].view.buf;
    int64_t *out_times = a[4].view.buf;
    int32_t *out_cpus = a[5].view.buf;
    int wrong = 0;
    Py_BEGIN_ALLOW_THREADS
    Py_ssize_t stream = 0;
    for (Py_ssize_t i = 0; i < total; i++) {
        int32_t number = numbers[i];
        if (number < 0 || number >= records) {
            wrong = 1;
            break;
        }
        if (number < bounds[stream])
            stream = 0;
        while (stream < streams && number >= bounds[stream + 1])
            stream++;
        if (stream == streams) {
            wrong = 1;
            break;
        }
        out_times[i] = times[number];
        out_cpus[i] = cpus[stream];
    }
    Py_END_ALLOW_THREADS
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, "no such record");
        goto out;
    }
    result = Py_None;
    Py_INCREF(result);
out:
    drop(a, 6);
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

/* --- columns -------------------------------------------------------------------------------- */

typedef struct {
    uint64_t offset;
    uint32_t size;
    Array out;
} Number;

enum { FIXED, TO_END, DATA_LOC, REL_LOC };

typedef struct {
    uint32_t offset, size, place;
    int cut; /* ends before the first NUL */
    int32_t last; /* number of the value of the record before */
    Array codes;
    Texts texts;
} Value;

typedef struct {
    const uint8_t *data;
    int64_t size, records;
    const int32_t *numbers;
    const int64_t *positions;
    const int32_t *lengths;
    int swap;
} Payloads;

/* Payloads lie far apart. A block of them is fetched at once, and then is in the cache for one field
 * after the other. */
enum { BLOCK = 256 };

typedef struct {
    int64_t from; /* number of its first row */
    int count;
    const uint8_t *payloads[BLOCK];
    uint32_t lengths[BLOCK];
} Block;

static void copy_block(const Block *block, const Number *field, int swap)
{
    const uint64_t offset = field->offset;
    void *out = (uint8_t *)field->out.view.buf + block->from * field->size;
    switch (field->size) {
    case 1:
        for (int i = 0; i < block->count; i++)
            ((uint8_t *)out)[i] = block->payloads[i][offset];
        break;
    case 2:
        for (int i = 0; i < block->count; i++)
            ((uint16_t *)out)[i] = read16(block->payloads[i] + offset, swap);
        break;
    case 4:
        for (int i = 0; i < block->count; i++)
            ((uint32_t *)out)[i] = read32(block->payloads[i] + offset, swap);
        break;
    default:
        for (int i = 0; i < block->count; i++)
            ((uint64_t *)out)[i] = read64(block->payloads[i] + offset, swap);
    }
}

/* Number the values of a block's field; -1 without memory. */
static int number_block(const Block *block, Value *field, int swap)
{
    int32_t *codes = (int32_t *)field->codes.view.buf + block->from;
    const uint32_t offset = field->offset;
    for (int i = 0; i < block->count; i++) {
        const uint8_t *payload = block->payloads[i];
        const uint8_t *start = payload + offset;
        uint32_t length = field->size;
        if (field->place == TO_END) {
            length = block->lengths[i] - offset;
        } else if (field->place != FIXED) {
            uint32_t word = read32(start, swap);
            uint32_t at = word & 0xffff;
            length = word >> 16;
            if (field->place == REL_LOC)
                at += offset + 4;
            if (at + length > block->lengths[i])
                at = length = 0; /* points outside its record: empty */
            start = payload + at;
        }
        if (field->cut && length) {
            const uint8_t *nul = memchr(start, 0, length);
            if (nul)
                length = (uint32_t)(nul - start);
        }
        if (field->last < 0 || !same(&field->texts.texts[field->last], start, length)) {
            field->last = number_of(&field->texts, start, length);
            if (field->last < 0)
                return -1;
        }
        codes[i] = field->last;
    }
    return 0;
}

/* Fetch a block of payloads; false when one is not in the data, or too short for the fields. */
static int fetch(const Payloads *p, Block *block, int64_t reach)
{
    for (int i = 0; i < block->count; i++) {
        int64_t number = p->numbers[block->from + i];
        if (number < 0 || number >= p->records)
            return 0;
        int64_t position = p->positions[number], length = p->lengths[number];
        if (position < 0 || length < reach || position > p->size - length)
            return 0;
        block->payloads[i] = p->data + position;
        block->lengths[i] = (uint32_t)length;
        __builtin_prefetch(p->data + position);
        __builtin_prefetch(p->data + position + 64);
    }
    return 1;
}

static PyObject *list_of(const Texts *texts)
{
    PyObject *list = PyList_New(texts->count);
    for (int64_t i = 0; list && i < texts->count; i++) {
        const Text *text = &texts->texts[i];
        PyObject *value = PyBytes_FromStringAndSize((const char *)text->start, text->length);
        if (!value || PyList_SetItem(list, i, value)) {
            Py_DECREF(list);
            return NULL;
        }
    }
    return list;
}

static int take_number(PyObject *item, Number *field, Py_ssize_t total, int64_t *reach)
{
    PyObject *column;
    unsigned int offset, size;
    if (!PyArg_ParseTuple(item, "IIO", &offset, &size, &column))
        return -1;
    if (size != 1 && size != 2 && size != 4 && size != 8) {
        PyErr_SetString(PyExc_ValueError, "a number has 1, 2, 4 or 8 bytes");
        return -1;
    }
    field->offset = offset;
    field->size = size;
    if ((int64_t)offset + size > *reach)
        *reach = (int64_t)offset + size;
    return take(column, &field->out, size, total, 1);
}

static int take_value(PyObject *item, Value *field, Py_ssize_t total, int64_t *reach)
{
    PyObject *codes;
    if (!PyArg_ParseTuple(item, "IIIpO", &field->offset, &field->size, &field->place, &field->cut,
                          &codes))
        return -1;
    if (field->place != FIXED)
        field->size = field->place == TO_END ? 0 : 4;
    field->last = -1;
    if ((int64_t)field->offset + field->size > *reach)
        *reach = (int64_t)field->offset + field->size;
    return take(codes, &field->codes, 4, total, 1);
}

/* Of the records with the numbers given, copy number fields into columns; number the distinct values
 * of other fields, and return them, a list of bytes for each field. */
static PyObject *columns(PyObject *self, PyObject *args)
{
    PyObject *objects[4], *number_list, *value_list, *result = NULL;
    Array a[4] = {{{0}, 0}};
    Number *numbers = NULL;
    Value *values = NULL;
    Py_ssize_t number = 0, valued = 0;
    int order, wrong = 0, full = 0;
    if (!PyArg_ParseTuple(args, "OOOOCO!O!:columns", &objects[0], &objects[1], &objects[2],
                          &objects[3], &order, &PyList_Type, &number_list, &PyList_Type,
                          &value_list))
        return NULL;
    /* data; numbers; positions and lengths of all records */
    if (take(objects[0], &a[0], 1, -1, 0) || take(objects[1], &a[1], 4, -1, 0) ||
        take(objects[2], &a[2], 8, -1, 0))
        goto out;
    Py_ssize_t total = a[1].view.len / 4, records = a[2].view.len / 8;
    if (take(objects[3], &a[3], 4, records, 0))
        goto out;
    number = PyList_Size(number_list);
    valued = PyList_Size(value_list);
    numbers = calloc((size_t)number + 1, sizeof(Number));
    values = calloc((size_t)valued + 1, sizeof(Value));
    if (!numbers || !values) {
        PyErr_NoMemory();
        goto out;
    }
    int64_t reach = 0;
    for (Py_ssize_t f = 0; f < number; f++)
        if (take_number(PyList_GetItem(number_list, f), &numbers[f], total, &reach))
            goto out;
    for (Py_ssize_t f = 0; f < valued; f++)
        if (take_value(PyList_GetItem(value_list, f), &values[f], total, &reach))
            goto out;
    Payloads p = {a[0].view.buf, a[0].view.len, records,      a[1].view.buf,
                  a[2].view.buf, a[3].view.buf, swaps(order)};
    Block block;
    Py_BEGIN_ALLOW_THREADS
    for (int64_t from = 0; from < total && !wrong && !full; from += BLOCK) {
        block.from = from;
        block.count = from + BLOCK < total ? BLOCK : (int)(total - from);
        wrong = !fetch(&p, &block, reach);
        for (Py_ssize_t f = 0; f < number && !wrong; f++)
            copy_block(&block, &numbers[f], p.swap);
        for (Py_ssize_t f = 0; f < valued && !wrong && !full; f++)
            full = number_block(&block, &values[f], p.swap) < 0;
    }
    Py_END_ALLOW_THREADS
    if (wrong) {
        PyErr_SetString(PyExc_ValueError, "payload outside the data, or shorter than its fields");
        goto out;
    }
    if (full) {
        PyErr_NoMemory();
        goto out;
    }
    result = PyList_New(valued);
    for (Py_ssize_t f = 0; result && f < valued; f++) {
        PyObject *list = list_of(&values[f].texts);
        if (!list || PyList_SetItem(result, f, list)) {
            Py_DECREF(result);
            result = NULL;
        }
    }
out:
    for (Py_ssize_t f = 0; numbers && f < number; f++)
        drop(&numbers[f].out, 1);
    for (Py_ssize_t f = 0; values && f < valued; f++) {
        drop(&values[f].codes, 1);
        free(values[f].texts.texts);
        free(values[f].texts.table);
    }
    free(numbers);
    free(values);
    drop(a, 4);
    return result;
}

/* --- module -------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"walk", walk, METH_VARARGS, "Walk pages: count their records, or take them."},
    {"order", order, METH_VARARGS, "Merge sorted streams by time and group them by type."},
    {"pick", pick, METH_VARARGS, "Take records by their numbers, with their stream's CPU."},
    {"columns", columns, METH_VARARGS, "Copy number fields, number the values of others."},
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
