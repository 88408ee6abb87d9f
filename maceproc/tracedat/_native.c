/* The loops of the reader that every record passes through, compiled.
 *
 * tally() counts the records of a span of time, deal() puts them into the columns of their tables, all
 * CPUs merged. onepass.py calls both; what comes out is what the NumPy path gives, step by step, and
 * the tests hold them equal. They work on buffers, hold no state, and release the GIL. Bounds are
 * checked here: a caller's mistake raises ValueError, a damaged file never reads outside its data.
 */
#include "../_buffers.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* --- bytes --------------------------------------------------------------------------------- */

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

/* --- pages --------------------------------------------------------------------------------- */

enum { TYPES = 1 << 16 }; /* common_type has 16 bits */
enum { LONG_DATA = 0, SHORT_MAX = 28, PADDING = 29, TIME_EXTEND = 30, TIME_STAMP = 31 };

typedef struct {
    const uint8_t *data;
    int64_t size;
    int swap, big;
    uint32_t data_offset, commit_offset, commit_size;
    const uint8_t *wanted; /* per type: whether its records are taken */
    const int32_t *sizes;  /* per type: the least a payload must have for its fields */
    uint64_t from, to;     /* the span of time, both included */
} Trace;

/* A place in the pages of one CPU. */
typedef struct {
    const int64_t *starts;
    int64_t page, end; /* pages before `page` are done */
    uint32_t page_size;
    int64_t cpu, number; /* of the stream */
    /* in the page */
    const uint8_t *data;
    uint32_t position, used;
    int64_t lost;
    int damaged;
    /* the record */
    uint64_t time;
    const uint8_t *payload;
    int64_t length;
    uint16_t type;
} Cursor;

/* Enter the next page; false when there is none, or when it is not in the data. */
static int enter_page(const Trace *trace, Cursor *c)
{
    if (c->page >= c->end)
        return 0;
    int64_t start = c->starts[c->page++];
    if (start < 0 || start > trace->size - (int64_t)c->page_size)
        return 0;
    const int swap = trace->swap;
    c->data = trace->data + start;
    const uint8_t *at = c->data + trace->commit_offset;
    uint32_t commit = trace->commit_size == 8 ? (uint32_t)read64(at, swap) : read32(at, swap);
    uint32_t used = commit & ((1u << 27) - 1);
    c->time = read64(c->data, swap);
    c->lost = commit & (1u << 31) ? -1 : 0;
    c->damaged = (uint64_t)trace->data_offset + used > c->page_size;
    c->position = trace->data_offset;
    c->used = c->damaged ? 0 : trace->data_offset + used;
    if (c->lost && !c->damaged && (commit & (1u << 30)) &&
        c->page_size - c->used >= trace->commit_size) {
        at = c->data + c->used;
        uint64_t stored = trace->commit_size == 8 ? read64(at, swap) : read32(at, swap);
        c->lost = (int64_t)(stored & ((1ull << 62) - 1));
    }
    return 1;
}

