#include "common/rng.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void philox_gives_the_published_vectors_of_random123(void **state)
{
    (void)state;
    static const struct { uint32_t ctr[4], key[2], want[4]; } kat[] = { /* kat_vectors, philox4x32 10 */
        { { 0, 0, 0, 0 }, { 0, 0 }, { 0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8 } },
        { { ~0u, ~0u, ~0u, ~0u }, { ~0u, ~0u }, { 0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd } },
        { { 0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344 }, { 0xa4093822, 0x299f31d0 },
          { 0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1 } },
    };
    for (size_t i = 0; i < sizeof kat / sizeof *kat; i++) {
        struct rng r = { .left = 0 };
        memcpy(r.ctr, kat[i].ctr, sizeof r.ctr);
        memcpy(r.key, kat[i].key, sizeof r.key);
        for (int k = 0; k < 4; k++)
            assert_int_equal(rng_u32(&r), kat[i].want[k]);
    }
}

static void a_stream_starts_at_block_zero_of_its_name(void **state)
{
    (void)state;
    struct rng a, b = { .key = { 0x55667788u, 0x11223344u }, .ctr = { 0, RNG_TEST, 0xddccbbaau, 0x00ffeeu } };
    rng_init(&a, 0x1122334455667788u, RNG_TEST, 0x00ffeeddccbbaau);
    for (int i = 0; i < 40; i++)
        assert_int_equal(rng_u32(&a), rng_u32(&b));
}

static void the_same_name_gives_the_same_numbers_and_another_name_gives_others(void **state)
{
    (void)state;
    struct rng a, b, other[3];
    rng_init(&a, 5, RNG_WEIGHTS, 9);
    rng_init(&b, 5, RNG_WEIGHTS, 9);
    rng_init(&other[0], 6, RNG_WEIGHTS, 9);
    rng_init(&other[1], 5, RNG_SEARCH, 9);
    rng_init(&other[2], 5, RNG_WEIGHTS, 10);
    int equal[3] = { 0 };
    for (int i = 0; i < 100; i++) {
        uint32_t x = rng_u32(&a);
        assert_int_equal(x, rng_u32(&b));
        for (int k = 0; k < 3; k++)
            equal[k] += rng_u32(&other[k]) == x;
    }
    for (int k = 0; k < 3; k++)
        assert_in_range(equal[k], 0, 2);
}

/* Chi-square with n - 1 degrees of freedom stays within five standard deviations of its mean. */
static void assert_uniform(const uint32_t *count, uint32_t n, double draws)
{
    double want = draws / n, chi = 0;
    for (uint32_t i = 0; i < n; i++)
        chi += (count[i] - want) * (count[i] - want) / want;
    assert_true(fabs(chi - (n - 1)) < 5 * sqrt(2.0 * (n - 1)) + 1);
}

static void below_is_uniform_also_where_the_range_is_no_power_of_two(void **state)
{
    (void)state;
    static const uint32_t sizes[] = { 2, 3, 7, 10, 100, 1000 };
    for (size_t k = 0; k < sizeof sizes / sizeof *sizes; k++) {
        uint32_t n = sizes[k], count[1000] = { 0 };
        struct rng r;
        rng_init(&r, 1, RNG_TEST, k);
        for (int i = 0; i < 200000; i++) {
            uint32_t x = rng_below(&r, n);
            assert_true(x < n);
            count[x]++;
        }
        assert_uniform(count, n, 200000);
    }
}

static void below_has_no_bias_where_plain_modulo_would_be_far_off(void **state)
{
    (void)state;
    struct rng r;
    uint32_t n = 0xC0000000u, low = 0; /* three quarters of the range: modulo would hit the lowest third twice as often */
    rng_init(&r, 2, RNG_TEST, 0);
    for (int i = 0; i < 90000; i++)
        low += rng_below(&r, n) < n / 3;
    assert_in_range(low, 30000 - 750, 30000 + 750); /* standard deviation 141; modulo gives 45000 */
}

