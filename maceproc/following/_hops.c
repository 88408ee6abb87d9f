/* Following packets, compiled: the loops that every hop passes through.
 *
 * count_addresses() and place_hops() put the hops of several tables, each in order of time, into
 * one order of address and time: a counting sort, since the kernel uses few addresses again and
 * again. number_lives() cuts the hops of every address into lives. find_hops() finds those of some
 * events on some devices; keep_hops() goes on from there within a journey. hop_order.py,
 * journeys.py and walk.py call them; what comes out is what their NumPy path gives, and the tests
 * hold them equal. They hold no state and release the GIL. Bounds are checked here: a caller's
 * mistake raises ValueError.
 */
#include "../_buffers.h"
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* --- addresses ------------------------------------------------------------------------------- */

typedef struct {
    uint64_t address;
    int64_t value; /* the hops counted, or the place of the next one; negative: free */
} Slot;

typedef struct {
    Slot *slots;
    uint64_t mask; /* their number is a power of two, and at most half of them are taken */
    int64_t count;
    int crowded; /* see MOST_STEPS */
} Addresses;

/* The kernel's addresses are found within a few steps. A trace can be made so that all of its
 * addresses belong in one slot, and every search would pass all others: NumPy sorts these. */
enum { FIRST_SLOTS = 1 << 12, MOST_STEPS = 512 };

static int make_slots(Addresses *a, uint64_t number)
{
    a->slots = malloc(number * sizeof(Slot));
    a->mask = number - 1;
    a->count = 0;
    a->crowded = 0;
    if (!a->slots)
        return -1;
    memset(a->slots, 0xff, number * sizeof(Slot));
    return 0;
}

/* Return the slot of an address: its own, or the free one where it belongs; NULL if that is too
 * far from where it is looked for first. */
static inline Slot *slot_of(const Addresses *a, uint64_t address)
{
    uint64_t first = (address * 0x9e3779b97f4a7c15ull) >> 32;
    for (uint64_t at = first; at < first + MOST_STEPS; at++) {
        Slot *slot = &a->slots[at & a->mask];
        if (slot->address == address || slot->value < 0)
            return slot;
    }
    return NULL;
}

static int grow_slots(Addresses *a)
{
    Addresses larger;
    if (make_slots(&larger, (a->mask + 1) * 2))
        return -1;
    for (uint64_t i = 0; i <= a->mask; i++) {
        if (a->slots[i].value < 0)
            continue;
        Slot *slot = slot_of(&larger, a->slots[i].address);
        if (!slot) {
            free(larger.slots);
            a->crowded = 1;
            return -1;
        }
        *slot = a->slots[i];
    }
    larger.count = a->count;
    free(a->slots);
    *a = larger;
    return 0;
}

/* Return the value of an address, a new one is 0; NULL without memory, or where it is crowded. */
static inline int64_t *value_of(Addresses *a, uint64_t address)
{
    Slot *slot = slot_of(a, address);
    if (slot && slot->value < 0 && (uint64_t)a->count * 2 > a->mask) {
        if (grow_slots(a))
            return NULL;
        slot = slot_of(a, address);
    }
    if (!slot) {
        a->crowded = 1;
        return NULL;
    }
    if (slot->value < 0) {
        *slot = (Slot){address, 0};
        a->count++;
    }
    return &slot->value;
}

/* --- tables of events ------------------------------------------------------------------------ */

enum { TIMES, RANKS, CPUS, PIDS, FLAGS, SKBADDRS, CODES, PLACES, LENGTHS, COLUMNS };
enum { SOFTIRQ_FLAG = 0x10 }; /* TRACE_FLAG_SOFTIRQ, include/linux/trace_events.h, v6.8 */

/* The rows of one table that are in one span of time, and where reading them has come to. */
typedef struct {
    Array held[COLUMNS];
    const int64_t *times, *ranks;
    const int32_t *short_ranks; /* instead of ranks */
    const int32_t *cpus, *pids;
    const uint8_t *flags;
    const uint64_t *addresses;
    const void *codes; /* of the device, signed; -1: it has none */
    int code_size;
    const int16_t *places; /* of every code among all devices; the last one is for -1 */
    int64_t coded;
    const uint32_t *lengths;     /* or NULL */
    const int64_t *wide_lengths; /* or NULL; without both the length is 0 */
    int8_t kind, event;
    int64_t row, end;
} Source;