/* Go to the next record of the page; false at its end, or where it is damaged. */
static inline int next_in_page(const Trace *trace, Cursor *c)
{
    const int swap = trace->swap;
    while (c->position < c->used) {
        const uint8_t *at = c->data + c->position;
        uint32_t room = c->used - c->position;
        if (room < 4)
            goto damaged;
        uint32_t head = read32(at, swap);
        uint32_t kind = trace->big ? head >> 27 : head & 31;
        uint32_t delta = trace->big ? head & ((1u << 27) - 1) : head >> 5;
        if (kind - 1u < SHORT_MAX) {
            uint32_t length = 4 * kind;
            if (4 + length > room)
                goto damaged;
            c->time += delta;
            c->payload = at + 4;
            c->length = length;
            c->position += 4 + length;
            c->type = read16(at + 4, swap);
            return 1;
        }
        if (kind == PADDING && delta == 0)
            break;
        if (room < 8)
            goto damaged;
        uint32_t extra = read32(at + 4, swap);
        uint64_t size = 8, step = delta + ((uint64_t)extra << 27);
        if (kind == LONG_DATA)
            size = 4 + (((uint64_t)extra + 3) & ~3ull);
        else if (kind == PADDING)
            size = 4 + (uint64_t)extra;
        if (size > room || (kind == LONG_DATA && extra < 8))
            goto damaged;
        if (kind == TIME_EXTEND)
            c->time += step;
        else if (kind == TIME_STAMP)
            c->time = (c->time & (0xF8ull << 56)) | step;
        else
            c->time += delta;
        c->position += (uint32_t)size;
        if (kind == LONG_DATA) {
            c->payload = at + 8;
            c->length = (int64_t)extra - 4;
            c->type = read16(at + 8, swap);
            return 1;
        }
    }
    return 0;
damaged:
    c->damaged = 1;
    c->used = c->position;
    return 0;
}

/* Read what all functions are given first: data, the pages' layout, and what is wanted. */
static int take_trace(PyObject *given, Trace *trace, Array *a)
{
    PyObject *data, *wanted, *sizes;
    int order;
    unsigned long long from, to;
    if (!PyArg_ParseTuple(given, "OIIICOOKK", &data, &trace->data_offset, &trace->commit_offset,
                          &trace->commit_size, &order, &wanted, &sizes, &from, &to))
        return -1;
    if (take(data, &a[0], 1, -1, 0) || take(wanted, &a[1], 1, TYPES, 0) ||
        take(sizes, &a[2], 4, TYPES, 0))
        return -1;
    if (trace->data_offset < 8 || (trace->commit_size != 4 && trace->commit_size != 8) ||
        trace->commit_offset > 1 << 10 || trace->data_offset > 1 << 10) {
        PyErr_SetString(PyExc_ValueError, "no such page layout");
        return -1;
    }
    trace->data = a[0].view.buf;
    trace->size = a[0].view.len;
    trace->wanted = a[1].view.buf;
    trace->sizes = a[2].view.buf;
    trace->big = order == '>';
    trace->swap = swaps(order);
    trace->from = from;
    trace->to = to;
    return 0;
}

/* Check a stream: its pages must have room for their header. */
static int check_cursor(const Trace *trace, const Cursor *c, Py_ssize_t pages)
{
    uint64_t header = (uint64_t)trace->commit_offset + trace->commit_size;
    if (c->page_size < trace->data_offset || c->page_size < header || c->page < 0 ||
        c->end > pages) {
        PyErr_SetString(PyExc_ValueError, "no such pages");
        return -1;
    }
    return 0;
}

/* --- tally --------------------------------------------------------------------------------- */

enum { INFO = 5 }; /* arrays about pages: counts, first, last, lost, damaged */

typedef struct {
    Cursor cursor;
    int64_t own; /* pages from here on are this call's to describe */
    Array starts, info[INFO];
} Tallied;

static int take_tallied(PyObject *item, const Trace *trace, Tallied *t)
{
    PyObject *starts, *info[INFO];
    long long from, own, end;
    if (!PyArg_ParseTuple(item, "OILLLOOOOO", &starts, &t->cursor.page_size, &from, &own, &end,
                          &info[0], &info[1], &info[2], &info[3], &info[4]))
        return -1;
    if (take(starts, &t->starts, 8, -1, 0))
        return -1;
    Py_ssize_t pages = t->starts.view.len / 8;
    for (int i = 0; i < INFO; i++)
        if (take(info[i], &t->info[i], i == INFO - 1 ? 1 : 8, pages, 1))
            return -1;
    t->cursor.starts = t->starts.view.buf;
    t->cursor.page = from;
    t->cursor.end = end;
    t->own = own;
    return check_cursor(trace, &t->cursor, pages);
}

