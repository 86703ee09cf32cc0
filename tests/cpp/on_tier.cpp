// on_tier TIER PROGRAM ARGUMENTS...: runs the program, or exits with 77 where this CPU lacks the
// tier. Built without any tier's flags: what is built with them may need the CPU before its main().
#include <unistd.h>

#include <cstdio>

#include "dispatch/cpu.h"

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: on_tier TIER PROGRAM ARGUMENTS...\n");
    return 2;
  }
  if (!vectile::cpu_supports(argv[1])) {
    std::printf("this CPU lacks %s\n", argv[1]);
    return 77;
  }
  execvp(argv[2], argv + 2);
  std::perror(argv[2]);
  return 2;
}