static int64_t length_at(const Source *s, int64_t row)
{
    return s->lengths ? (int64_t)s->lengths[row] : s->wide_lengths ? s->wide_lengths[row] : 0;
}

static inline int64_t rank_at(const Source *s, int64_t row)
{
    return s->short_ranks ? s->short_ranks[row] : s->ranks[row];
}

/* Whether a row comes before another one: by time, then by its place in the trace. */
static inline int is_before(const Source *a, int64_t i, const Source *b, int64_t j)
{
    if (a->times[i] != b->times[j])
        return a->times[i] < b->times[j];
    return rank_at(a, i) < rank_at(b, j);
}

/* Return where a row's device is among all devices, -1 for none; -2 for a code that is unknown. */
static inline int device_at(const Source *s, int64_t row)
{
    int64_t code = s->code_size == 1   ? ((const int8_t *)s->codes)[row]
                   : s->code_size == 2 ? ((const int16_t *)s->codes)[row]
                                       : ((const int32_t *)s->codes)[row];
    if (code == -1)
        return s->places[s->coded];
    return code < 0 || code >= s->coded ? -2 : s->places[code];
}

/* Take a table: (columns in the order of the enum, size of a rank, of a code, of a length; kind,
 * number of its event, first row, end). The lengths may be None. */
static int take_source(PyObject *item, Source *s)
{
    PyObject *columns[COLUMNS], *tuple;
    int rank_size, length_size, kind, event;
    long long row, end;
    if (!PyArg_ParseTuple(item, "O!iiiiiLL", &PyTuple_Type, &tuple, &rank_size, &s->code_size,
                          &length_size, &kind, &event, &row, &end) ||
        !PyArg_ParseTuple(tuple, "OOOOOOOOO", &columns[TIMES], &columns[RANKS], &columns[CPUS],
                          &columns[PIDS], &columns[FLAGS], &columns[SKBADDRS], &columns[CODES],
                          &columns[PLACES], &columns[LENGTHS]))
        return -1;
    if ((rank_size != 4 && rank_size != 8) || (length_size != 4 && length_size != 8) ||
        (s->code_size != 1 && s->code_size != 2 && s->code_size != 4)) {
        PyErr_SetString(PyExc_ValueError, "numbers of a wrong size");
        return -1;
    }
    const int sizes[COLUMNS] = {8, rank_size, 4, 4, 1, 8, s->code_size, 2, length_size};
    Py_ssize_t rows = -1;
    for (int i = 0; i < COLUMNS; i++) {
        if (i == LENGTHS && columns[i] == Py_None)
            continue;
        if (take(columns[i], &s->held[i], sizes[i], i == PLACES ? -1 : rows, 0))
            return -1;
        if (i == TIMES)
            rows = s->held[i].view.len / sizes[i];
    }
    s->coded = s->held[PLACES].view.len / 2 - 1;
    if (row < 0 || end > rows || s->coded < 0) {
        PyErr_SetString(PyExc_ValueError, "no such rows");
        return -1;
    }
    s->times = s->held[TIMES].view.buf;
    if (rank_size == 4)
        s->short_ranks = s->held[RANKS].view.buf;
    else
        s->ranks = s->held[RANKS].view.buf;
    s->cpus = s->held[CPUS].view.buf;
    s->pids = s->held[PIDS].view.buf;
    s->flags = s->held[FLAGS].view.buf;
    s->addresses = s->held[SKBADDRS].view.buf;
    s->codes = s->held[CODES].view.buf;
    s->places = s->held[PLACES].view.buf;
    if (s->held[LENGTHS].held && length_size == 4)
        s->lengths = s->held[LENGTHS].view.buf;
    else if (s->held[LENGTHS].held)
        s->wide_lengths = s->held[LENGTHS].view.buf;
    s->kind = (int8_t)kind;
    s->event = (int8_t)event;
    s->row = row;
    s->end = end;
    return 0;
}

