#include "core.h"

#include <stdlib.h>
#include <string.h>

#define NS_PER_S INT64_C(1000000000)

__extension__ typedef __int128 int128;
__extension__ typedef unsigned __int128 uint128;

_Static_assert(sizeof(ring_point) == 2 * sizeof(int64_t), "a point is copied to and from int64 pairs");
_Static_assert((uint64_t)RING_MAX_TIERS * RING_MAX_CAPACITY * sizeof(ring_point) < SIZE_MAX / 2, "the size of a store cannot overflow");

/* later - earlier, where later >= earlier. Through uint64: the difference of two int64 may not fit int64. */
static inline uint64_t distance(int64_t earlier, int64_t later)
{
    return (uint64_t)later - (uint64_t)earlier;
}

/* t + by, where the sum is known to fit int64 though `by` need not. */
static inline int64_t advance(int64_t t, uint64_t by)
{
    return (int64_t)((uint64_t)t + by);
}

/* --- making ------------------------------------------------------------------------------------------------------------------------ */

static ring_status check_tiers(const int64_t (*tiers)[2], size_t tier_count)
{
    if (tier_count < 1 || tier_count > RING_MAX_TIERS) {
        return RING_BAD_TIERS;
    }
    int64_t before = 0;
    for (size_t k = 0; k < tier_count; k++) {
        if (tiers[k][0] < RING_MIN_CAPACITY || tiers[k][0] > RING_MAX_CAPACITY) {
            return RING_BAD_CAPACITY;
        }
        if (tiers[k][1] < before) {
            return RING_BAD_SPACING;
        }
        before = tiers[k][1];
    }
    return RING_OK;
}

ring_status ring_open(ring *r, const int64_t (*tiers)[2], size_t tier_count)
{
    memset(r, 0, sizeof *r);
    ring_status status = check_tiers(tiers, tier_count);
    if (status != RING_OK) {
        return status;
    }
    size_t capacity = 0;
    for (size_t k = 0; k < tier_count; k++) {
        capacity += (size_t)tiers[k][0];
    }
    /* calloc, not malloc and memset: pages of a large store cost nothing until a point is written there. */
    r->store = calloc(capacity, sizeof *r->store);
    if (r->store == NULL) {
        return RING_NO_MEMORY;
    }
    r->capacity = capacity;
    r->tier_count = tier_count;
    ring_point *points = r->store;
    for (size_t k = 0; k < tier_count; k++) {
        r->tiers[k].points = points;
        r->tiers[k].capacity = (size_t)tiers[k][0];
        r->tiers[k].spacing = (uint64_t)tiers[k][1];
        points += tiers[k][0];
    }
    return RING_OK;
}

void ring_close(ring *r)
{
    free(r->store);
    memset(r, 0, sizeof *r);
}

/* --- writing ----------------------------------------------------------------------------------------------------------------------- */

static inline const ring_point *tier_first(const ring_tier *tier)
{
    return &tier->points[tier->start];
}

static inline const ring_point *tier_last(const ring_tier *tier)
{
    size_t last = tier->start + tier->count - 1;
    return &tier->points[last < tier->capacity ? last : last - tier->capacity];
}

/* Hands a point down the tiers: each either forgets it, has room for it, or puts it in its oldest's place and hands that one down. */
static void push(ring *r, ring_point point)
{
    for (size_t k = 0; k < r->tier_count; k++) {
        ring_tier *tier = &r->tiers[k];
        if (tier->count > 0 && distance(tier_last(tier)->t, point.t) < tier->spacing) {
            return;
        }
        if (tier->count < tier->capacity) {
            /* `start` moves only once the tier is full, and a full tier stays full: here it is still 0. */
            tier->points[tier->count++] = point;
            return;
        }
        ring_point oldest = tier->points[tier->start];
        tier->points[tier->start] = point;
        tier->start = tier->start + 1 < tier->capacity ? tier->start + 1 : 0;
        point = oldest;
    }
}

ring_status ring_append(ring *r, int64_t t, int64_t v)
{
    if (r->tiers[0].count > 0 && t <= r->offered_t) {
        return RING_NOT_LATER;
    }
    push(r, (ring_point){t, v});
    r->offered_t = t;
    return RING_OK;
}

static inline ring_point load(const void *pairs, size_t i)
{
    ring_point point;
    memcpy(&point, (const char *)pairs + i * sizeof point, sizeof point); /* a slice of a byte buffer need not be aligned */
    return point;
}

