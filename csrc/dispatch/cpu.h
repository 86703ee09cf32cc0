// What this CPU and its operating system can run.
#pragma once

namespace vectile {

// True if instructions of the named tier may be executed: CPUID says the unit exists and XCR0 says
// the system saves its registers.
bool cpu_supports(const char* tier);

const char* cpu_name();  // the CPU's marketing name, or its architecture

}  // namespace vectile
