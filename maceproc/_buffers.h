/* Buffers that Python hands to compiled loops: taken with their size checked, and given back. */
#define Py_LIMITED_API 0x030B0000
#include <Python.h>

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
