/* generator.h - the network that writes images: [z_t, onehot(y_t)] -> x_t, for each step t alone (its batch norms see
 * the B images of that t).
 *
 *     linear hidden, bn, lrelu -> linear c1*h/4*w/4, reshape, bn, lrelu -> up2, reflectpad 1, conv3x3 c2, bn, lrelu
 *     -> up2, reflectpad 1, conv3x3 C with bias -> tanh        (weight norm everywhere, slope 0.1)
 *
 * Steps run side by side; sums over t are taken in order of t, so results have the same bits for any thread count. On a device
 * (engine/lanes.h) they are the same sums in float32 of another order.
 * Thread: one caller at a time. */
#ifndef DIDACT_WORKER_GENERATOR_H
#define DIDACT_WORKER_GENERATOR_H

#include "common/job.h"
#include "common/net.h"
#include "worker/engine/engine.h"

struct generator_cfg {
    int T, B, z_dim, K;
    int c, h, w;                        /* of the images; h and w divisible by 4 */
    int hidden, channels1, channels2;
    int threads;
    const struct device *device;        /* NULL: the CPU */
    uint64_t device_room;               /* bytes of its memory: at most */
    float *x_there, *dx_there;          /* on the device, [T,B,H,W,C], borrowed: where images go, where their gradient is found */
};
struct generator;

int  generator_net(const struct generator_cfg *c, struct net *out, struct errbuf *e);
int  generator_new(const struct generator_cfg *c, struct generator **out, struct errbuf *e);
void generator_free(struct generator *g);
const struct net *generator_get_net(const struct generator *g);
uint64_t generator_bytes(const struct generator *g);       /* of the host */
uint64_t generator_bytes_there(const struct generator *g); /* of the device */

/* phi [G]; z [T,B,z_dim]; label [T,B]; x [T,B,H,W,C]: all borrowed; x overwritten. On a device x may be NULL: the images are in x_there when
 * generator_queue is done, and nobody waits. Errors (-ERR_UNAVAILABLE) are a device's. */
int generator_forward(struct generator *g, const float *phi, const float *z, const int *label, float *x, struct errbuf *e);
/* dx as x; NULL on a device: it is in dx_there. dphi [G] and dz are overwritten. On the CPU the forward of each t is computed again: one
 * step's activations a thread. On a device: right after the forward of the same arguments. */
int generator_backward(struct generator *g, const float *phi, const float *z, const int *label, const float *dx, float *dphi, float *dz,
                       struct errbuf *e);
void *generator_queue(const struct generator *g); /* NULL on the CPU */

#endif