static void drop_sources(Source *sources, Py_ssize_t number)
{
    for (Py_ssize_t i = 0; sources && i < number; i++)
        drop(sources[i].held, COLUMNS);
    free(sources);
}

static Source *take_sources(PyObject *list, Py_ssize_t *number)
{
    *number = PyList_Size(list);
    Source *sources = calloc((size_t)*number + 1, sizeof(Source));
    if (!sources)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; sources && i < *number; i++)
        if (take_source(PyList_GetItem(list, i), &sources[i])) {
            drop_sources(sources, *number);
            return NULL;
        }
    return sources;
}

/* --- order ----------------------------------------------------------------------------------- */

enum { DONE, LEFT_TO_NUMPY, NO_MEMORY, NO_PLACE, NO_DEVICE };

static int count_source(const Source *s, Addresses *found)
{
    for (int64_t row = s->row; row < s->end; row++) {
        if (row && is_before(s, row, s, row - 1))
            return LEFT_TO_NUMPY;
        int64_t *count = value_of(found, s->addresses[row]);
        if (!count)
            return found->crowded ? LEFT_TO_NUMPY : NO_MEMORY;
        ++*count;
    }
    return DONE;
}

/* Return the addresses and how many hops each has, as two bytes objects. */
static PyObject *counts_of(const Addresses *found)
{
    PyObject *addresses = PyBytes_FromStringAndSize(NULL, found->count * 8);
    PyObject *counts = PyBytes_FromStringAndSize(NULL, found->count * 8), *result = NULL;
    if (addresses && counts) {
        char *address = PyBytes_AsString(addresses), *count = PyBytes_AsString(counts);
        for (uint64_t i = 0; i <= found->mask; i++)
            if (found->slots[i].value >= 0) {
                memcpy(address, &found->slots[i].address, 8);
                memcpy(count, &found->slots[i].value, 8);
                address += 8;
                count += 8;
            }
        result = PyTuple_Pack(2, addresses, counts);
    }
    Py_XDECREF(addresses);
    Py_XDECREF(counts);
    return result;
}

/* Count the hops of every address; None where a table is not in order of time and rank, or where
 * addresses are crowded. */
static PyObject *count_addresses(PyObject *self, PyObject *args)
{
    PyObject *list, *result = NULL;
    Py_ssize_t number;
    Addresses found = {0};
    int answer = DONE;
    if (!PyArg_ParseTuple(args, "O!:count_addresses", &PyList_Type, &list))
        return NULL;
    Source *sources = take_sources(list, &number);
    if (!sources)
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    if (make_slots(&found, FIRST_SLOTS))
        answer = NO_MEMORY;
    for (Py_ssize_t i = 0; i < number && answer == DONE; i++)
        answer = count_source(&sources[i], &found);
    Py_END_ALLOW_THREADS
    if (answer == DONE) {
        result = counts_of(&found);
    } else if (answer == LEFT_TO_NUMPY) {
        result = Py_None;
        Py_INCREF(result);
    } else {
        PyErr_NoMemory();
    }
    free(found.slots);
    drop_sources(sources, number);
    return result;
}

enum { OUT_SKBADDR, OUT_TIME, OUT_CPU, OUT_PID, OUT_SOFTIRQ, OUT_LEN, OUT_DEV, OUT_KIND, OUT_EVENT, OUTS };

/* The columns of hops in order of address and time. */
typedef struct {
    Array held[OUTS];
    int64_t rows;
    uint64_t *addresses;
    int64_t *times, *lengths;
    int32_t *cpus, *pids;
    uint8_t *softirq;
    int16_t *devices;
    int8_t *kinds, *events;
} Ordered;

