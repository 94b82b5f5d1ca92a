/* emulated.h - the GPU backend for tests: worker/engine/cuda itself, built for the emulator (cuda_emu.h), which lies in the build's tests/
 * folder. DIDACT_CUDA in the environment names another, such as a GPU's. */
#ifndef DIDACT_TESTS_EMULATED_H
#define DIDACT_TESTS_EMULATED_H

#include "worker/engine/device.h"

const struct device *emulated_device(void); /* NULL, and words on stderr: not there */

#endif
