// Plain types that kernel signatures share with the layers above. No code: every tier includes it.
#pragma once

#include "base/types.h"

namespace vectile {}  // namespace vectile