static int take_ordered(PyObject *tuple, Ordered *o, int writable)
{
    static const int sizes[OUTS] = {8, 8, 4, 4, 1, 8, 2, 1, 1};
    PyObject *columns[OUTS];
    if (!PyArg_ParseTuple(tuple, "OOOOOOOOO", &columns[0], &columns[1], &columns[2], &columns[3],
                          &columns[4], &columns[5], &columns[6], &columns[7], &columns[8]))
        return -1;
    o->rows = -1;
    for (int i = 0; i < OUTS; i++) {
        if (take(columns[i], &o->held[i], sizes[i], o->rows, writable))
            return -1;
        o->rows = o->held[i].view.len / sizes[i];
    }
    o->addresses = o->held[OUT_SKBADDR].view.buf;
    o->times = o->held[OUT_TIME].view.buf;
    o->cpus = o->held[OUT_CPU].view.buf;
    o->pids = o->held[OUT_PID].view.buf;
    o->softirq = o->held[OUT_SOFTIRQ].view.buf;
    o->lengths = o->held[OUT_LEN].view.buf;
    o->devices = o->held[OUT_DEV].view.buf;
    o->kinds = o->held[OUT_KIND].view.buf;
    o->events = o->held[OUT_EVENT].view.buf;
    return 0;
}

static inline int place_row(const Source *s, int64_t row, Addresses *next, const Ordered *o)
{
    Slot *slot = slot_of(next, s->addresses[row]);
    if (!slot)
        return LEFT_TO_NUMPY;
    int64_t at = slot->value;
    int device = device_at(s, row);
    if (at < 0 || at >= o->rows)
        return NO_PLACE;
    if (device < -1)
        return NO_DEVICE;
    slot->value++;
    o->addresses[at] = s->addresses[row];
    o->times[at] = s->times[row];
    o->cpus[at] = s->cpus[row];
    o->pids[at] = s->pids[row];
    o->softirq[at] = (s->flags[row] & SOFTIRQ_FLAG) != 0;
    o->lengths[at] = length_at(s, row);
    o->devices[at] = (int16_t)device;
    o->kinds[at] = s->kind;
    o->events[at] = s->event;
    return DONE;
}

/* Go through all rows in order of time, ties to the lower rank and then to the first table. */
static int place_rows(Source *sources, Py_ssize_t number, Addresses *next, const Ordered *o)
{
    Source **heads = malloc(sizeof(Source *) * (size_t)(number + 1));
    Py_ssize_t left = 0;
    int answer = DONE;
    if (!heads)
        return NO_MEMORY;
    for (Py_ssize_t i = 0; i < number; i++)
        if (sources[i].row < sources[i].end)
            heads[left++] = &sources[i];
    while (left && answer == DONE) {
        Py_ssize_t best = 0;
        for (Py_ssize_t i = 1; i < left; i++)
            if (is_before(heads[i], heads[i]->row, heads[best], heads[best]->row))
                best = i;
        Source *s = heads[best];
        answer = place_row(s, s->row, next, o);
        if (++s->row == s->end) {
            left--;
            memmove(heads + best, heads + best + 1, sizeof(Source *) * (size_t)(left - best));
        }
    }
    free(heads);
    return answer;
}

/* Make the table of where the next hop of every address goes. */
static int take_places(const Array *addresses, const Array *starts, Addresses *next)
{
    const uint64_t *address = addresses->view.buf;
    const int64_t *start = starts->view.buf;
    if (make_slots(next, FIRST_SLOTS))
        return NO_MEMORY;
    for (Py_ssize_t i = 0; i < addresses->view.len / 8; i++) {
        int64_t *value = value_of(next, address[i]);
        if (!value)
            return next->crowded ? LEFT_TO_NUMPY : NO_MEMORY;
        if (start[i] < 0)
            return NO_PLACE;
        *value = start[i];
    }
    return DONE;
}

