/* ops.h - where the time of a run goes: every op of its plans, by rule (docs/RESULTS.md, the roofline table). */
#ifndef DIDACT_BENCH_OPS_H
#define DIDACT_BENCH_OPS_H

#include "worker/engine/engine.h"

struct ops_profile;
struct ops_profile *ops_start(struct unroll *u, struct eng_plan *generator /* may be NULL */);
/* One JSON object on stdout: {"w", "what", "threads", "seconds", "ops": [{net, op, layer, rule, in, out, calls, ms, gflop, mib}]}. */
void ops_print(const struct ops_profile *p, const char *w, const char *what, int threads, double seconds);

#endif
