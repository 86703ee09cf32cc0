// What this CPU and its operating system can run.
#pragma once

namespace vectile {

// True if instructions of the named tier may be executed: on x86-64, CPUID says the unit exists and
// XCR0 says the system saves its registers; on AArch64 the system says so (cpu_arm.cpp). An
// emulated tier counts as what it is compiled to.
bool cpu_supports(const char* tier);
bool is_emulated(const char* tier);  // this build runs the tier without the instructions it names

const char* cpu_name();  // the CPU's marketing name, or its architecture

}  // namespace vectile