/* Write the hops of tables to the places of their addresses; False where these are crowded. */
static PyObject *place_hops(PyObject *self, PyObject *args)
{
    PyObject *list, *object_addresses, *object_starts, *columns, *result = NULL;
    Array given[2] = {{{0}, 0}};
    Ordered ordered = {0};
    Addresses next = {0};
    Source *sources = NULL;
    Py_ssize_t number = 0;
    int answer;
    if (!PyArg_ParseTuple(args, "O!OOO!:place_hops", &PyList_Type, &list, &object_addresses,
                          &object_starts, &PyTuple_Type, &columns))
        return NULL;
    if (take(object_addresses, &given[0], 8, -1, 0) ||
        take(object_starts, &given[1], 8, given[0].view.len / 8, 0) ||
        take_ordered(columns, &ordered, 1) || !(sources = take_sources(list, &number)))
        goto out;
    Py_BEGIN_ALLOW_THREADS
    answer = take_places(&given[0], &given[1], &next);
    if (answer == DONE)
        answer = place_rows(sources, number, &next, &ordered);
    Py_END_ALLOW_THREADS
    if (answer == DONE || answer == LEFT_TO_NUMPY) {
        result = PyBool_FromLong(answer == DONE);
    } else if (answer == NO_MEMORY) {
        PyErr_NoMemory();
    } else {
        PyErr_SetString(PyExc_ValueError,
                        answer == NO_PLACE ? "a hop has no place" : "a hop's device is unknown");
    }
out:
    free(next.slots);
    drop_sources(sources, number);
    drop(ordered.held, OUTS);
    drop(given, 2);
    return result;
}

/* --- lives ----------------------------------------------------------------------------------- */

/* `Kind` in hop_arrays.py. */
enum { QUEUE, XMIT, RX, RECEIVE, COPY, FREE, KINDS };

enum { RULE_ALLOWED, RULE_PORTS, RULE_POSSIBLE, RULE_INTO, RULE_DIFFERENCES, RULES };

/* lengths.py, where the reasons are. */
enum { SHORTEST_FRAME_BYTES = 60, SMALLEST_MTU = 512 };

/* What journeys.py knows of the order of hops and of the topology, spread into tables. */
typedef struct {
    Array held[RULES];
    const uint8_t *allowed;  /* this kind, next kind, on the same device */
    const uint8_t *ports;    /* device; the last one is for none, as in the tables below */
    const uint8_t *possible; /* sending device, receiving device */
    const uint8_t *into;     /* sending device, receiving one in a namespace that forwards nothing */
    const uint8_t *differences; /* of the lengths of what is received and sent on */
    int64_t devices, largest;   /* the last difference in that table */
    int tells_softirq;
} Rules;

static int take_rules(PyObject *tuple, Rules *r)
{
    PyObject *tables[RULES];
    if (!PyArg_ParseTuple(tuple, "OOOOOp", &tables[0], &tables[1], &tables[2], &tables[3],
                          &tables[4], &r->tells_softirq))
        return -1;
    if (take(tables[RULE_ALLOWED], &r->held[RULE_ALLOWED], 1, KINDS * KINDS * 2, 0) ||
        take(tables[RULE_PORTS], &r->held[RULE_PORTS], 1, -1, 0))
        return -1;
    Py_ssize_t side = r->held[RULE_PORTS].view.len;
    if (take(tables[RULE_POSSIBLE], &r->held[RULE_POSSIBLE], 1, side * side, 0) ||
        take(tables[RULE_INTO], &r->held[RULE_INTO], 1, side * side, 0) ||
        take(tables[RULE_DIFFERENCES], &r->held[RULE_DIFFERENCES], 1, -1, 0))
        return -1;
    r->allowed = r->held[RULE_ALLOWED].view.buf;
    r->ports = r->held[RULE_PORTS].view.buf;
    r->possible = r->held[RULE_POSSIBLE].view.buf;
    r->into = r->held[RULE_INTO].view.buf;
    r->differences = r->held[RULE_DIFFERENCES].view.buf;
    r->largest = r->held[RULE_DIFFERENCES].view.len - 1;
    r->devices = side - 1;
    return 0;
}

static inline int sends(int kind)
{
    return kind == QUEUE || kind == XMIT;
}

static inline int receives(int kind)
{
    return kind == RX || kind == RECEIVE;
}

/* Tell where the next hop is possible in its task or softirq: _in_context() and
 * _from_the_backlog() of journeys.py, where the reasons are. */
