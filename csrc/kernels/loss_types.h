// What the loss kernels and the ops above them agree on.
#pragma once

#include "base/out.h"