/* Count a stream's records by type; false when its time goes back. */
static int tally_stream(const Trace *trace, Tallied *t, int64_t *rows, int64_t *others)
{
    Cursor *c = &t->cursor;
    int64_t *counts = t->info[0].view.buf, *lost = t->info[3].view.buf;
    uint64_t *first = t->info[1].view.buf, *last = t->info[2].view.buf, before = 0;
    uint8_t *damaged = t->info[4].view.buf;
    int sorted = 1;
    while (enter_page(trace, c)) {
        int64_t page = c->page - 1, count = 0;
        uint64_t begin = c->time, end = c->time;
        int seen = 0;
        sorted &= c->time >= before;
        before = c->time;
        while (next_in_page(trace, c)) {
            sorted &= c->time >= before;
            before = end = c->time;
            if (!seen)
                begin = c->time;
            seen = 1;
            if (!trace->wanted[c->type])
                continue;
            count++;
            if (c->time >= trace->from && c->time <= trace->to)
                (c->length >= trace->sizes[c->type] ? rows : others)[c->type]++;
        }
        if (page >= t->own) {
            counts[page] = count;
            first[page] = begin;
            last[page] = end;
            lost[page] = c->lost;
            damaged[page] = (uint8_t)c->damaged;
        }
    }
    return sorted;
}

static PyObject *tally(PyObject *self, PyObject *args)
{
    PyObject *given, *list, *object_rows, *object_others, *result = NULL;
    Array a[3] = {{{0}, 0}}, counted[2] = {{{0}, 0}};
    Trace trace = {0};
    Tallied *streams = NULL;
    Py_ssize_t number = 0;
    if (!PyArg_ParseTuple(args, "O!O!OO:tally", &PyTuple_Type, &given, &PyList_Type, &list,
                          &object_rows, &object_others))
        return NULL;
    if (take_trace(given, &trace, a) || take(object_rows, &counted[0], 8, TYPES, 1) ||
        take(object_others, &counted[1], 8, TYPES, 1))
        goto out;
    number = PyList_Size(list);
    streams = calloc((size_t)number + 1, sizeof(Tallied));
    if (!streams) {
        PyErr_NoMemory();
        goto out;
    }
    for (Py_ssize_t s = 0; s < number; s++)
        if (take_tallied(PyList_GetItem(list, s), &trace, &streams[s]))
            goto out;
    int sorted = 1;
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t s = 0; s < number; s++)
        sorted &= tally_stream(&trace, &streams[s], counted[0].view.buf, counted[1].view.buf);
    Py_END_ALLOW_THREADS
    result = PyBool_FromLong(sorted);
out:
    for (Py_ssize_t s = 0; streams && s < number; s++) {
        drop(&streams[s].starts, 1);
        drop(streams[s].info, INFO);
    }
    free(streams);
    drop(a, 3);
    drop(counted, 2);
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

/* --- deal ----------------------------------------------------------------------------------- */

typedef struct {
    void *out;
    uint32_t offset, size;
} Number;

enum { FIXED, TO_END, DATA_LOC, REL_LOC, OPEN };
enum { PADDING_END = 8 }; /* so many bytes behind an open array are no padding, but more of it */

typedef struct {
    uint32_t offset, size, place;
    int cut;      /* ends before the first NUL */
    int32_t last; /* number of the value of the row before */
    void *codes;
    Texts texts;
} Value;

enum { COMMON = 4 }; /* columns of every table: times, CPUs, ranks, streams */

typedef struct {
    int64_t row, rows;
    uint64_t *times;
    int32_t *cpus, *ranks;
    int16_t *streams; /* or NULL */
    Py_ssize_t numbered, valued;
    Number *numbers;
    Value *values;
    Array common[COMMON], *columns; /* what holds them */
} Table;