ring_status ring_extend(ring *r, const void *pairs, size_t count)
{
    bool bounded = r->tiers[0].count > 0;
    int64_t before = r->offered_t;
    for (size_t i = 0; i < count; i++) {
        int64_t t = load(pairs, i).t;
        if (bounded && t <= before) {
            return RING_NOT_LATER;
        }
        before = t;
        bounded = true;
    }
    for (size_t i = 0; i < count; i++) {
        push(r, load(pairs, i));
    }
    r->offered_t = before;
    return RING_OK;
}

/* --- reading ----------------------------------------------------------------------------------------------------------------------- */

size_t ring_count(const ring *r)
{
    size_t count = 0;
    for (size_t k = 0; k < r->tier_count; k++) {
        count += r->tiers[k].count;
    }
    return count;
}

const ring_point *ring_first(const ring *r)
{
    for (size_t k = r->tier_count; k-- > 0;) {
        if (r->tiers[k].count > 0) {
            return tier_first(&r->tiers[k]);
        }
    }
    return NULL;
}

const ring_point *ring_last(const ring *r)
{
    return r->tiers[0].count > 0 ? tier_last(&r->tiers[0]) : NULL;
}

void ring_copy(const ring *r, void *out)
{
    char *to = out;
    for (size_t k = r->tier_count; k-- > 0;) {
        const ring_tier *tier = &r->tiers[k];
        size_t to_end = tier->capacity - tier->start;
        size_t head = tier->count < to_end ? tier->count : to_end;
        memcpy(to, tier->points + tier->start, head * sizeof(ring_point));
        to += head * sizeof(ring_point);
        memcpy(to, tier->points, (tier->count - head) * sizeof(ring_point));
        to += (tier->count - head) * sizeof(ring_point);
    }
}

/* The last of `count` >= 1 sorted points with .t <= t; the first is known to be one. No branch depends on the data: a window's edge falls
 * anywhere, so half of the branches of a textbook search would be mispredicted. */
static inline const ring_point *search(const ring_point *base, size_t count, int64_t t)
{
    while (count > 1) {
        size_t half = count / 2;
        base += base[half].t <= t ? half : 0;
        count -= half;
    }
    return base;
}

/* The last point of the tier that is not after t; the tier's first is known to be one. */
static inline const ring_point *tier_find(const ring_tier *tier, int64_t t)
{
    size_t to_end = tier->capacity - tier->start;
    if (tier->count <= to_end) {
        return search(tier_first(tier), tier->count, t);
    }
    if (tier->points[0].t <= t) {
        return search(tier->points, tier->count - to_end, t);
    }
    return search(tier_first(tier), to_end, t);
}

/* Floor of the line through lo and hi at t, lo->t <= t < hi->t. Signs are kept apart: |dv| * dt may need all 128 bits. */
static inline int64_t between(const ring_point *lo, const ring_point *hi, int64_t t)
{
    bool rising = hi->v >= lo->v;
    uint64_t rise = rising ? distance(lo->v, hi->v) : distance(hi->v, lo->v);
    uint64_t run = distance(lo->t, hi->t);
    uint64_t part = distance(lo->t, t);
    uint64_t whole;
    bool exact;
    uint64_t product;
    if (!__builtin_mul_overflow(rise, part, &product)) {
        whole = product / run;
        exact = whole * run == product;
    } else {
        uint128 wide = (uint128)rise * part;
        whole = (uint64_t)(wide / run); /* fits: part < run */
        exact = (uint128)whole * run == wide;
    }
    uint64_t from = (uint64_t)lo->v;
    return (int64_t)(rising ? from + whole : from - whole - !exact);
}

/* The ring must hold a point: the newest tier is looked at without asking. */
static inline int64_t value_at(const ring *r, int64_t t)
{
    const ring_point *newer = NULL;
    size_t k = 0;
    do {
        const ring_tier *tier = &r->tiers[k];
        const ring_point *first = tier_first(tier);
        if (first->t <= t) {
            const ring_point *lo = tier_find(tier, t);
            const ring_point *hi = lo + 1 < tier->points + tier->capacity ? lo + 1 : tier->points;
            if (lo == tier_last(tier)) {
                hi = newer;
            }
            return hi == NULL || lo->t == t ? lo->v : between(lo, hi, t);
        }
        newer = first;
    } while (++k < r->tier_count && r->tiers[k].count > 0);
    return newer->v;
}

