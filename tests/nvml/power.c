/* Energy and power of the boards, by their traces. */
#include "control.h"

/* ---- the truth: energy of the trace ---- */

static unsigned __int128 wide(const uint64_t words[2])
{
    return ((unsigned __int128)words[1] << 64) | words[0];
}

/* mW x ns = pJ; the trace from its start to t, whole rounds and then the steps of the last. */
static unsigned __int128 trace_pj(const trace *trace, uint64_t t_ns)
{
    unsigned __int128 round_pj = 0, sum = wide(trace->base_pj);
    uint64_t round_ns = 0, left = t_ns > trace->start_ns ? t_ns - trace->start_ns : 0;
    for (uint64_t i = 0; i < trace->step_count; i++) {
        round_pj += (unsigned __int128)trace->steps[i].duration_ns * trace->steps[i].power_mw;
        round_ns += trace->steps[i].duration_ns;
    }
    if (round_ns == 0)
        return sum;
    sum += round_pj * (left / round_ns);
    left %= round_ns;
    for (uint64_t i = 0; i < trace->step_count && left > 0; i++) {
        uint64_t part = left < trace->steps[i].duration_ns ? left : trace->steps[i].duration_ns;
        sum += (unsigned __int128)part * trace->steps[i].power_mw;
        left -= part;
    }
    return sum;
}

static trace trace_now(const gpu *g)
{
    trace copy;
    uint64_t before;
    do {
        while ((before = __atomic_load_n(&g->sequence, __ATOMIC_ACQUIRE)) & 1)
            ;
        copy = g->trace;
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
    } while (__atomic_load_n(&g->sequence, __ATOMIC_RELAXED) != before);
    return copy;
}

static uint64_t energy_mj(const gpu *g)
{
    trace now = trace_now(g);
    uint64_t t = clock_ns(CLOCK_MONOTONIC);
    if (now.quantum_ns)
        t -= t % now.quantum_ns;
    unsigned __int128 energy = trace_pj(&now, t), zero = wide(now.zero_pj);
    return (uint64_t)now.counter_offset_mj + (uint64_t)((energy > zero ? energy - zero : 0) / 1000000000u);
}

/* The mean over the last span_ns, or since the trace began where that is less; 1 ns = the power now. */
static uint64_t mean_mw(const gpu *g, uint64_t span_ns)
{
    trace now = trace_now(g);
    uint64_t t = clock_ns(CLOCK_MONOTONIC), from = t - span_ns;
    if (from < now.start_ns)
        from = now.start_ns;
    if (t <= from)
        return now.step_count ? now.steps[0].power_mw : 0;
    return (uint64_t)((trace_pj(&now, t) - trace_pj(&now, from)) / (t - from));
}

/* ---- energy and power ---- */

typedef union { double d; unsigned ui; unsigned long long ull; long long sll; int si; unsigned short us; } value;
typedef struct { unsigned field, scope; long long time_us, latency_us; int type, ret; value value; } field_value;

static void set_value(field_value *entry, int type, uint64_t number)
{
    entry->type = type;
    entry->value.ull = 0xfefefefefefefefeull; /* what a reader of the wrong member would see */
    switch (type) {
    case TYPE_DOUBLE: entry->value.d = (double)number; break;
    case TYPE_UNSIGNED_INT: entry->value.ui = (unsigned)number; break;
    case TYPE_SIGNED_INT: entry->value.si = (int)number; break;
    case TYPE_UNSIGNED_SHORT: entry->value.us = (unsigned short)number; break;
    case TYPE_SIGNED_LONG_LONG: entry->value.sll = (long long)number; break;
    default: entry->value.ull = number; /* unsigned long (64 bits) and unsigned long long */
    }
}

static void answer_field(const gpu *g, field_value *entry)
{
    int type = TYPE_UNSIGNED_INT;
    uint64_t number = 0;
    entry->ret = g->lost ? GPU_IS_LOST : SUCCESS;
    if (entry->field == FIELD_ENERGY)
        type = TYPE_UNSIGNED_LONG_LONG, number = energy_mj(g);
    else if (entry->field == FIELD_POWER_AVERAGE && entry->scope == 0)
        number = mean_mw(g, 1000000000u);
    else if (entry->field == FIELD_POWER_INSTANT && entry->scope == 0)
        number = mean_mw(g, 1);
    else
        entry->ret = NOT_SUPPORTED;
    for (uint32_t i = 0; i < g->field_count; i++) {
        const field_fault *f = &g->fields[i];
        if (f->id == entry->field) {
            entry->ret = f->code ? f->code : entry->ret;
            type = f->type == NOT_SET ? type : (int)f->type;
            number = f->has_value ? f->value : number;
        }
    }
    set_value(entry, type, number);
}

int nvmlDeviceGetFieldValues(void *device, int count, field_value *entries)
{
    BOARD_CALL(nvmlDeviceGetFieldValues);
    for (int i = 0; i < count; i++)
        answer_field(g, &entries[i]);
    ANSWER(SUCCESS);
}

int nvmlDeviceGetTotalEnergyConsumption(void *device, unsigned long long *mj)
{
    BOARD_CALL(nvmlDeviceGetTotalEnergyConsumption);
    *mj = energy_mj(g);
    ANSWER(SUCCESS);
}

int nvmlDeviceGetPowerUsage(void *device, unsigned *mw)
{
    BOARD_CALL(nvmlDeviceGetPowerUsage);
    *mw = (unsigned)mean_mw(g, 1000000000u);
    ANSWER(SUCCESS);
}