static int take_numbers(PyObject *list, Table *table, int64_t reach)
{
    for (Py_ssize_t f = 0; f < table->numbered; f++) {
        Number *field = &table->numbers[f];
        PyObject *column;
        if (!PyArg_ParseTuple(PyList_GetItem(list, f), "IIO", &field->offset, &field->size,
                              &column))
            return -1;
        uint32_t size = field->size;
        if ((size != 1 && size != 2 && size != 4 && size != 8) ||
            (int64_t)field->offset + size > reach) {
            PyErr_SetString(PyExc_ValueError, "a number of 1, 2, 4 or 8 bytes in the payload");
            return -1;
        }
        if (take(column, &table->columns[f], size, table->rows, 1))
            return -1;
        field->out = table->columns[f].view.buf;
    }
    return 0;
}

static int take_values(PyObject *list, Table *table, int64_t reach, int width)
{
    for (Py_ssize_t f = 0; f < table->valued; f++) {
        Value *field = &table->values[f];
        PyObject *codes;
        if (!PyArg_ParseTuple(PyList_GetItem(list, f), "IIIpO", &field->offset, &field->size,
                              &field->place, &field->cut, &codes))
            return -1;
        if (field->place == TO_END)
            field->size = 0;
        else if (field->place == DATA_LOC || field->place == REL_LOC)
            field->size = 4;
        field->last = -1;
        uint32_t least = field->place == OPEN ? 0 : field->size;
        if ((int64_t)field->offset + least > reach) {
            PyErr_SetString(PyExc_ValueError, "a field outside the payload");
            return -1;
        }
        Array *array = &table->columns[table->numbered + f];
        if (take(codes, array, width, table->rows, 1))
            return -1;
        field->codes = array->view.buf;
    }
    return 0;
}

/* Take a table: (type, first row, times, CPUs, ranks, streams or None, numbers, values). */
static int take_table(PyObject *item, const Trace *trace, Table *table, int *type, int width)
{
    static const int sizes[COMMON] = {8, 4, 4, 2};
    PyObject *common[COMMON], *numbers, *values;
    long long row;
    if (!PyArg_ParseTuple(item, "iLOOOOO!O!", type, &row, &common[0], &common[1], &common[2],
                          &common[3], &PyList_Type, &numbers, &PyList_Type, &values))
        return -1;
    if (*type < 0 || *type >= TYPES || row < 0) {
        PyErr_SetString(PyExc_ValueError, "no such event type or row");
        return -1;
    }
    table->row = row;
    table->rows = -1;
    for (int i = 0; i < COMMON; i++) {
        if (common[i] == Py_None)
            continue;
        if (take(common[i], &table->common[i], sizes[i], table->rows, 1))
            return -1;
        table->rows = table->common[i].view.len / sizes[i];
    }
    if (!table->common[0].held || !table->common[1].held || !table->common[2].held) {
        PyErr_SetString(PyExc_ValueError, "times, CPUs and ranks are in every table");
        return -1;
    }
    table->times = table->common[0].view.buf;
    table->cpus = table->common[1].view.buf;
    table->ranks = table->common[2].view.buf;
    table->streams = table->common[3].held ? table->common[3].view.buf : NULL;
    table->numbered = PyList_Size(numbers);
    table->valued = PyList_Size(values);
    table->numbers = calloc((size_t)table->numbered + 1, sizeof(Number));
    table->values = calloc((size_t)table->valued + 1, sizeof(Value));
    table->columns = calloc((size_t)(table->numbered + table->valued) + 1, sizeof(Array));
    if (!table->numbers || !table->values || !table->columns) {
        PyErr_NoMemory();
        return -1;
    }
    return take_numbers(numbers, table, trace->sizes[*type]) ||
           take_values(values, table, trace->sizes[*type], width);
}

static void drop_table(Table *table)
{
    drop(table->common, COMMON);
    if (table->columns)
        drop(table->columns, (int)(table->numbered + table->valued));
    for (Py_ssize_t f = 0; table->values && f < table->valued; f++) {
        free(table->values[f].texts.texts);
        free(table->values[f].texts.table);
    }
    free(table->numbers);
    free(table->values);
    free(table->columns);
}