static inline int in_context(const Ordered *o, int64_t at, int before, int after, int tells_softirq)
{
    int softirq = o->softirq[at] || !tells_softirq;
    if (before == RX && after == RECEIVE)
        return softirq;
    if (after != QUEUE || !(sends(before) || receives(before)))
        return 1;
    int same = o->cpus[at] == o->cpus[at - 1] && o->pids[at] == o->pids[at - 1] &&
               o->softirq[at] == o->softirq[at - 1];
    return sends(before) ? same : softirq || (before == RECEIVE && same);
}

/* Tell whether the packet can have come from one device to the other: _along_links(). */
static inline int along_links(const Rules *r, int before, int after, int64_t from, int64_t to)
{
    if (sends(before))
        return receives(after) ? r->possible[from * (r->devices + 1) + to]
                               : after != QUEUE || !r->ports[from];
    return !(receives(before) && receives(after) && from != to && r->ports[to]);
}

/* Tell where what was received can be sent on with this length: can_be_forwarded() of lengths.py. */
static inline int forwards(const Rules *r, int64_t before, int64_t after)
{
    if (after >= SMALLEST_MTU || (before <= SHORTEST_FRAME_BYTES && after <= SHORTEST_FRAME_BYTES))
        return 1;
    uint64_t difference = (uint64_t)after - (uint64_t)before;
    if (difference >> 63)
        difference = 0 - difference;
    return difference <= (uint64_t)r->largest && r->differences[difference];
}

/* Number the lives of the hops from `first` to before `end`, from 0 on, and the hops of each from
 * 0 on; a life begins at `first`. Return the number of lives, or a negative one where a kind or a
 * device is unknown. What holds a hop back at the end of its way is _after_the_end(). */
static int64_t number_rows(const Ordered *o, const Rules *r, int64_t first, int64_t end,
                           int64_t *journeys, int32_t *numbers)
{
    int64_t lives = 0, from = 0;
    int before = FREE, entered = 0, arrived = 0; /* a device that forwards nothing, at this hop */
    for (int64_t at = first; at < end; at++) {
        int after = o->kinds[at];
        int64_t to = o->devices[at];
        if (after < 0 || after >= KINDS || to >= r->devices)
            return -1;
        if (to < 0)
            to = r->devices;
        int goes_on = at > first && o->addresses[at] == o->addresses[at - 1] &&
                      r->allowed[(before * KINDS + after) * 2 + (from == to)] &&
                      (o->lengths[at] == o->lengths[at - 1] ||
                       !((before == QUEUE && after == XMIT) || (before == RX && after == RECEIVE))) &&
                      (!receives(before) || after != QUEUE ||
                       forwards(r, o->lengths[at - 1], o->lengths[at])) &&
                      in_context(o, at, before, after, r->tells_softirq) &&
                      along_links(r, before, after, from, to);
        int enters = goes_on && sends(before) && receives(after) &&
                     r->into[from * (r->devices + 1) + to];
        int stays = goes_on && receives(after) && entered; /* netif_rx, then netif_receive_skb */
        goes_on &= !(arrived && after == QUEUE);
        lives += !goes_on;
        journeys[at] = lives - 1;
        numbers[at] = goes_on ? numbers[at - 1] + 1 : 0;
        entered = enters;
        arrived = enters || stays;
        before = after;
        from = to;
    }
    return lives;
}

