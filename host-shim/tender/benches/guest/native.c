/* The CPU's work as a program of this host, to compare guests with. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "cpu.h"

int main(int argc, char **argv)
{
    if (argc != 2)
        return 1;
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    uint64_t sum = cpu_work(strtoull(argv[1], NULL, 10));
    clock_gettime(CLOCK_MONOTONIC, &b);
    printf("sum %llu\n", (unsigned long long)sum);
    printf("ns %lld\n", (b.tv_sec - a.tv_sec) * 1000000000LL + b.tv_nsec - a.tv_nsec);
    return 0;
}