static inline void copy_number(const uint8_t *payload, const Number *field, int64_t row, int swap)
{
    const uint8_t *at = payload + field->offset;
    void *out = field->out;
    switch (field->size) {
    case 1:
        ((uint8_t *)out)[row] = *at;
        break;
    case 2:
        ((uint16_t *)out)[row] = read16(at, swap);
        break;
    case 4:
        ((uint32_t *)out)[row] = read32(at, swap);
        break;
    default:
        ((uint64_t *)out)[row] = read64(at, swap);
    }
}

/* Whether bytes, cut before their first NUL or not, are a text; most are a few bytes long. */
static inline int begins(const Text *text, const uint8_t *start, uint32_t length, int cut)
{
    uint32_t end = text->length;
    if (end != length && !(cut && end < length && !start[end]))
        return 0;
    if (end > 16)
        return !memcmp(text->start, start, end);
    for (uint32_t i = 0; i < end; i++)
        if (text->start[i] != start[i])
            return 0;
    return 1;
}

/* Number a record's value; -1 without memory. */
static inline int32_t number_value(const Cursor *c, Value *field, int swap)
{
    const uint8_t *start = c->payload + field->offset;
    uint32_t length = field->size;
    if (field->place == TO_END) {
        length = (uint32_t)c->length - field->offset;
    } else if (field->place == OPEN) {
        uint32_t left = (uint32_t)c->length - field->offset;
        if (left < length || left >= length + PADDING_END)
            length = left;
    } else if (field->place != FIXED) {
        uint32_t word = read32(start, swap), at = word & 0xffff;
        length = word >> 16;
        if (field->place == REL_LOC)
            at += field->offset + 4;
        if (at + length > (uint32_t)c->length)
            at = length = 0; /* points outside its record: empty */
        start = c->payload + at;
    }
    if (field->last >= 0 && begins(&field->texts.texts[field->last], start, length, field->cut))
        return field->last; /* mostly */
    if (field->cut && length) {
        const uint8_t *nul = memchr(start, 0, length);
        if (nul)
            length = (uint32_t)(nul - start);
    }
    return field->last = number_of(&field->texts, start, length);
}

enum { DONE, NO_ROOM, TOO_MANY_VALUES, NO_MEMORY };

/* Write a record into its table's next row. */
static inline int write_row(const Trace *trace, const Cursor *c, Table *table, int32_t rank, int wide)
{
    int64_t row = table->row++;
    if (row >= table->rows) /* the memory-mapped file has changed since the count */
        return NO_ROOM;
    table->times[row] = c->time;
    table->cpus[row] = (int32_t)c->cpu;
    table->ranks[row] = rank;
    if (table->streams)
        table->streams[row] = (int16_t)c->number;
    for (Py_ssize_t f = 0; f < table->numbered; f++)
        copy_number(c->payload, &table->numbers[f], row, trace->swap);
    for (Py_ssize_t f = 0; f < table->valued; f++) {
        Value *field = &table->values[f];
        int32_t code = number_value(c, field, trace->swap);
        if (code < 0)
            return NO_MEMORY;
        if (wide)
            ((int32_t *)field->codes)[row] = code;
        else if (code > INT16_MAX)
            return TOO_MANY_VALUES;
        else
            ((int16_t *)field->codes)[row] = (int16_t)code;
    }
    return DONE;
}

/* Go to the next record that is wanted; false behind the span, or at the end. */
static inline int next_wanted(const Trace *trace, Cursor *c)
{
    for (;;) {
        while (next_in_page(trace, c)) {
            if (c->time > trace->to)
                return 0;
            if (c->time >= trace->from && trace->wanted[c->type])
                return 1;
        }
        if (!enter_page(trace, c))
            return 0;
    }
}

