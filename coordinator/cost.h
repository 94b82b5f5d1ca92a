/* cost.h - what a search takes before it runs, and how fast the workers that are here have been. The unit is a pass: one image forward through a
 * network, as many operations as it has multiply-adds; a step of training costs three an image, an evaluation one. The same everywhere, so what was
 * measured on one job says what another will take. Single-threaded: the loop's. */
#ifndef DIDACT_COORDINATOR_COST_H
#define DIDACT_COORDINATOR_COST_H

#include "coordinator/sched.h"

/* Passes of one scoring, with steps' batches of `batch` images. f.steps and f.valid_images 0: all that `data` has. */
double cost_scoring(const struct fidelity *f, const struct job_data *data, int batch);
/* Passes of a search's trial on this rung, with the zero-cost scores beside it. */
double cost_trial(const struct job_spec *s, const struct job_data *data, int rung);
/* The mean over a search's trials: of a rung's results one in `reduction` goes on, and of those at the top the largest share that may goes through
 * every round of racing, which is the most that racing can take. */
double cost_mean(const struct job_spec *s, const struct job_data *data);
double cost_warmup(const struct job_spec *s); /* passes of all candidates that workers vote on; 0: none */
double cost_training(const struct job_data *data, double epochs); /* passes of real training, and of its evaluation */

/* A scoring was measured: it becomes part of the average for where it was computed. */
void   cost_measured(struct sched *s, const struct trial *t, const struct trial_result *r, const struct worker *w);
/* Seconds that so many multiply-adds of scoring take on all slots that have the job's device, and then so many of what is the CPU's whatever the device
 * (warm-up, an audit with its control) on every slot; 0: a rate that it takes is not known. */
double cost_seconds(const struct sched *s, const struct job_spec *spec, double scoring, double training);

#endif
