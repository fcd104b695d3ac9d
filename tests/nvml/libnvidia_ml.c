/*
 * A libnvidia-ml.so.1 for tests: the calls of NVML that tokenwatt makes, with the ABI of nvml.h, over boards that a test describes.
 *
 * The boards live in a file that the environment variable TOKENWATT_TEST_NVML names, mapped shared: tests/nvml/board.py writes it (and knows
 * the truth), this library reads it at every call, so a fault can be injected while another process is reading its power. The layout of
 * struct control is mirrored there; nvmlInit refuses a file of another size.
 *
 * A call is left out of the library (a driver too old to have it) by renaming it: cc -DnvmlDeviceGetFieldValues=absent ...
 */
#include "control.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

static control *shared;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static uint32_t references, session_epoch, session;
static uint32_t listed[MAX_GPUS], listed_count; /* the session's boards, where they are enumerated at init */

/* ---- one call ---- */

uint64_t clock_ns(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* A handle is the session and the slot, never a pointer: one of an earlier session is found out. */
static void *handle_of(uint32_t slot)
{
    return (void *)(((uintptr_t)session << 8) | (slot + 1));
}

static int board_of(void *handle, gpu **found)
{
    uintptr_t value = (uintptr_t)handle, slot = (value & 0xff) - 1;
    if (value >> 8 != session || slot >= shared->gpu_count)
        return INVALID_ARGUMENT;
    gpu *g = &shared->gpus[slot];
    *found = g;
    return g->present ? g->lost == 1 ? GPU_IS_LOST : SUCCESS : g->gone_code;
}

static int injected(faults *f, enum call call)
{
    struct timespec nap = {0, 2000000};
    __atomic_fetch_add(&f->calls[call], 1, __ATOMIC_RELAXED);
    while (__atomic_load_n(&f->stuck[call], __ATOMIC_RELAXED))
        nanosleep(&nap, NULL);
    int code = __atomic_load_n(&f->code[call], __ATOMIC_RELAXED);
    if (code && f->times[call] && __atomic_sub_fetch(&f->times[call], 1, __ATOMIC_RELAXED) == 0)
        f->code[call] = 0;
    return code;
}

span enter(enum call call)
{
    span s = {clock_ns(CLOCK_THREAD_CPUTIME_ID), NULL, UNINITIALIZED};
    if (references == 0)
        return s;
    s.ret = injected(&shared->faults, call);
    if (session_epoch != shared->driver_epoch)
        s.ret = shared->stale_code;
    else if (!shared->driver_loaded)
        s.ret = DRIVER_NOT_LOADED;
    return s;
}

span enter_board(enum call call, void *handle)
{
    span s = enter(call);
    if (s.ret == SUCCESS)
        s.ret = board_of(handle, &s.gpu);
    if (s.gpu) {
        int code = injected(&s.gpu->faults, call);
        if (code)
            s.ret = code;
    }
    return s;
}

int leave(const span *s, int ret)
{
    if (shared) {
        __atomic_fetch_add(&shared->cpu_ns, clock_ns(CLOCK_THREAD_CPUTIME_ID) - s->cpu_ns, __ATOMIC_RELAXED);
        __atomic_fetch_add(&shared->calls, 1, __ATOMIC_RELAXED);
    }
    return ret;
}

/* ---- session ---- */

static int map_control(void)
{
    const char *path = getenv("TOKENWATT_TEST_NVML");
    int file = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) {
        fputs("test libnvidia-ml: TOKENWATT_TEST_NVML names no file\n", stderr);
        return UNKNOWN;
    }
    control *mapped = mmap(NULL, sizeof(control), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    close(file);
    if (mapped == MAP_FAILED || mapped->size != sizeof(control)) {
        fputs("test libnvidia-ml: the control file is not of this library's layout\n", stderr);
        return UNKNOWN;
    }
    /* The mapping of before stays: a call of the last test may still be inside it. */
    shared = mapped;
    return SUCCESS;
}

static int start_session(void)
{
    if (!shared->driver_loaded)
        return DRIVER_NOT_LOADED;
    int code = injected(&shared->faults, CALL_nvmlInitWithFlags);
    if (code)
        return code;
    session++;
    session_epoch = shared->driver_epoch;
    listed_count = 0;
    for (uint32_t i = 0; i < shared->gpu_count; i++)
        if (shared->gpus[i].present)
            listed[listed_count++] = i;
    shared->sessions++;
    return SUCCESS;
}

int nvmlInitWithFlags(unsigned flags)
{
    (void)flags;
    pthread_mutex_lock(&lock);
    int ret = references ? SUCCESS : map_control();
    if (ret == SUCCESS && references == 0)
        ret = start_session();
    if (ret == SUCCESS)
        shared->references = ++references;
    pthread_mutex_unlock(&lock);
    return ret;
}

int nvmlShutdown(void)
{
    pthread_mutex_lock(&lock);
    int ret = references ? injected(&shared->faults, CALL_nvmlShutdown) : UNINITIALIZED;
    if (ret == SUCCESS)
        shared->references = --references;
    pthread_mutex_unlock(&lock);
    return ret;
}

const char *nvmlErrorString(int code)
{
    return code == SUCCESS ? "The operation was successful" : "An error of the test library";
}

int nvmlSystemGetDriverVersion(char *text, unsigned length)
{
    span s = enter(CALL_nvmlSystemGetDriverVersion);
    if (s.ret == SUCCESS)
        snprintf(text, length, "%s", shared->driver);
    ANSWER(s.ret);
}

/* The slot of the index-th board that there is, or of none: MAX_GPUS. With index = MAX_GPUS, how many there are. */
static uint32_t slot_of(uint32_t index)
{
    uint32_t seen = 0;
    if (shared->enumerate_at_init)
        return index == MAX_GPUS ? listed_count : index < listed_count ? listed[index] : MAX_GPUS;
    for (uint32_t i = 0; i < shared->gpu_count; i++)
        if (shared->gpus[i].present && seen++ == index)
            return i;
    return index == MAX_GPUS ? seen : MAX_GPUS;
}

int nvmlDeviceGetCount_v2(unsigned *count)
{
    span s = enter(CALL_nvmlDeviceGetCount_v2);
    if (s.ret == SUCCESS)
        *count = slot_of(MAX_GPUS);
    ANSWER(s.ret);
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device)
{
    span s = enter(CALL_nvmlDeviceGetHandleByIndex_v2);
    if (s.ret)
        ANSWER(s.ret);
    uint32_t slot = index < MAX_GPUS ? slot_of(index) : MAX_GPUS;
    if (slot == MAX_GPUS)
        ANSWER(INVALID_ARGUMENT);
    *device = handle_of(slot);
    int ret = board_of(*device, &s.gpu), code = injected(&s.gpu->faults, CALL_nvmlDeviceGetHandleByIndex_v2);
    ANSWER(code ? code : ret);
}

/* ---- what a board is ---- */

int nvmlDeviceGetUUID(void *device, char *text, unsigned length)
{
    BOARD_CALL(nvmlDeviceGetUUID);
    snprintf(text, length, "%s", g->uuid);
    ANSWER(SUCCESS);
}

int nvmlDeviceGetName(void *device, char *text, unsigned length)
{
    BOARD_CALL(nvmlDeviceGetName);
    snprintf(text, length, "%s", g->name);
    ANSWER(SUCCESS);
}

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } pci_info;

int nvmlDeviceGetPciInfo_v3(void *device, pci_info *info)
{
    BOARD_CALL(nvmlDeviceGetPciInfo_v3);
    snprintf(info->bus_id, sizeof info->bus_id, "%s", g->bus_id);
    ANSWER(SUCCESS);
}

int nvmlDeviceGetPowerManagementLimitConstraints(void *device, unsigned *low, unsigned *high)
{
    BOARD_CALL(nvmlDeviceGetPowerManagementLimitConstraints);
    *low = g->limit_min_mw;
    *high = g->limit_max_mw;
    ANSWER(SUCCESS);
}