/* Merge the streams by time, ties to the first one, and write every record. */
static int deal_records(const Trace *trace, Cursor *cursors, Py_ssize_t streams, Table *const *of_type,
                        int32_t rank, int wide)
{
    Cursor **heads = malloc(sizeof(Cursor *) * (size_t)(streams + 1));
    Py_ssize_t left = 0;
    int answer = DONE;
    if (!heads)
        return NO_MEMORY;
    for (Py_ssize_t s = 0; s < streams; s++)
        if (next_wanted(trace, &cursors[s]))
            heads[left++] = &cursors[s];
    while (left && answer == DONE) {
        Py_ssize_t best = 0, second = -1; /* the earliest, and who has his turn after it */
        for (Py_ssize_t s = 1; s < left; s++) {
            if (heads[s]->time < heads[best]->time) {
                second = best;
                best = s;
            } else if (second < 0 || heads[s]->time < heads[second]->time) {
                second = s;
            }
        }
        Cursor *c = heads[best];
        uint64_t limit = second < 0 ? UINT64_MAX : heads[second]->time;
        int first = second < 0 || best < second, more = 1;
        do {
            Table *table = of_type[c->type];
            if (table && c->length >= trace->sizes[c->type])
                answer = write_row(trace, c, table, rank, wide);
            rank++;
            more = next_wanted(trace, c);
        } while (more && answer == DONE && (c->time < limit || (c->time == limit && first)));
        if (!more) {
            left--;
            memmove(heads + best, heads + best + 1, sizeof(Cursor *) * (size_t)(left - best));
        }
    }
    free(heads);
    return answer;
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

/* Return the distinct values of every field of every table. */
static PyObject *values_of(const Table *tables, Py_ssize_t number)
{
    PyObject *result = PyList_New(number);
    for (Py_ssize_t t = 0; result && t < number; t++) {
        PyObject *fields = PyList_New(tables[t].valued);
        for (Py_ssize_t f = 0; fields && f < tables[t].valued; f++) {
            PyObject *list = list_of(&tables[t].values[f].texts);
            if (!list || PyList_SetItem(fields, f, list)) {
                Py_DECREF(fields);
                fields = NULL;
            }
        }
        if (!fields || PyList_SetItem(result, t, fields)) {
            Py_DECREF(result);
            return NULL;
        }
    }
    return result;
}

/* Return the values, or None when a field has more of them than its codes can number. */
static PyObject *deal(PyObject *self, PyObject *args)
{
    PyObject *given, *stream_list, *table_list, *result = NULL;
    Array a[3] = {{{0}, 0}}, *starts = NULL;
    Trace trace = {0};
    Cursor *cursors = NULL;
    Table *tables = NULL, **of_type = NULL;
    Py_ssize_t streams = 0, number = 0;
    int rank, wide, answer;
    if (!PyArg_ParseTuple(args, "O!O!O!ip:deal", &PyTuple_Type, &given, &PyList_Type, &stream_list,
                          &PyList_Type, &table_list, &rank, &wide))
        return NULL;
    if (take_trace(given, &trace, a))
        goto out;
    streams = PyList_Size(stream_list);
    number = PyList_Size(table_list);
    starts = calloc((size_t)streams + 1, sizeof(Array));
    cursors = calloc((size_t)streams + 1, sizeof(Cursor));
    tables = calloc((size_t)number + 1, sizeof(Table));
    of_type = calloc(TYPES, sizeof(Table *));
    if (!starts || !cursors || !tables || !of_type) {
        PyErr_NoMemory();
        goto out;
    }
    for (Py_ssize_t s = 0; s < streams; s++) {
        PyObject *object;
        long long from, end, cpu, place;
        if (!PyArg_ParseTuple(PyList_GetItem(stream_list, s), "OILLLL", &object,
                              &cursors[s].page_size, &from, &end, &cpu, &place) ||
            take(object, &starts[s], 8, -1, 0))
            goto out;
        cursors[s].starts = starts[s].view.buf;
        cursors[s].page = from;
        cursors[s].end = end;
        cursors[s].cpu = cpu;
        cursors[s].number = place;
        if (check_cursor(&trace, &cursors[s], starts[s].view.len / 8))
            goto out;
    }
    for (Py_ssize_t t = 0; t < number; t++) {
        int type;
        if (take_table(PyList_GetItem(table_list, t), &trace, &tables[t], &type, wide ? 4 : 2))
            goto out;
        of_type[type] = &tables[t];
    }
    Py_BEGIN_ALLOW_THREADS
    answer = deal_records(&trace, cursors, streams, of_type, rank, wide);
    Py_END_ALLOW_THREADS
    if (answer == DONE) {
        result = values_of(tables, number);
    } else if (answer == TOO_MANY_VALUES) {
        result = Py_None;
        Py_INCREF(result);
    } else if (answer == NO_ROOM) {
        PyErr_SetString(PyExc_ValueError, "more records than were counted");
    } else {
        PyErr_NoMemory();
    }
out:
    for (Py_ssize_t s = 0; starts && s < streams; s++)
        drop(&starts[s], 1);
    for (Py_ssize_t t = 0; tables && t < number; t++)
        drop_table(&tables[t]);
    free(starts);
    free(cursors);
    free(tables);
    free(of_type);
    drop(a, 3);
    return result;
}

/* --- module -------------------------------------------------------------------------------- */

/* --- perf.data ------------------------------------------------------------------------------ */

enum { RECORD_HEADER = 8, FIRST_USER_RECORD = 64 };

/* Return where the next record begins; the same position where none of the kernel's records is. */
static inline Py_ssize_t next_record(const uint8_t *data, Py_ssize_t size, Py_ssize_t at, int swap)
{
    if (size - at < RECORD_HEADER)
        return at;
    uint32_t kind = read32(data + at, swap);
    uint16_t length = read16(data + at + 6, swap);
    return kind >= FIRST_USER_RECORD || length < RECORD_HEADER || length > size - at ? at : at + length;
}

/* Return the positions of the kernel's records from the start of the data on, as bytes of int64,
 * and where they end: at the end of the data, at a record of perf's own, or at what is none. */
static PyObject *kernel_records(PyObject *self, PyObject *args)
{
    PyObject *object, *positions = NULL, *result = NULL;
    Array data = {{0}, 0};
    int order;
    if (!PyArg_ParseTuple(args, "OC:kernel_records", &object, &order))
        return NULL;
    if (take(object, &data, 1, -1, 0))
        return NULL;
    const uint8_t *bytes = data.view.buf;
    Py_ssize_t size = data.view.len, count = 0, end = 0, next;
    const int swap = swaps(order);
    Py_BEGIN_ALLOW_THREADS
    for (; (next = next_record(bytes, size, end, swap)) != end; end = next)
        count++;
    Py_END_ALLOW_THREADS
    positions = PyBytes_FromStringAndSize(NULL, count * 8);
    if (!positions)
        goto out;
    char *out = PyBytes_AsString(positions);
    int64_t at = 0;
    for (Py_ssize_t n = 0; n < count; n++) {
        memcpy(out + 8 * n, &at, 8);
        Py_ssize_t following = next_record(bytes, size, (Py_ssize_t)at, swap);
        if (following == at) /* the memory-mapped file has changed since the count */
            following = end;
        at = following;
    }
    result = Py_BuildValue("(On)", positions, end);
out:
    Py_XDECREF(positions);
    drop(&data, 1);
    return result;
}

static PyMethodDef methods[] = {
    {"tally", tally, METH_VARARGS, "Count records by type; say whether time goes on."},
    {"deal", deal, METH_VARARGS, "Put records into the columns of their tables."},
    {"kernel_records", kernel_records, METH_VARARGS, "Find the records of a perf.data."},
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
