/* Counter rings: points (t, value) in tiers that thin with age. Pure C, no Python: every failure is a ring_status.
 *
 * Thread safety: none here. Each function below is one step on one ring (ring_slopes and ring_extremes included), so a caller that wants
 * threads takes one lock around each call.
 */
#ifndef TOKENWATT_RING_CORE_H
#define TOKENWATT_RING_CORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define RING_MAX_TIERS 4
#define RING_MIN_CAPACITY 2
#define RING_MAX_CAPACITY (INT64_C(1) << 22)
#define RING_MAX_SPANS 1000000

typedef enum {
    RING_OK = 0,
    RING_NO_MEMORY,
    RING_BAD_TIERS,    /* how many there are */
    RING_BAD_CAPACITY,
    RING_BAD_SPACING,
    RING_NOT_LATER,    /* a point at or before the one offered last */
    RING_EMPTY,
    RING_BACKWARDS,    /* a span that ends before it starts */
    RING_OVERFLOW,     /* an exact result outside int64 */
    RING_BAD_STEP,
    RING_TOO_MANY,     /* sub-spans */
    RING_NO_SPAN,      /* no full sub-span: an answer, not a mistake */
} ring_status;

typedef struct {
    int64_t t;
    int64_t v;
} ring_point;

typedef struct {
    ring_point *points; /* circular: `count` points from `start` */
    size_t capacity;
    size_t start;
    size_t count;
    uint64_t spacing;
} ring_tier;

typedef struct {
    ring_point *store; /* what all tiers live in: one block */
    ring_tier tiers[RING_MAX_TIERS]; /* newest first; a tier holds points only when all tiers before it are full */
    size_t tier_count;
    size_t capacity; /* of all tiers together */
    int64_t offered_t; /* of the last point offered, kept or not: what the next must be later than */
} ring;

/* Equal sub-spans, side by side: [start + i*step, start + (i+1)*step] for i in 0..count-1. */
typedef struct {
    int64_t start;
    int64_t step;
    size_t count;
} ring_spans;

/* tiers[i] is {capacity, spacing}. After an error the ring holds nothing and needs no ring_close(). */
ring_status ring_open(ring *r, const int64_t (*tiers)[2], size_t tier_count);
void ring_close(ring *r);

ring_status ring_append(ring *r, int64_t t, int64_t v);
/* `pairs` is count * 2 int64 of any alignment; they are stored all or not at all. */
ring_status ring_extend(ring *r, const void *pairs, size_t count);

size_t ring_count(const ring *r);
/* NULL when the ring is empty. The pointer is good until the next append or extend. */
const ring_point *ring_first(const ring *r);
const ring_point *ring_last(const ring *r);
/* Writes ring_count() points, oldest first. `out` may have any alignment. */
void ring_copy(const ring *r, void *out);

ring_status ring_value_at(const ring *r, int64_t t, int64_t *value);
ring_status ring_delta(const ring *r, int64_t t0, int64_t t1, int64_t *delta);

/* The sub-spans of `step` counted back from t1 that lie inside [t0, t1] and inside what the ring remembers. RING_NO_SPAN: there is none. */
ring_status ring_plan(const ring *r, int64_t t0, int64_t t1, int64_t step, ring_spans *spans);
/* The slopes over `spans`, which must come from ring_plan() on this ring in its present state. `slopes` has room for spans->count. */
ring_status ring_slopes(const ring *r, const ring_spans *spans, int64_t *slopes);
ring_status ring_extremes(const ring *r, const ring_spans *spans, int64_t *least, int64_t *most);

/* Touches no ring. */
void ring_sort(int64_t *slopes, size_t count);
/* Nearest rank of `per_mille` (0..1000) in `count` >= 1 sorted slopes. */
int64_t ring_percentile(const int64_t *sorted, size_t count, int64_t per_mille);

#endif
