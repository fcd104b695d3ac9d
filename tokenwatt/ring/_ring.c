/* The Python side of core.c: converts, calls one core function, converts back. _twin.py is the same in Python and the documentation.
 *
 * Every argument is converted before the ring is touched: an __index__ may run any code, also code that appends to this ring. The GIL is
 * given up only where no ring is in use, for a reader that had let it go would meet a half-moved ring.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdlib.h>
#include <string.h>

#include "convert.h"
#include "core.h"

/* Below this a sort takes microseconds, and to give up the GIL can cost a whole switch interval to get it back. */
#define SORT_WITHOUT_GIL 1024

typedef struct {
    PyObject_HEAD
    ring core;
} ring_object;

typedef struct {
    PyObject *ring_type;
} module_state;

/* The only way from an object to its ring: under the opaque objects of later ABIs this is PyObject_GetTypeData. */
static inline ring *core_of(PyObject *self)
{
    return &((ring_object *)self)->core;
}

/* --- making ------------------------------------------------------------------------------------------------------------------------ */

static PyObject *new(PyTypeObject *type, PyObject *args, PyObject *kwargs)
{
    static char tiers_name[] = "tiers";
    static char *names[] = {tiers_name, NULL};
    PyObject *sequence;
    if (!PyArg_ParseTupleAndKeywords(args, kwargs, "O:Ring", names, &sequence)) {
        return NULL;
    }
    int64_t tiers[RING_MAX_TIERS][2];
    Py_ssize_t count = to_tiers(sequence, tiers);
    if (count < 0) {
        return NULL;
    }
    ring core;
    ring_status status = ring_open(&core, (const int64_t (*)[2])tiers, (size_t)count);
    if (status != RING_OK) {
        return fail(status);
    }
    ring_object *self = PyObject_New(ring_object, type);
    if (self == NULL) {
        ring_close(&core);
        return NULL;
    }
    self->core = core;
    return (PyObject *)self;
}

static void dealloc(PyObject *self)
{
    PyTypeObject *type = Py_TYPE(self);
    ring_close(core_of(self));
    PyObject_Free(self);
    Py_DECREF(type); /* an instance of a heap type owns a reference to it */
}

static PyObject *reduce(PyObject *Py_UNUSED(self), PyObject *Py_UNUSED(none))
{
    PyErr_SetString(PyExc_TypeError, "cannot pickle or copy a Ring");
    return NULL;
}

/* --- writing ----------------------------------------------------------------------------------------------------------------------- */

static PyObject *append(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t point[2];
    if (takes("append", 2, nargs) < 0 || to_int64s(args, point, 2) < 0) {
        return NULL;
    }
    ring_status status = ring_append(core_of(self), point[0], point[1]);
    if (status != RING_OK) {
        return fail(status);
    }
    Py_RETURN_NONE;
}

/* The GIL stays held throughout: let go between check and store, and another thread could change a buffer that was found good. */
static PyObject *extend_from(PyObject *self, const Py_buffer *view)
{
    bool int64 = view->format != NULL && view->itemsize == sizeof(int64_t)
                 && (strcmp(view->format, "q") == 0 || strcmp(view->format, "l") == 0);
    if (!int64) {
        PyErr_SetString(PyExc_TypeError, "the buffer must hold native int64 (format 'q' or 'l')");
        return NULL;
    }
    if (!PyBuffer_IsContiguous(view, 'C')) {
        PyErr_SetString(PyExc_BufferError, "the buffer must be C-contiguous");
        return NULL;
    }
    size_t bytes = (size_t)view->len;
    if (bytes % sizeof(ring_point) != 0) {
        PyErr_SetString(PyExc_ValueError, "the buffer must hold whole (t_ns, value) pairs");
        return NULL;
    }
    size_t count = bytes / sizeof(ring_point);
    ring_status status = ring_extend(core_of(self), view->buf, count);
    return status == RING_OK ? PyLong_FromSize_t(count) : fail(status);
}

static PyObject *extend(PyObject *self, PyObject *pairs)
{
    Py_buffer view;
    if (PyObject_GetBuffer(pairs, &view, PyBUF_FULL_RO) < 0) {
        return NULL;
    }
    PyObject *count = extend_from(self, &view);
    PyBuffer_Release(&view);
    return count;
}

/* --- reading ----------------------------------------------------------------------------------------------------------------------- */

static Py_ssize_t length(PyObject *self)
{
    return (Py_ssize_t)ring_count(core_of(self));
}

static PyObject *point_or_none(const ring_point *point)
{
    if (point == NULL) {
        Py_RETURN_NONE;
    }
    return pair(point->t, point->v);
}

static PyObject *first(PyObject *self, void *Py_UNUSED(closure))
{
    return point_or_none(ring_first(core_of(self)));
}

static PyObject *last(PyObject *self, void *Py_UNUSED(closure))
{
    return point_or_none(ring_last(core_of(self)));
}

static PyObject *nbytes(PyObject *self, void *Py_UNUSED(closure))
{
    return PyLong_FromSize_t(core_of(self)->capacity * sizeof(ring_point));
}

