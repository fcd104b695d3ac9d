/* What else the boards tell, and the processes on them. */
#include "control.h"

int nvmlDeviceGetEnforcedPowerLimit(void *device, unsigned *mw)
{
    BOARD_CALL(nvmlDeviceGetEnforcedPowerLimit);
    *mw = g->limit_mw;
    ANSWER(SUCCESS);
}

typedef struct { unsigned gpu, memory; } utilization;

int nvmlDeviceGetUtilizationRates(void *device, utilization *rates)
{
    BOARD_CALL(nvmlDeviceGetUtilizationRates);
    *rates = (utilization){g->utilization, 0};
    ANSWER(SUCCESS);
}

typedef struct { unsigned long long total, free, used; } memory_v1;
typedef struct { unsigned version; unsigned long long total, reserved, free, used; } memory_v2;

int nvmlDeviceGetMemoryInfo(void *device, memory_v1 *memory)
{
    BOARD_CALL(nvmlDeviceGetMemoryInfo);
    unsigned long long used = g->memory_used + g->memory_reserved; /* version 1 counts the reserved as used */
    *memory = (memory_v1){g->memory_total, g->memory_total - used, used};
    ANSWER(SUCCESS);
}

int nvmlDeviceGetMemoryInfo_v2(void *device, memory_v2 *memory)
{
    BOARD_CALL(nvmlDeviceGetMemoryInfo_v2);
    if (memory->version != (sizeof(memory_v2) | 2u << 24))
        ANSWER(ARGUMENT_VERSION_MISMATCH);
    memory->total = g->memory_total;
    memory->reserved = g->memory_reserved;
    memory->used = g->memory_used;
    memory->free = g->memory_total - g->memory_used - g->memory_reserved;
    ANSWER(SUCCESS);
}

int nvmlDeviceGetTemperature(void *device, int sensor, unsigned *celsius)
{
    BOARD_CALL(nvmlDeviceGetTemperature);
    *celsius = g->temperature;
    ANSWER(sensor == 0 ? SUCCESS : INVALID_ARGUMENT);
}

typedef struct { unsigned version; int sensor, celsius; } temperature_v1;

int nvmlDeviceGetTemperatureV(void *device, temperature_v1 *temperature)
{
    BOARD_CALL(nvmlDeviceGetTemperatureV);
    temperature->celsius = (int)g->temperature;
    ANSWER(temperature->version == (sizeof(temperature_v1) | 1u << 24) ? SUCCESS : ARGUMENT_VERSION_MISMATCH);
}

int nvmlDeviceGetClockInfo(void *device, int type, unsigned *mhz)
{
    BOARD_CALL(nvmlDeviceGetClockInfo);
    *mhz = type == 1 ? g->sm_clock_mhz : 0; /* NVML_CLOCK_SM */
    ANSWER(SUCCESS);
}

int nvmlDeviceGetCurrentClocksEventReasons(void *device, unsigned long long *bits)
{
    BOARD_CALL(nvmlDeviceGetCurrentClocksEventReasons);
    *bits = g->event_reasons;
    ANSWER(SUCCESS);
}

int nvmlDeviceGetCurrentClocksThrottleReasons(void *device, unsigned long long *bits)
{
    BOARD_CALL(nvmlDeviceGetCurrentClocksThrottleReasons);
    *bits = g->event_reasons;
    ANSWER(SUCCESS);
}

typedef struct { unsigned pid; unsigned long long memory; unsigned gpu_instance, compute_instance; } process_info;

static int list_processes(const gpu *g, uint32_t mps, unsigned *count, process_info *out)
{
    unsigned room = out ? *count : 0, found = 0;
    for (uint32_t i = 0; i < g->process_count; i++)
        if (g->processes[i].mps == mps && found++ < room)
            out[found - 1] = (process_info){g->processes[i].pid, g->processes[i].memory, NOT_SET, NOT_SET};
    *count = found;
    return found > room ? INSUFFICIENT_SIZE : SUCCESS;
}

int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned *count, process_info *out)
{
    BOARD_CALL(nvmlDeviceGetComputeRunningProcesses_v3);
    ANSWER(list_processes(g, 0, count, out));
}

int nvmlDeviceGetMPSComputeRunningProcesses_v3(void *device, unsigned *count, process_info *out)
{
    BOARD_CALL(nvmlDeviceGetMPSComputeRunningProcesses_v3);
    ANSWER(list_processes(g, 1, count, out));
}

typedef struct { unsigned pid; unsigned long long time_us; unsigned sm, memory, encoder, decoder; } process_sample;

/* The samples that a test wrote, and one every 100 ms of each process that has a load. */
static unsigned samples_since(const gpu *g, uint64_t seen_us, process_sample *out, unsigned room)
{
    unsigned count = 0;
    uint64_t now_us = clock_ns(CLOCK_REALTIME) / 100000000u * 100000u;
    for (uint32_t i = 0; i < g->sample_count; i++)
        if (g->samples[i].time_us > seen_us && count++ < room)
            out[count - 1] = (process_sample){g->samples[i].pid, g->samples[i].time_us, g->samples[i].sm_percent, 0, 0, 0};
    for (uint32_t i = 0; i < g->process_count; i++)
        if (g->processes[i].sm_percent != NOT_SET && now_us > seen_us && count++ < room)
            out[count - 1] = (process_sample){g->processes[i].pid, now_us, g->processes[i].sm_percent, 0, 0, 0};
    return count;
}

int nvmlDeviceGetProcessUtilization(void *device, process_sample *out, unsigned *count, unsigned long long seen_us)
{
    BOARD_CALL(nvmlDeviceGetProcessUtilization);
    unsigned room = out ? *count : 0;
    *count = samples_since(g, seen_us, out, room);
    ANSWER(*count == 0 ? NOT_FOUND : *count > room ? INSUFFICIENT_SIZE : SUCCESS);
}
