/* Between Python objects and the numbers of core.h. What fails returns -1 or NULL and has set the exception. Part of _ring.c alone. */
#ifndef TOKENWATT_RING_CONVERT_H
#define TOKENWATT_RING_CONVERT_H

#include <Python.h>

#include <stdlib.h>

#include "core.h"

/* Sets the exception; returns NULL, for the caller to return. */
static PyObject *fail(ring_status status)
{
    static const char *const reasons[] = {
        [RING_BAD_TIERS] = "a ring has 1 to 4 tiers",
        [RING_BAD_CAPACITY] = "a tier's capacity is 2 to 4194304 points",
        [RING_BAD_SPACING] = "a tier's spacing is 0 or more and not less than that of the tier before it",
        [RING_NOT_LATER] = "a point must be later than the one before it",
        [RING_EMPTY] = "the ring is empty",
        [RING_BACKWARDS] = "a span must not end before it starts",
        [RING_OVERFLOW] = "the result does not fit int64",
        [RING_BAD_STEP] = "a step must be 1 ns or more",
        [RING_TOO_MANY] = "more than 1000000 sub-spans",
    };
    if (status == RING_NO_MEMORY) {
        return PyErr_NoMemory();
    }
    PyObject *type = status == RING_EMPTY ? PyExc_LookupError : status == RING_OVERFLOW ? PyExc_OverflowError : PyExc_ValueError;
    PyErr_SetString(type, reasons[status]);
    return NULL;
}

static int to_int64(PyObject *number, int64_t *out)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (overflow != 0) {
        PyErr_SetString(PyExc_OverflowError, "a number does not fit int64");
        return -1;
    }
    if (value == -1 && PyErr_Occurred()) {
        return -1;
    }
    *out = value;
    return 0;
}

static int to_int64s(PyObject *const *numbers, int64_t *out, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (to_int64(numbers[i], &out[i]) < 0) {
            return -1;
        }
    }
    return 0;
}

static int takes(const char *name, Py_ssize_t wanted, Py_ssize_t given)
{
    if (given == wanted) {
        return 0;
    }
    PyErr_Format(PyExc_TypeError, "%s() takes exactly %zd arguments (%zd given)", name, wanted, given);
    return -1;
}

static PyObject *pair(int64_t a, int64_t b)
{
    PyObject *left = PyLong_FromLongLong(a);
    PyObject *right = PyLong_FromLongLong(b);
    PyObject *both = left != NULL && right != NULL ? PyTuple_New(2) : NULL;
    if (both == NULL) {
        Py_XDECREF(left);
        Py_XDECREF(right);
        return NULL;
    }
    PyTuple_SetItem(both, 0, left); /* steals; cannot fail on a new tuple */
    PyTuple_SetItem(both, 1, right);
    return both;
}

static PyObject *to_tuple(const int64_t *numbers, Py_ssize_t count)
{
    PyObject *tuple = PyTuple_New(count);
    for (Py_ssize_t i = 0; tuple != NULL && i < count; i++) {
        PyObject *number = PyLong_FromLongLong(numbers[i]);
        if (number == NULL || PyTuple_SetItem(tuple, i, number) < 0) {
            Py_DECREF(tuple);
            return NULL;
        }
    }
    return tuple;
}

/* A number no tier may have is as wrong as one that does not fit int64: both are ValueError, by way of -1. */
static int to_tier_number(PyObject *number, int64_t *out)
{
    int overflow;
    long long value = PyLong_AsLongLongAndOverflow(number, &overflow);
    if (value == -1 && overflow == 0 && PyErr_Occurred()) {
        return -1;
    }
    *out = overflow != 0 ? -1 : value;
    return 0;
}

static int to_tier(PyObject *item, int64_t out[2])
{
    PyObject *numbers = PySequence_Tuple(item);
    if (numbers == NULL) {
        return -1;
    }
    int result = -1;
    if (PyTuple_Size(numbers) != 2) {
        PyErr_SetString(PyExc_ValueError, "a tier is (capacity, spacing_ns)");
    } else if (to_tier_number(PyTuple_GetItem(numbers, 0), &out[0]) == 0) {
        result = to_tier_number(PyTuple_GetItem(numbers, 1), &out[1]);
    }
    Py_DECREF(numbers);
    return result;
}

/* Returns the number of tiers, or -1 with an exception set. */
static Py_ssize_t to_tiers(PyObject *sequence, int64_t (*out)[2])
{
    PyObject *items = PySequence_Tuple(sequence);
    if (items == NULL) {
        return -1;
    }
    Py_ssize_t count = PyTuple_Size(items);
    if (count < 1 || count > RING_MAX_TIERS) {
        fail(RING_BAD_TIERS);
        count = -1;
    }
    for (Py_ssize_t i = 0; i < count; i++) {
        if (to_tier(PyTuple_GetItem(items, i), out[i]) < 0) {
            count = -1;
        }
    }
    Py_DECREF(items);
    return count;
}

/* From a tuple, each checked to be 0..1000. Returns NULL with an exception set; the caller frees. */
static int64_t *to_per_mille(PyObject *numbers)
{
    size_t count = (size_t)PyTuple_Size(numbers);
    int64_t *out = calloc(count + 1, sizeof *out); /* + 1: calloc(0) may be NULL */
    if (out == NULL) {
        PyErr_NoMemory();
        return NULL;
    }
    for (size_t i = 0; i < count; i++) {
        if (to_int64(PyTuple_GetItem(numbers, (Py_ssize_t)i), &out[i]) < 0) {
            free(out);
            return NULL;
        }
        if (out[i] < 0 || out[i] > 1000) {
            PyErr_SetString(PyExc_ValueError, "a percentile is 0 to 1000 per mille");
            free(out);
            return NULL;
        }
    }
    return out;
}

#endif
