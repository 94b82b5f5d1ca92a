/* engine_version.h - part of every score's identity: raise it when any kernel's bits change. The coordinator refuses workers
 * of another version, for their scores would not be the same facts and a replay would differ. */
#ifndef DIDACT_ENGINE_VERSION_H
#define DIDACT_ENGINE_VERSION_H

#define ENGINE_VERSION "2"

#endif
