/* How long a search will take: by the rates of those who may work for it, each kind of device by its own. */
#include "coordinator/cost.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void seconds_are_by_who_may_work_for_it(void **state)
{
    (void)state;
    struct sched s = { 0 };
    struct job_spec spec;
    struct worker cpu = { .slots = 2, .online = true, .device = DEVICE_CPU }, gpu = { .slots = 3, .online = true, .device = DEVICE_CUDA },
                  gone = { .slots = 100, .device = DEVICE_CUDA };
    job_defaults(&spec, JOB_SEARCH);
    list_init(&s.workers);
    list_append(&s.workers, &cpu.all);
    list_append(&s.workers, &gpu.all);
    list_append(&s.workers, &gone.all);
    assert_true(cost_seconds(&s, &spec, 1e9, 0) == 0); /* nothing is known */
    s.macs_per_slot_s[DEVICE_CUDA] = 1e9;
    assert_true(cost_seconds(&s, &spec, 1e9, 0) == 0); /* nothing of what a CPU's job takes */
    s.macs_per_slot_s[DEVICE_CPU] = 1e6;
    assert_true(fabs(cost_seconds(&s, &spec, 1e9, 1e9) - 400) < 1e-9); /* every worker has a CPU: 5 slots */
    spec.device = DEVICE_CUDA;
    assert_true(fabs(cost_seconds(&s, &spec, 3e9, 0) - 1) < 1e-9);
    assert_true(fabs(cost_seconds(&s, &spec, 3e9, 5e6) - 2) < 1e-9); /* its audit is the CPUs' */
    spec.device = DEVICE_ANY;
    assert_true(fabs(cost_seconds(&s, &spec, 3e9 + 2e6, 0) - 1) < 1e-9);
    s.macs_per_slot_s[DEVICE_CPU] = 0;
    assert_true(cost_seconds(&s, &spec, 3e9, 5e6) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = { cmocka_unit_test(seconds_are_by_who_may_work_for_it) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
