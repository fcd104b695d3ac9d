/* What the boards are: the layout of the control file, mirrored in board.py, and how a call begins and ends. */
#ifndef TEST_NVML_CONTROL_H
#define TEST_NVML_CONTROL_H

#include <stdint.h>
#include <time.h>

#define MAX_GPUS 16
#define MAX_STEPS 64
#define MAX_FIELDS 8
#define MAX_PROCESSES 16
#define MAX_SAMPLES 64
#define NOT_SET UINT32_MAX

/* nvmlReturn_t */
enum { SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, INSUFFICIENT_SIZE = 7, DRIVER_NOT_LOADED = 9,
       GPU_IS_LOST = 15, ARGUMENT_VERSION_MISMATCH = 25, UNKNOWN = 999 };
/* nvmlValueType_t */
enum { TYPE_DOUBLE = 0, TYPE_UNSIGNED_INT = 1, TYPE_UNSIGNED_LONG_LONG = 3, TYPE_SIGNED_LONG_LONG = 4, TYPE_SIGNED_INT = 5,
       TYPE_UNSIGNED_SHORT = 6 };
enum { FIELD_ENERGY = 83, FIELD_POWER_AVERAGE = 185, FIELD_POWER_INSTANT = 186 };

/* Every call that can fail, hang and be counted. The order is that of CALLS in board.py. */
#define EACH_CALL(X) \
    X(nvmlInitWithFlags) X(nvmlShutdown) X(nvmlSystemGetDriverVersion) X(nvmlDeviceGetCount_v2) X(nvmlDeviceGetHandleByIndex_v2) \
    X(nvmlDeviceGetUUID) X(nvmlDeviceGetName) X(nvmlDeviceGetPciInfo_v3) X(nvmlDeviceGetPowerManagementLimitConstraints) \
    X(nvmlDeviceGetFieldValues) X(nvmlDeviceGetTotalEnergyConsumption) X(nvmlDeviceGetPowerUsage) X(nvmlDeviceGetProcessUtilization) \
    X(nvmlDeviceGetEnforcedPowerLimit) X(nvmlDeviceGetUtilizationRates) X(nvmlDeviceGetMemoryInfo) X(nvmlDeviceGetMemoryInfo_v2) \
    X(nvmlDeviceGetTemperature) X(nvmlDeviceGetTemperatureV) X(nvmlDeviceGetClockInfo) X(nvmlDeviceGetCurrentClocksEventReasons) \
    X(nvmlDeviceGetCurrentClocksThrottleReasons) X(nvmlDeviceGetComputeRunningProcesses_v3) X(nvmlDeviceGetMPSComputeRunningProcesses_v3)
#define AS_ENUM(name) CALL_##name,
enum call { EACH_CALL(AS_ENUM) CALLS };

typedef struct {
    int32_t code[CALLS];   /* what the call answers instead of its result; 0 = its result */
    uint32_t times[CALLS]; /* how often yet; 0 = until cleared */
    uint32_t stuck[CALLS]; /* the call does not return while this is set */
    uint64_t calls[CALLS]; /* made so far */
} faults;

typedef struct { uint64_t duration_ns, power_mw; } step;
typedef struct { uint32_t id; int32_t code; uint32_t type, has_value; uint64_t value; } field_fault;
typedef struct { uint32_t pid, mps, sm_percent, reserved; uint64_t memory; } process;
typedef struct { uint64_t time_us; uint32_t pid, sm_percent; } sample;

typedef struct {
    uint64_t start_ns; /* CLOCK_MONOTONIC; the steps repeat from here */
    uint64_t base_pj[2], zero_pj[2]; /* energy up to start_ns, and at the counter's last reset; low and high words */
    int64_t counter_offset_mj;
    uint64_t quantum_ns; /* the counter moves at multiples of this only; 0 = always */
    uint64_t step_count;
    step steps[MAX_STEPS];
} trace;

typedef struct {
    uint64_t sequence; /* odd while the trace is being written */
    trace trace;
    char uuid[96], name[96], bus_id[32];
    uint32_t present; /* in the enumeration */
    uint32_t lost;    /* 1 = every call answers GPU_IS_LOST; 2 = the field call succeeds and each of its entries says so */
    int32_t gone_code; /* what a handle of a board that is not present answers */
    uint32_t limit_min_mw, limit_max_mw, limit_mw;
    uint32_t utilization, temperature, sm_clock_mhz;
    uint32_t field_count, process_count, sample_count;
    uint64_t memory_total, memory_used, memory_reserved, event_reasons;
    field_fault fields[MAX_FIELDS];
    process processes[MAX_PROCESSES];
    sample samples[MAX_SAMPLES];
    faults faults;
} gpu;

typedef struct {
    uint32_t size, gpu_count;
    uint32_t driver_loaded, driver_epoch; /* another epoch = the driver was reloaded: sessions of before are stale */
    int32_t stale_code;                   /* what a stale session answers */
    uint32_t enumerate_at_init;           /* boards that come later are seen by the next session only */
    uint32_t references, sessions;        /* written here: nvmlInit less nvmlShutdown, and how many sessions there were */
    uint64_t cpu_ns, calls;               /* written here: thread CPU time inside the library, and calls, of all threads */
    char driver[80];
    faults faults; /* of the calls that concern no board */
    gpu gpus[MAX_GPUS];
} control;

/* One call: what it has cost when it ends, the board it is about, and the error it must answer, if any. */
typedef struct { uint64_t cpu_ns; gpu *gpu; int ret; } span;

#pragma GCC visibility push(hidden)
uint64_t clock_ns(clockid_t id);
span enter(enum call call);
span enter_board(enum call call, void *handle);
int leave(const span *s, int ret);
#pragma GCC visibility pop

#define BOARD_CALL(name) span s = enter_board(CALL_##name, device); gpu *g = s.gpu; if (s.ret) return leave(&s, s.ret)
#define ANSWER(code) return leave(&s, (code))

#endif
