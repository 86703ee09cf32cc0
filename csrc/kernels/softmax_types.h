// What the softmax kernels and the ops above them agree on.
#pragma once

#include "base/out.h"