static void below_one_is_always_zero(void **state)
{
    (void)state;
    struct rng r;
    rng_init(&r, 3, RNG_TEST, 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(rng_below(&r, 1), 0);
}

static void a_permutation_holds_every_number_once(void **state)
{
    (void)state;
    for (uint32_t n = 0; n < 300; n += 7) {
        uint32_t p[300];
        uint8_t seen[300] = { 0 };
        struct rng r;
        rng_init(&r, 4, RNG_TEST, n);
        rng_permute(&r, p, n);
        for (uint32_t i = 0; i < n; i++) {
            assert_true(p[i] < n);
            assert_int_equal(seen[p[i]]++, 0);
        }
    }
}

static void all_permutations_of_four_are_equally_frequent(void **state)
{
    (void)state;
    uint32_t count[256] = { 0 }, dense[24], n = 0;
    struct rng r;
    rng_init(&r, 5, RNG_TEST, 0);
    for (int i = 0; i < 120000; i++) {
        uint32_t p[4];
        rng_permute(&r, p, 4);
        count[p[0] << 6 | p[1] << 4 | p[2] << 2 | p[3]]++;
    }
    for (int i = 0; i < 256; i++)
        if (count[i]) {
            assert_true(n < 24);
            dense[n++] = count[i];
        }
    assert_int_equal(n, 24);
    assert_uniform(dense, 24, 120000);
}

static void uniform_stays_in_its_interval_and_has_its_mean_and_variance(void **state)
{
    (void)state;
    struct rng r;
    double sum = 0, sq = 0;
    int n = 200000;
    rng_init(&r, 6, RNG_TEST, 0);
    for (int i = 0; i < n; i++) {
        double u = rng_uniform(&r);
        assert_true(u >= 0 && u < 1);
        sum += u;
        sq += u * u;
    }
    double mean = sum / n;
    assert_true(fabs(mean - 0.5) < 0.004);
    assert_true(fabs(sq / n - mean * mean - 1.0 / 12) < 0.002);
}

static void normal_has_mean_zero_variance_one_and_kurtosis_three(void **state)
{
    (void)state;
    struct rng r;
    double sum = 0, sq = 0, four = 0;
    int n = 200000;
    rng_init(&r, 7, RNG_TEST, 0);
    for (int i = 0; i < n; i++) {
        double x = rng_normal(&r);
        assert_true(isfinite(x));
        sum += x;
        sq += x * x;
        four += x * x * x * x;
    }
    assert_true(fabs(sum / n) < 0.012);
    assert_true(fabs(sq / n - 1) < 0.02);
    assert_true(fabs(four / n - 3) < 0.12);
}

static void derived_seeds_differ_by_each_part_of_the_name(void **state)
{
    (void)state;
    uint64_t base = rng_derive(1, RNG_TEST, 2);
    assert_true(base == rng_derive(1, RNG_TEST, 2));
    assert_true(base != rng_derive(2, RNG_TEST, 2));
    assert_true(base != rng_derive(1, RNG_WEIGHTS, 2));
    assert_true(base != rng_derive(1, RNG_TEST, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(philox_gives_the_published_vectors_of_random123),
        cmocka_unit_test(a_stream_starts_at_block_zero_of_its_name),
        cmocka_unit_test(the_same_name_gives_the_same_numbers_and_another_name_gives_others),
        cmocka_unit_test(below_is_uniform_also_where_the_range_is_no_power_of_two),
        cmocka_unit_test(below_has_no_bias_where_plain_modulo_would_be_far_off),
        cmocka_unit_test(below_one_is_always_zero),
        cmocka_unit_test(a_permutation_holds_every_number_once),
        cmocka_unit_test(all_permutations_of_four_are_equally_frequent),
        cmocka_unit_test(uniform_stays_in_its_interval_and_has_its_mean_and_variance),
        cmocka_unit_test(normal_has_mean_zero_variance_one_and_kurtosis_three),
        cmocka_unit_test(derived_seeds_differ_by_each_part_of_the_name),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
