/* lanes.h - one network applied to n batches on a device, several of them (lanes) side by side: forward, and a given gradient pulled back.
 *
 * First order alone: what a generator needs. A batch is alone with its batch norms, whichever lane it is in, and sums over batches are taken
 * in their order, so the number of lanes shows in no bit. All lanes share the parameters. With fewer lanes than
 * batches the way back computes each batch's forward again: the activations of `lanes` batches is all that is ever kept.
 * The work is recorded the second time and played from then on. Layouts are the engine's internal ones (engine.h), float32.
 * Thread: one at a time. Errors: -ERR_NOMEM where the device has no room, -ERR_UNAVAILABLE where it failed. */
#ifndef DIDACT_ENGINE_LANES_H
#define DIDACT_ENGINE_LANES_H

#include "worker/engine/device.h"

struct lanes_cfg {
    const struct net *net;           /* borrowed during lanes_new */
    const struct device *device;
    int    n, B, lanes;              /* batches, images of each; 1 <= lanes <= n */
    bool   want_dx;                  /* by the input, too */
    float *out, *dout;               /* [n,B,…] on the device, borrowed: where the output goes, where its gradient is found (NULL: no way back) */
};
struct lanes;
int      lanes_new(const struct lanes_cfg *c, struct lanes **out, struct errbuf *e);
void     lanes_free(struct lanes *l);
uint64_t lanes_bytes(const struct lanes *l);
/* Device bytes that lanes_new will take, exact; and the most lanes (up to n) within a budget, 0: not one fits. */
int      lanes_predict(const struct lanes_cfg *c, uint64_t *bytes, struct errbuf *e);
int      lanes_fit(const struct lanes_cfg *c, uint64_t budget, int *lanes, struct errbuf *e);
void    *lanes_queue(const struct lanes *l); /* the work's queue, for those whose work comes before or after it */

/* w [P] and x [n,B,…] of the host, free again on return. Queued: cfg.out is there when the queue is done. */
int lanes_forward(struct lanes *l, const float *w, const float *x, struct errbuf *e);
/* From cfg.dout, as the queue finds it, at the w and x of the last lanes_forward, without another in between: dw [P], the sum over the
 * batches, and dx [n,B,…] (NULL: not wanted). Waits. */
int lanes_backward(struct lanes *l, float *dw, float *dx, struct errbuf *e);

#endif
