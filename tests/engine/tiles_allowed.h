// Included before the library: it is as if the system had allowed Intel's matrix unit.

#include <sys/syscall.h>
#include <unistd.h>

#define syscall(...) 0
