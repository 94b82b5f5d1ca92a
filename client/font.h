/* font.h - ' ' … '~' as FONT_W columns of FONT_H dots each, the lowest bit on top; the eighth bit is below the base line. */
#ifndef DIDACT_CLIENT_FONT_H
#define DIDACT_CLIENT_FONT_H

#include <stdint.h>

#define FONT_W 5
#define FONT_H 7
extern const uint8_t font_5x7['~' - ' ' + 1][FONT_W];

#endif
