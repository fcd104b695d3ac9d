/* The core against a model of it that is too simple to be wrong, for the sanitizers to watch. Prints "ok N checks"; exits 1 at a difference.
 *
 * The model keeps every tier as a plain array, oldest first, and moves it along for each eviction.
 */
#include "core.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

__extension__ typedef __int128 int128;

#define MODEL_CAPACITY 16

static long checks;

#define CHECK(condition)                                                                    \
    do {                                                                                    \
        checks++;                                                                           \
        if (!(condition)) {                                                                 \
            fprintf(stderr, "%s:%d: %s (round %d)\n", __FILE__, __LINE__, #condition, round_); \
            exit(1);                                                                        \
        }                                                                                   \
    } while (0)

static int round_;

static uint64_t state = 88172645463325252u;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static int64_t up_to(int64_t most)
{
    return (int64_t)(next() % ((uint64_t)most + 1));
}

/* --- the model --------------------------------------------------------------------------------------------------------------------- */

typedef struct {
    ring_point points[RING_MAX_TIERS][MODEL_CAPACITY];
    size_t counts[RING_MAX_TIERS];
    int64_t limits[RING_MAX_TIERS][2];
    size_t tier_count;
} model;

static void model_push(model *m, size_t k, ring_point point)
{
    if (k == m->tier_count) {
        return;
    }
    ring_point *points = m->points[k];
    size_t count = m->counts[k];
    if (count > 0 && (int128)point.t - points[count - 1].t < m->limits[k][1]) {
        return;
    }
    if (count == (size_t)m->limits[k][0]) {
        model_push(m, k + 1, points[0]);
        memmove(points, points + 1, --count * sizeof *points);
    }
    points[count] = point;
    m->counts[k] = count + 1;
}

static size_t model_copy(const model *m, ring_point *out)
{
    size_t count = 0;
    for (size_t k = m->tier_count; k-- > 0;) {
        memcpy(out + count, m->points[k], m->counts[k] * sizeof *out);
        count += m->counts[k];
    }
    return count;
}

static int64_t model_value(const ring_point *points, size_t count, int64_t t)
{
    if (t <= points[0].t) {
        return points[0].v;
    }
    for (size_t i = 1; i < count; i++) {
        if (t < points[i].t) {
            /* Values and times of a round are small enough for a signed 128-bit product. */
            int128 rise = ((int128)points[i].v - points[i - 1].v) * ((int128)t - points[i - 1].t);
            int128 run = (int128)points[i].t - points[i - 1].t;
            int128 whole = rise / run - (rise % run < 0);
            return (int64_t)(points[i - 1].v + whole);
        }
    }
    return points[count - 1].v;
}

/* --- rounds ------------------------------------------------------------------------------------------------------------------------ */

static void compare_points(const ring *r, const model *m, ring_point *points, size_t *count)
{
    *count = model_copy(m, points);
    CHECK(ring_count(r) == *count);
    /* Of the exact size, and not aligned: a byte too many or an aligned store does not pass the sanitizers. */
    char *copy = malloc(*count * sizeof *points + 1);
    CHECK(copy != NULL);
    ring_copy(r, copy + 1);
    CHECK(memcmp(copy + 1, points, *count * sizeof *points) == 0);
    free(copy);
    const ring_point *first = ring_first(r);
    const ring_point *last = ring_last(r);
    CHECK((first == NULL) == (*count == 0) && (last == NULL) == (*count == 0));
    if (first != NULL && last != NULL) {
        CHECK(first->t == points[0].t && last->t == points[*count - 1].t);
    }
}

static void compare_values(const ring *r, const ring_point *points, size_t count, int64_t low, int64_t high)
{
    for (int i = 0; i < 8; i++) {
        int64_t t0 = low + up_to(high - low);
        int64_t t1 = low + up_to(high - low);
        int64_t value;
        int64_t delta;
        CHECK(ring_value_at(r, t0, &value) == RING_OK && value == model_value(points, count, t0));
        ring_status status = ring_delta(r, t0, t1, &delta);
        CHECK(status == (t1 < t0 ? RING_BACKWARDS : RING_OK));
        CHECK(status != RING_OK || delta == model_value(points, count, t1) - value);
    }
}

static void compare_slopes(const ring *r, const ring_point *points, size_t count, int64_t low, int64_t high)
{
    int64_t t0 = low + up_to((high - low) / 2);
    int64_t t1 = t0 + up_to(high - t0);
    int64_t step = 1 + up_to((high - low) / 20);
    ring_spans spans;
    ring_status status = ring_plan(r, t0, t1, step, &spans);
    int64_t oldest = t0 > points[0].t ? t0 : points[0].t;
    int64_t newest = t1 < points[count - 1].t ? t1 : points[count - 1].t;
    size_t expected = 0;
    for (int64_t end = t1; end - step >= oldest; end -= step) {
        expected += end <= newest;
    }
    CHECK(status == (expected > 0 ? RING_OK : RING_NO_SPAN));
    if (expected == 0) {
        return;
    }
    CHECK(spans.count == expected);
    int64_t *slopes = malloc(expected * sizeof *slopes);
    CHECK(slopes != NULL && ring_slopes(r, &spans, slopes) == RING_OK);
    for (size_t i = 0; i < expected; i++) {
        int64_t from = spans.start + (int64_t)i * step;
        int128 wide = ((int128)model_value(points, count, from + step) - model_value(points, count, from)) * 1000000000;
        CHECK(slopes[i] == (int64_t)(wide / step - (wide % step < 0)));
    }
    int64_t least;
    int64_t most;
    CHECK(ring_extremes(r, &spans, &least, &most) == RING_OK);
    ring_sort(slopes, expected);
    for (size_t i = 1; i < expected; i++) {
        CHECK(slopes[i - 1] <= slopes[i]);
    }
    CHECK(least == slopes[0] && most == slopes[expected - 1]);
    CHECK(ring_percentile(slopes, expected, 0) == least && ring_percentile(slopes, expected, 1000) == most);
    CHECK(ring_percentile(slopes, expected, 500) == slopes[(expected + 1) / 2 - 1]);
    free(slopes);
}

static void feed(ring *r, model *m, int64_t *t)
{
    ring_point batch[9];
    size_t count = 1 + (size_t)up_to(8);
    for (size_t i = 0; i < count; i++) {
        *t += 1 + up_to(20);
        batch[i] = (ring_point){*t, up_to(2000000) - 1000000};
        model_push(m, 0, batch[i]);
    }
    if (count == 1) {
        CHECK(ring_append(r, batch[0].t, batch[0].v) == RING_OK);
        CHECK(ring_append(r, batch[0].t, 0) == RING_NOT_LATER);
    } else {
        char unaligned[sizeof batch + 1];
        memcpy(unaligned + 1, batch, count * sizeof *batch);
        CHECK(ring_extend(r, unaligned + 1, count) == RING_OK);
        CHECK(ring_extend(r, unaligned + 1, count) == RING_NOT_LATER);
    }
}

static void one_round(void)
{
    model m = {.tier_count = 1 + (size_t)up_to(RING_MAX_TIERS - 1)};
    for (size_t k = 0; k < m.tier_count; k++) {
        m.limits[k][0] = 2 + up_to(MODEL_CAPACITY - 2);
        m.limits[k][1] = (k > 0 ? m.limits[k - 1][1] : 0) + up_to(30);
    }
    ring r;
    CHECK(ring_open(&r, (const int64_t (*)[2])m.limits, m.tier_count) == RING_OK);
    int64_t origin = up_to(1000) - 500;
    int64_t t = origin;
    ring_point points[RING_MAX_TIERS * MODEL_CAPACITY];
    size_t count;
    compare_points(&r, &m, points, &count);
    for (int i = 0; i < 60; i++) {
        feed(&r, &m, &t);
        compare_points(&r, &m, points, &count);
        compare_values(&r, points, count, origin - 50, t + 50);
        compare_slopes(&r, points, count, origin - 50, t + 50);
    }
    ring_close(&r);
}

/* --- edges ------------------------------------------------------------------------------------------------------------------------- */

static void open_refuses(void)
{
    static const struct {
        int64_t tiers[2][2];
        size_t count;
        ring_status status;
    } cases[] = {
        {{{2, 0}}, 0, RING_BAD_TIERS},
        {{{2, 0}}, RING_MAX_TIERS + 1, RING_BAD_TIERS},
        {{{1, 0}}, 1, RING_BAD_CAPACITY},
        {{{INT64_MIN, 0}}, 1, RING_BAD_CAPACITY},
        {{{RING_MAX_CAPACITY + 1, 0}}, 1, RING_BAD_CAPACITY},
        {{{INT64_MAX, 0}}, 1, RING_BAD_CAPACITY},
        {{{2, -1}}, 1, RING_BAD_SPACING},
        {{{2, 5}, {2, 4}}, 2, RING_BAD_SPACING},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ring r;
        CHECK(ring_open(&r, cases[i].tiers, cases[i].count) == cases[i].status);
        CHECK(r.store == NULL);
    }
}

static void the_ends_of_int64(void)
{
    const int64_t tiers[1][2] = {{4, 0}};
    const int64_t ts[] = {INT64_MIN, INT64_MIN + 1, -1, 0, 1, INT64_MAX - 1, INT64_MAX};
    ring rising;
    ring falling;
    CHECK(ring_open(&rising, tiers, 1) == RING_OK && ring_open(&falling, tiers, 1) == RING_OK);
    int64_t value;
    CHECK(ring_value_at(&rising, 0, &value) == RING_EMPTY && ring_delta(&rising, 0, 1, &value) == RING_EMPTY);
    CHECK(ring_append(&rising, INT64_MIN, INT64_MIN) == RING_OK && ring_append(&rising, INT64_MAX, INT64_MAX) == RING_OK);
    CHECK(ring_append(&falling, INT64_MIN, INT64_MAX) == RING_OK && ring_append(&falling, INT64_MAX, INT64_MIN) == RING_OK);
    for (size_t i = 0; i < sizeof ts / sizeof *ts; i++) {
        CHECK(ring_value_at(&rising, ts[i], &value) == RING_OK && value == ts[i]);
        CHECK(ring_value_at(&falling, ts[i], &value) == RING_OK && value == -1 - ts[i]);
    }
    CHECK(ring_delta(&rising, INT64_MIN, INT64_MAX, &value) == RING_OVERFLOW);
    CHECK(ring_delta(&rising, -1, INT64_MAX, &value) == RING_OVERFLOW);
    CHECK(ring_delta(&rising, 0, INT64_MAX, &value) == RING_OK && value == INT64_MAX);
    ring_spans spans;
    CHECK(ring_plan(&rising, INT64_MIN, INT64_MAX, 1, &spans) == RING_TOO_MANY);
    CHECK(ring_plan(&rising, INT64_MIN, INT64_MAX, 0, &spans) == RING_BAD_STEP);
    CHECK(ring_plan(&rising, 1, 0, 1, &spans) == RING_BACKWARDS);
    CHECK(ring_plan(&rising, INT64_MIN, INT64_MAX, INT64_MAX, &spans) == RING_OK && spans.count == 2);
    int64_t slopes[2];
    CHECK(ring_slopes(&rising, &spans, slopes) == RING_OK && slopes[0] == 1000000000 && slopes[1] == 1000000000);
    CHECK(ring_slopes(&falling, &spans, slopes) == RING_OK && slopes[0] == -1000000000);
    ring_close(&rising);
    ring_close(&falling);
}

int main(void)
{
    open_refuses();
    the_ends_of_int64();
    for (round_ = 1; round_ <= 400; round_++) {
        one_round();
    }
    printf("ok %ld checks\n", checks);
    return 0;
}