static PyObject *points(PyObject *self, PyObject *Py_UNUSED(none))
{
    const ring *core = core_of(self);
    PyObject *bytes = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)(ring_count(core) * sizeof(ring_point)));
    if (bytes != NULL) {
        ring_copy(core, PyBytes_AsString(bytes));
    }
    return bytes;
}

static PyObject *value_at(PyObject *self, PyObject *t_ns)
{
    int64_t t;
    int64_t value;
    if (to_int64(t_ns, &t) < 0) {
        return NULL;
    }
    ring_status status = ring_value_at(core_of(self), t, &value);
    return status == RING_OK ? PyLong_FromLongLong(value) : fail(status);
}

static PyObject *delta(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t t[2];
    int64_t change;
    if (takes("delta", 2, nargs) < 0 || to_int64s(args, t, 2) < 0) {
        return NULL;
    }
    ring_status status = ring_delta(core_of(self), t[0], t[1], &change);
    return status == RING_OK ? PyLong_FromLongLong(change) : fail(status);
}

static PyObject *paired_delta(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    if (takes("paired_delta", 3, nargs) < 0) {
        return NULL;
    }
    if (Py_TYPE(args[0]) != Py_TYPE(self)) { /* exact: the type cannot be subclassed */
        PyErr_SetString(PyExc_TypeError, "the other must be a Ring of the same implementation");
        return NULL;
    }
    int64_t t[2];
    int64_t mine;
    int64_t theirs;
    if (to_int64s(args + 1, t, 2) < 0) {
        return NULL;
    }
    ring_status status = ring_delta(core_of(self), t[0], t[1], &mine);
    if (status == RING_OK) {
        status = ring_delta(core_of(args[0]), t[0], t[1], &theirs);
    }
    return status == RING_OK ? pair(mine, theirs) : fail(status);
}

/* --- slopes ------------------------------------------------------------------------------------------------------------------------ */

static PyObject *slope_extremes(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t span[3];
    if (takes("slope_extremes", 3, nargs) < 0 || to_int64s(args, span, 3) < 0) {
        return NULL;
    }
    ring_spans spans;
    int64_t least = 0;
    int64_t most = 0;
    ring_status status = ring_plan(core_of(self), span[0], span[1], span[2], &spans);
    if (status == RING_OK) {
        status = ring_extremes(core_of(self), &spans, &least, &most);
    }
    if (status == RING_NO_SPAN) {
        Py_RETURN_NONE;
    }
    return status == RING_OK ? pair(least, most) : fail(status);
}

static void sort(int64_t *slopes, size_t count)
{
    if (count < SORT_WITHOUT_GIL) {
        ring_sort(slopes, count);
        return;
    }
    Py_BEGIN_ALLOW_THREADS
    ring_sort(slopes, count);
    Py_END_ALLOW_THREADS
}

/* Replaces each of `ranks` by the percentile it asks for. */
static ring_status percentiles(const ring *core, const int64_t span[3], int64_t *ranks, size_t count)
{
    ring_spans spans;
    ring_status status = ring_plan(core, span[0], span[1], span[2], &spans);
    if (status != RING_OK) {
        return status;
    }
    int64_t *slopes = malloc(spans.count * sizeof *slopes);
    if (slopes == NULL) {
        return RING_NO_MEMORY;
    }
    status = ring_slopes(core, &spans, slopes);
    if (status == RING_OK) {
        sort(slopes, spans.count);
        for (size_t i = 0; i < count; i++) {
            ranks[i] = ring_percentile(slopes, spans.count, ranks[i]);
        }
    }
    free(slopes);
    return status;
}

static PyObject *slope_percentiles(PyObject *self, PyObject *const *args, Py_ssize_t nargs)
{
    int64_t span[3];
    if (takes("slope_percentiles", 4, nargs) < 0 || to_int64s(args, span, 3) < 0) {
        return NULL;
    }
    PyObject *numbers = PySequence_Tuple(args[3]);
    if (numbers == NULL) {
        return NULL;
    }
    Py_ssize_t count = PyTuple_Size(numbers);
    int64_t *ranks = to_per_mille(numbers);
    Py_DECREF(numbers);
    if (ranks == NULL) {
        return NULL;
    }
    ring_status status = percentiles(core_of(self), span, ranks, (size_t)count);
    PyObject *result = NULL;
    if (status == RING_OK) {
        result = to_tuple(ranks, count);
    } else if (status == RING_NO_SPAN) {
        Py_INCREF(Py_None);
        result = Py_None;
    } else {
        fail(status);
    }
    free(ranks);
    return result;
}

/* --- the type and the module ------------------------------------------------------------------------------------------------------- */

/* Through void (*)(void): the one function type that any other may be cast to without a warning. */
#define FAST(function) ((PyCFunction)(void (*)(void))(function))

