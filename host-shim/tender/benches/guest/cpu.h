/* Work for a CPU alone, the same in a guest and in a program of the host: integers, branches, memory, floating point. */
#ifndef CPU_H
#define CPU_H

#include <stdint.h>

static uint64_t cpu_work(uint64_t rounds)
{
    static uint64_t table[4096];
    uint64_t x = 88172645463325252ULL, sum = 0;
    double f = 1.0;

    for (uint64_t i = 0; i < rounds; i++) {
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        table[x & 4095] += x;
        sum += table[(x >> 12) & 4095];
        f = f * 1.0000001 + 0.5;
        if (x & 1)
            sum ^= i;
    }
    return sum + (uint64_t)f;
}

#endif