ring_status ring_value_at(const ring *r, int64_t t, int64_t *value)
{
    if (r->tiers[0].count == 0) {
        return RING_EMPTY;
    }
    *value = value_at(r, t);
    return RING_OK;
}

ring_status ring_delta(const ring *r, int64_t t0, int64_t t1, int64_t *delta)
{
    if (t1 < t0) {
        return RING_BACKWARDS;
    }
    if (r->tiers[0].count == 0) {
        return RING_EMPTY;
    }
    return __builtin_sub_overflow(value_at(r, t1), value_at(r, t0), delta) ? RING_OVERFLOW : RING_OK;
}

/* --- slopes ------------------------------------------------------------------------------------------------------------------------ */

ring_status ring_plan(const ring *r, int64_t t0, int64_t t1, int64_t step, ring_spans *spans)
{
    if (step <= 0) {
        return RING_BAD_STEP;
    }
    if (t1 < t0) {
        return RING_BACKWARDS;
    }
    const ring_point *first = ring_first(r);
    const ring_point *last = ring_last(r);
    if (first == NULL || last == NULL) {
        return RING_NO_SPAN;
    }
    int64_t low = t0 > first->t ? t0 : first->t;
    int64_t high = t1 < last->t ? t1 : last->t;
    if (high < low) {
        return RING_NO_SPAN;
    }
    uint64_t width = (uint64_t)step;
    uint64_t back = distance(low, t1) / width; /* steps from t1 back to the oldest edge that is not before low */
    uint64_t beyond = distance(high, t1);
    uint64_t skip = beyond / width + (beyond % width != 0); /* and to the newest that is not after high */
    if (back <= skip) {
        return RING_NO_SPAN;
    }
    if (back - skip > RING_MAX_SPANS) {
        return RING_TOO_MANY;
    }
    spans->start = (int64_t)((uint64_t)t1 - back * width);
    spans->step = step;
    spans->count = (size_t)(back - skip);
    return RING_OK;
}

static inline ring_status slope(int64_t from, int64_t to, int64_t step, int64_t *per_second)
{
    int64_t rise;
    int64_t scaled;
    if (!__builtin_sub_overflow(to, from, &rise) && !__builtin_mul_overflow(rise, NS_PER_S, &scaled)) {
        *per_second = scaled / step - (scaled % step < 0);
        return RING_OK;
    }
    int128 wide = ((int128)to - from) * NS_PER_S;
    int128 floor = wide / step - (wide % step < 0);
    if (floor < INT64_MIN || floor > INT64_MAX) {
        return RING_OVERFLOW;
    }
    *per_second = (int64_t)floor;
    return RING_OK;
}

/* The slope of the i-th span. `edge` holds the value at its start and, after, the value at its end: where the next one starts. */
static inline ring_status next_slope(const ring *r, const ring_spans *spans, size_t i, int64_t *edge, int64_t *out)
{
    int64_t from = *edge;
    *edge = value_at(r, advance(spans->start, (uint64_t)spans->step * (i + 1)));
    return slope(from, *edge, spans->step, out);
}

ring_status ring_slopes(const ring *r, const ring_spans *spans, int64_t *slopes)
{
    int64_t edge = value_at(r, spans->start);
    for (size_t i = 0; i < spans->count; i++) {
        if (next_slope(r, spans, i, &edge, &slopes[i]) != RING_OK) {
            return RING_OVERFLOW;
        }
    }
    return RING_OK;
}

ring_status ring_extremes(const ring *r, const ring_spans *spans, int64_t *least, int64_t *most)
{
    int64_t edge = value_at(r, spans->start);
    *least = INT64_MAX;
    *most = INT64_MIN;
    for (size_t i = 0; i < spans->count; i++) {
        int64_t one;
        if (next_slope(r, spans, i, &edge, &one) != RING_OK) {
            return RING_OVERFLOW;
        }
        *least = one < *least ? one : *least;
        *most = one > *most ? one : *most;
    }
    return RING_OK;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a;
    int64_t y = *(const int64_t *)b;
    return (x > y) - (x < y);
}

void ring_sort(int64_t *slopes, size_t count)
{
    qsort(slopes, count, sizeof *slopes, compare);
}

int64_t ring_percentile(const int64_t *sorted, size_t count, int64_t per_mille)
{
    size_t rank = ((size_t)per_mille * count + 999) / 1000;
    return sorted[rank > 0 ? rank - 1 : 0];
}