static PyMethodDef methods[] = {
    {"append", FAST(append), METH_FASTCALL,
     "append($self, t_ns, value, /)\n--\n\n"
     "Offer one point. ValueError unless it is later than the last one offered; OverflowError outside int64."},
    {"extend", extend, METH_O,
     "extend($self, pairs, /)\n--\n\n"
     "Offer the points of a C-contiguous buffer of native int64: t_ns, value, t_ns, value ... Returns how many there were.\n\n"
     "All or nothing: ValueError, and no point stored, unless each is later than the one before it."},
    {"points", points, METH_NOARGS,
     "points($self, /)\n--\n\n"
     "The kept points, oldest first, as native int64: t_ns, value, t_ns, value ..."},
    {"value_at", value_at, METH_O,
     "value_at($self, t_ns, /)\n--\n\n"
     "The value at an instant: on the line between its neighbours, rounded down; outside the points, that of the nearest.\n\n"
     "LookupError when the ring is empty."},
    {"delta", FAST(delta), METH_FASTCALL,
     "delta($self, t0_ns, t1_ns, /)\n--\n\n"
     "value_at(t1_ns) - value_at(t0_ns). ValueError if t1_ns < t0_ns; OverflowError outside int64; LookupError when empty."},
    {"paired_delta", FAST(paired_delta), METH_FASTCALL,
     "paired_delta($self, other, t0_ns, t1_ns, /)\n--\n\n"
     "(self.delta(t0_ns, t1_ns), other.delta(t0_ns, t1_ns)). TypeError unless other is a Ring of the same implementation."},
    {"slope_extremes", FAST(slope_extremes), METH_FASTCALL,
     "slope_extremes($self, t0_ns, t1_ns, step_ns, /)\n--\n\n"
     "The least and the greatest slope, in units per second rounded down, of the sub-spans of step_ns counted back from t1_ns.\n\n"
     "Only those inside [t0_ns, t1_ns] and inside the kept points count; None when there are none."},
    {"slope_percentiles", FAST(slope_percentiles), METH_FASTCALL,
     "slope_percentiles($self, t0_ns, t1_ns, step_ns, per_mille, /)\n--\n\n"
     "Percentiles, by nearest rank, of the slopes that slope_extremes() looks at; None when there are none."},
    {"__reduce__", reduce, METH_NOARGS, "Refused: a ring is not pickled or copied."},
    {NULL, NULL, 0, NULL},
};

static PyGetSetDef properties[] = {
    {"first", first, NULL, "The oldest kept point, (t_ns, value); None when the ring is empty.", NULL},
    {"last", last, NULL, "The newest kept point, (t_ns, value); None when the ring is empty.", NULL},
    {"nbytes", nbytes, NULL, "Bytes of the point store: 16 for each point of capacity, used or not.", NULL},
    {NULL, NULL, NULL, NULL, NULL},
};

static char ring_doc[] =
    "Ring(tiers)\n--\n\n"
    "A series of (t_ns, value) points, newest ones in full and older ones thinned, in memory fixed at creation.\n\n"
    "tiers: (capacity, spacing_ns) newest first, see tokenwatt.ring. ValueError on tiers that cannot be.";

static PyType_Slot slots[] = {
    {Py_tp_doc, ring_doc},
    {Py_tp_new, new},
    {Py_tp_dealloc, dealloc},
    {Py_tp_methods, methods},
    {Py_tp_getset, properties},
    {Py_sq_length, length},
    {0, NULL},
};

/* No Py_TPFLAGS_HAVE_GC: a ring refers to no object. No Py_TPFLAGS_BASETYPE: paired_delta() and dealloc() rely on the exact type. */
static PyType_Spec ring_spec = {
    .name = "tokenwatt.ring._ring.Ring",
    .basicsize = sizeof(ring_object),
    .flags = Py_TPFLAGS_DEFAULT | Py_TPFLAGS_IMMUTABLETYPE,
    .slots = slots,
};

static module_state *state_of(PyObject *module)
{
    return PyModule_GetState(module);
}

static int module_exec(PyObject *module)
{
    module_state *state = state_of(module);
    state->ring_type = PyType_FromModuleAndSpec(module, &ring_spec, NULL);
    return state->ring_type != NULL ? PyModule_AddObjectRef(module, "Ring", state->ring_type) : -1;
}

static int module_traverse(PyObject *module, visitproc visit, void *arg)
{
    Py_VISIT(state_of(module)->ring_type);
    return 0;
}

static int module_clear(PyObject *module)
{
    Py_CLEAR(state_of(module)->ring_type);
    return 0;
}

static void module_free(void *module)
{
    module_clear(module);
}

/* Py_MOD_GIL_NOT_USED is missing on purpose: no ring has a lock. A lock goes around each call into core.c, see core.h. */
static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, module_exec},
    {0, NULL},
};

static PyModuleDef module_def = {
    PyModuleDef_HEAD_INIT,
    .m_name = "tokenwatt.ring._ring",
    .m_doc = "The counter rings of tokenwatt.ring, in C.",
    .m_size = sizeof(module_state),
    .m_slots = module_slots,
    .m_traverse = module_traverse,
    .m_clear = module_clear,
    .m_free = module_free,
};

PyMODINIT_FUNC PyInit__ring(void)
{
    return PyModuleDef_Init(&module_def);
}