/* Number the lives in rows of ordered hops; return how many there are. */
static PyObject *number_lives(PyObject *self, PyObject *args)
{
    PyObject *columns, *given, *object_journeys, *object_numbers, *result = NULL;
    Ordered ordered = {0};
    Rules rules = {0};
    Array out[2] = {{{0}, 0}};
    long long first, end;
    int64_t lives;
    if (!PyArg_ParseTuple(args, "O!O!LLOO:number_lives", &PyTuple_Type, &columns, &PyTuple_Type,
                          &given, &first, &end, &object_journeys, &object_numbers))
        return NULL;
    if (take_ordered(columns, &ordered, 0) || take_rules(given, &rules) ||
        take(object_journeys, &out[0], 8, ordered.rows, 1) ||
        take(object_numbers, &out[1], 4, ordered.rows, 1))
        goto out;
    if (first < 0 || end > ordered.rows) {
        PyErr_SetString(PyExc_ValueError, "no such rows");
        goto out;
    }
    Py_BEGIN_ALLOW_THREADS
    lives = number_rows(&ordered, &rules, first, end, out[0].view.buf, out[1].view.buf);
    Py_END_ALLOW_THREADS
    if (lives < 0)
        PyErr_SetString(PyExc_ValueError, "a hop's kind or device is unknown");
    else
        result = PyLong_FromLongLong(lives);
out:
    drop(out, 2);
    drop(rules.held, RULES);
    drop(ordered.held, OUTS);
    return result;
}

/* --- search ---------------------------------------------------------------------------------- */

/* The events and devices of all hops, and a table that tells which of them are wanted. */
typedef struct {
    Array held[3];
    int64_t rows, names, width; /* of the table: events, devices and a last one for none */
    const int8_t *events;
    const void *devices; /* signed; -1: none */
    int size;            /* of a device */
    const uint8_t *wanted;
} Search;

static int take_search(PyObject *events, PyObject *devices, PyObject *wanted, long long width,
                       Search *s)
{
    if ((s->size != 1 && s->size != 2 && s->size != 4) || width < 1) {
        PyErr_SetString(PyExc_ValueError, "numbers of a wrong size");
        return -1;
    }
    if (take(events, &s->held[0], 1, -1, 0))
        return -1;
    s->rows = s->held[0].view.len;
    if (take(devices, &s->held[1], s->size, s->rows, 0) ||
        take(wanted, &s->held[2], (Py_ssize_t)width, -1, 0))
        return -1;
    s->events = s->held[0].view.buf;
    s->devices = s->held[1].view.buf;
    s->wanted = s->held[2].view.buf;
    s->width = width;
    s->names = s->held[2].view.len / width;
    return 0;
}

/* Tell where a hop is wanted; -1 where its event or its device is unknown. */
static inline int is_wanted(const Search *s, int size, int64_t row)
{
    int64_t event = s->events[row], device = size == 1   ? ((const int8_t *)s->devices)[row]
                                             : size == 2 ? ((const int16_t *)s->devices)[row]
                                                         : ((const int32_t *)s->devices)[row];
    if (event < 0 || event >= s->names || device < -1 || device >= s->width - 1)
        return -1;
    return s->wanted[event * s->width + (device < 0 ? s->width - 1 : device)] != 0;
}

/* Write the positions of the hops that are wanted, and return how many they are. A position is
 * written before it is known to be wanted: there is always room for it. */
static inline int64_t find_wanted(const Search *s, int size, int64_t *found)
{
    int64_t count = 0;
    for (int64_t row = 0; row < s->rows; row++) {
        int wanted = is_wanted(s, size, row);
        if (wanted < 0)
            return -1;
        found[count] = row;
        count += wanted;
    }
    return count;
}

/* Find the hops of some events on some devices: events, devices, size of a device, which are
 * wanted, devices and one, room for the positions. Return how many there are. */
static PyObject *find_hops(PyObject *self, PyObject *args)
{
    PyObject *events, *devices, *wanted, *object, *result = NULL;
    Search search = {0};
    Array found = {{0}, 0};
    long long width;
    int64_t count;
    if (!PyArg_ParseTuple(args, "OOiOLO:find_hops", &events, &devices, &search.size, &wanted,
                          &width, &object))
        return NULL;
    if (take_search(events, devices, wanted, width, &search) ||
        take(object, &found, 8, search.rows, 1))
        goto out;
    Py_BEGIN_ALLOW_THREADS
    count = search.size == 1   ? find_wanted(&search, 1, found.view.buf)
            : search.size == 2 ? find_wanted(&search, 2, found.view.buf)
                               : find_wanted(&search, 4, found.view.buf);
    Py_END_ALLOW_THREADS
    if (count < 0)
        PyErr_SetString(PyExc_ValueError, "a hop's event or device is unknown");
    else
        result = PyLong_FromLongLong(count);
out:
    drop(&found, 1);
    drop(search.held, 3);
    return result;
}

enum { NOWHERE = -1 }; /* walk.py */

/* Write `positions + steps`, or NOWHERE where that is not in the journey of the hop in `origins`, or
 * is not wanted. Return -1 where the event or the device of a hop is unknown. */
static int keep_wanted(const Search *s, const int64_t *journeys, const int64_t *origins,
                       const int64_t *positions, int64_t count, int64_t steps, int64_t *found)
{
    steps = steps < -s->rows ? -s->rows : steps > s->rows + 1 ? s->rows + 1 : steps;
    for (int64_t i = 0; i < count; i++) {
        int64_t from = origins[i], at = positions[i];
        found[i] = NOWHERE;
        if (from < 0 || from >= s->rows || at < NOWHERE || at >= s->rows)
            continue;
        at += steps; /* both are small: no overflow */
        if (at < 0 || at >= s->rows || journeys[at] != journeys[from])
            continue;
        int wanted = is_wanted(s, s->size, at);
        if (wanted < 0)
            return -1;
        if (wanted)
            found[i] = at;
    }
    return 0;
}

/* Keep the positions of hops that are in a journey, and wanted: what find_hops() takes, then the
 * journeys, the hops whose journeys they are, the positions, steps, room for what is kept. */
static PyObject *keep_hops(PyObject *self, PyObject *args)
{
    enum { JOURNEYS, ORIGINS, POSITIONS, KEPT, ARRAYS };
    PyObject *events, *devices, *wanted, *given[ARRAYS], *result = NULL;
    Search search = {0};
    Array held[ARRAYS] = {{{0}, 0}};
    long long width, steps;
    int answer;
    if (!PyArg_ParseTuple(args, "OOiOLOOOLO:keep_hops", &events, &devices, &search.size, &wanted,
                          &width, &given[JOURNEYS], &given[ORIGINS], &given[POSITIONS], &steps,
                          &given[KEPT]))
        return NULL;
    if (take_search(events, devices, wanted, width, &search) ||
        take(given[JOURNEYS], &held[JOURNEYS], 8, search.rows, 0) ||
        take(given[ORIGINS], &held[ORIGINS], 8, -1, 0))
        goto out;
    Py_ssize_t count = held[ORIGINS].view.len / 8;
    if (take(given[POSITIONS], &held[POSITIONS], 8, count, 0) ||
        take(given[KEPT], &held[KEPT], 8, count, 1))
        goto out;
    Py_BEGIN_ALLOW_THREADS
    answer = keep_wanted(&search, held[JOURNEYS].view.buf, held[ORIGINS].view.buf,
                         held[POSITIONS].view.buf, count, steps, held[KEPT].view.buf);
    Py_END_ALLOW_THREADS
    if (answer < 0) {
        PyErr_SetString(PyExc_ValueError, "a hop's event or device is unknown");
    } else {
        result = Py_None;
        Py_INCREF(result);
    }
out:
    drop(held, ARRAYS);
    drop(search.held, 3);
    return result;
}

/* --- module ---------------------------------------------------------------------------------- */

static PyMethodDef methods[] = {
    {"count_addresses", count_addresses, METH_VARARGS, "Count the hops of every address."},
    {"place_hops", place_hops, METH_VARARGS, "Write hops to the places of their addresses."},
    {"number_lives", number_lives, METH_VARARGS, "Number the lives of ordered hops."},
    {"find_hops", find_hops, METH_VARARGS, "Find the hops of some events on some devices."},
    {"keep_hops", keep_hops, METH_VARARGS, "Keep hops of one journey, and of some events."},
    {NULL, NULL, 0, NULL},
};

/* The number grows whenever a function takes or gives something else: see hop_loops.py. */
static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT, "_hops", "Following packets, compiled. Interface 4", 0, methods,
    NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__hops(void)
{
    return PyModuleDef_Init(&module);
}
